// A cloud of its own names, from JavaScript.

import { ClientSecretCredential } from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";

const { VAULT_URL, SECRET_NAME, SECRET_VALUE, AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET } = process.env;
const authorityHost = process.env.AZURE_AUTHORITY_HOST;
let failed = false;

async function attempt(name, check) {
  try {
    await check();
    console.log(`ok ${name}`);
  } catch (error) {
    failed = true;
    console.log(`failed ${name}: ${String(error).replace(/\s+/g, " ").slice(0, 400)}`);
  }
}

const credential = (secret) =>
  new ClientSecretCredential(AZURE_TENANT_ID, AZURE_CLIENT_ID, secret, { authorityHost, disableInstanceDiscovery: true });

await attempt("an authority in the code", async () => {
  const found = await new SecretClient(VAULT_URL, credential(AZURE_CLIENT_SECRET)).getSecret(SECRET_NAME);
  if (found.value !== SECRET_VALUE) throw new Error(`found ${found.value}`);
});
await attempt("a wrong secret is refused", async () => {
  try {
    await new SecretClient(VAULT_URL, credential("wrong")).getSecret(SECRET_NAME);
  } catch (error) {
    if (String(error).includes("7000215")) return;
    throw error;
  }
  throw new Error("it was taken");
});
process.exit(failed ? 1 : 0);
