// node-postgres: by password and by directory token.
import pg from "pg";

const { DB_NAME, DB_PASSWORD, DB_TOKEN, DB_ROLE, PGHOSTADDR } = process.env;
const servername = `${DB_NAME}.postgres.database.azure.com`;
// This client knows no PGHOSTADDR: it is told the address and the name that the certificate is for.
const options = { host: PGHOSTADDR, port: 5432, database: "arc_hack", ssl: { servername }, connectionTimeoutMillis: 20000 };
let failed = false;

async function attempt(name, action) {
  try {
    await action();
    console.log(`ok ${name}`);
  } catch (error) {
    failed = true;
    console.log(`failed ${name}: ${String(error).replace(/\s+/g, " ").slice(0, 400)}`);
  }
}

async function one(user, password, statement) {
  const client = new pg.Client({ ...options, user, password });
  await client.connect();
  try {
    return Object.values((await client.query(statement)).rows[0])[0];
  } finally {
    await client.end();
  }
}

function equal(found, wanted) {
  if (found !== wanted) throw new Error(`found ${found}, wanted ${wanted}`);
}

async function refused(words, action) {
  try {
    await action();
  } catch (error) {
    if (String(error).includes(words)) return;
    throw error;
  }
  throw new Error("it was let in");
}

await attempt("a password", async () => equal(await one("arcadmin", DB_PASSWORD, "SELECT current_user"), "arcadmin"));
await attempt("the user's longer form", async () => equal(await one(`arcadmin@${DB_NAME}`, DB_PASSWORD, "SELECT 7"), 7));
await attempt("a token", async () => equal(await one(DB_ROLE, DB_TOKEN, "SELECT current_user"), DB_ROLE));
await attempt("a wrong password", () => refused("password authentication failed", () => one("arcadmin", "x", "SELECT 1")));
process.exit(failed ? 1 : 0);
