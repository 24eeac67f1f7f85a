// ManagedIdentityCredential and DefaultAzureCredential of the Azure SDK for JavaScript on a connected machine.
import { DefaultAzureCredential, ManagedIdentityCredential } from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";

const { VAULT_URL, SECRET_NAME, SECRET_VALUE } = process.env;
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

async function read(credential) {
  const { value } = await new SecretClient(VAULT_URL, credential).getSecret(SECRET_NAME);
  if (value !== SECRET_VALUE) throw new Error(`found ${value}`);
}

await attempt("reads the secret", () => read(new ManagedIdentityCredential()));
await attempt("DefaultAzureCredential reads the secret", () => read(new DefaultAzureCredential()));
await attempt("may not write", async () => {
  const client = new SecretClient(VAULT_URL, new ManagedIdentityCredential());
  try {
    await client.setSecret(SECRET_NAME, "x");
  } catch (error) {
    if (error.statusCode === 403) return;
    throw error;
  }
  throw new Error("a reader wrote");
});
process.exit(failed ? 1 : 0);
