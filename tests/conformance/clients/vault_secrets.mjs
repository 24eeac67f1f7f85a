// ClientSecretCredential and the life of secrets with the Azure SDK for JavaScript.
import { ClientSecretCredential } from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";

const { VAULT_URL, AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET } = process.env;
const credential = new ClientSecretCredential(AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET);
const client = new SecretClient(VAULT_URL, credential);
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

function equal(found, wanted) {
  if (JSON.stringify(found) !== JSON.stringify(wanted)) {
    throw new Error(`found ${JSON.stringify(found)}, wanted ${JSON.stringify(wanted)}`);
  }
}

async function refused(status, action) {
  try {
    await action();
  } catch (error) {
    equal(error.statusCode, status);
    return;
  }
  throw new Error(`should have been refused with ${status}`);
}

async function collect(iterator) {
  const found = [];
  for await (const item of iterator) found.push(item);
  return found;
}

await attempt("set and get", async () => {
  const made = await client.setSecret("js", "one", { tags: { a: "b" }, contentType: "text/plain" });
  const found = await client.getSecret("js");
  equal([found.value, found.properties.version, found.properties.tags], ["one", made.properties.version, { a: "b" }]);
});
await attempt("versions", async () => {
  const { properties } = await client.getSecret("js");
  await client.setSecret("js", "two");
  equal((await client.getSecret("js", { version: properties.version })).value, "one");
  equal((await collect(client.listPropertiesOfSecretVersions("js"))).length, 2);
});
await attempt("list in small pages", async () => {
  for (let number = 0; number < 8; number += 1) await client.setSecret(`js-page-${number}`, "x");
  const pages = await collect(client.listPropertiesOfSecrets().byPage({ maxPageSize: 3 }));
  const names = pages.flat().map((item) => item.name);
  equal(names.filter((name) => name.startsWith("js-page-")).length, 8);
  equal(new Set(names).size, names.length);
  equal(pages.every((page) => page.length <= 3), true);
});
await attempt("update", async () => {
  const { properties } = await client.getSecret("js");
  await client.updateSecretProperties("js", properties.version, { enabled: false });
  await refused(403, () => client.getSecret("js"));
  await client.updateSecretProperties("js", properties.version, { enabled: true });
});
await attempt("delete", async () => {
  const deleted = await (await client.beginDeleteSecret("js")).pollUntilDone();
  equal(deleted.name, "js");
  await refused(404, () => client.getSecret("js"));
  await refused(409, () => client.setSecret("js", "x"));
  equal((await collect(client.listDeletedSecrets())).some((item) => item.name === "js"), true);
});
await attempt("recover", async () => {
  await (await client.beginRecoverDeletedSecret("js")).pollUntilDone();
  equal((await client.getSecret("js")).value, "two");
});
await attempt("purge", async () => {
  await (await client.beginDeleteSecret("js")).pollUntilDone();
  await client.purgeDeletedSecret("js");
  await refused(404, () => client.getDeletedSecret("js"));
});
await attempt("backup and restore", async () => {
  await client.setSecret("js-backup", "kept");
  const backup = await client.backupSecret("js-backup");
  await (await client.beginDeleteSecret("js-backup")).pollUntilDone();
  await client.purgeDeletedSecret("js-backup");
  await client.restoreSecretBackup(backup);
  equal((await client.getSecret("js-backup")).value, "kept");
});
await attempt("a wrong client secret", async () => {
  const wrong = new ClientSecretCredential(AZURE_TENANT_ID, AZURE_CLIENT_ID, "wrong");
  try {
    await wrong.getToken("https://vault.azure.net/.default");
  } catch (error) {
    equal(String(error).includes("AADSTS7000215"), true);
    return;
  }
  throw new Error("a wrong secret got a token");
});
process.exit(failed ? 1 : 0);
