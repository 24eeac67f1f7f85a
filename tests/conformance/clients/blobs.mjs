// @azure/storage-blob of the Azure SDK for JavaScript: on a connected machine with its identity, or with `--key` and
// an account's key.
import { ManagedIdentityCredential } from "@azure/identity";
import { BlobServiceClient, StorageSharedKeyCredential, getBlobServiceAccountAudience } from "@azure/storage-blob";

const { BLOB_URL, BLOB_ACCOUNT, BLOB_KEY } = process.env;
const byKey = process.argv.includes("--key");
const credential = byKey ? new StorageSharedKeyCredential(BLOB_ACCOUNT, BLOB_KEY) : new ManagedIdentityCredential();
const service = new BlobServiceClient(BLOB_URL, credential);
const container = service.getContainerClient(byKey ? "jskey" : "jsbox");
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
  if (JSON.stringify(found) !== JSON.stringify(wanted)) throw new Error(`found ${JSON.stringify(found)}`);
}

await attempt("makes a container", () => container.create());
await attempt("a blob that is put whole", async () => {
  const blob = container.getBlockBlobClient("a folder/käse +&%.txt");
  await blob.upload("hello", 5, { metadata: { who: "js" }, blobHTTPHeaders: { blobContentType: "text/plain" } });
  equal(String(await blob.downloadToBuffer()), "hello");
  const found = await blob.getProperties();
  equal([found.contentLength, found.contentType, found.metadata.who], [5, "text/plain", "js"]);
});
await attempt("blocks in parallel", async () => {
  const bytes = Buffer.alloc(3 * 1024 * 1024 + 5, "arcadia");
  const blob = container.getBlockBlobClient("large");
  await blob.uploadData(bytes, { blockSize: 1024 * 1024, maxSingleShotSize: 1024, concurrency: 4 });
  equal((await blob.downloadToBuffer()).equals(bytes), true);
});
await attempt("lists by hierarchy", async () => {
  const found = [];
  for await (const item of container.listBlobsByHierarchy("/")) found.push(`${item.kind} ${item.name}`);
  equal(found, ["prefix a folder/", "blob large"]);
});
await attempt("a blob that is there is not replaced", async () => {
  try {
    await container.getBlockBlobClient("large").upload("x", 1, { conditions: { ifNoneMatch: "*" } });
  } catch (error) {
    if (error.statusCode === 409) return;
    throw error;
  }
  throw new Error("it was replaced");
});
await attempt("copies and their status", async () => {
  const source = container.getBlockBlobClient("large");
  const blob = container.getBlockBlobClient("copy");
  const copied = await (await blob.beginCopyFromURL(source.url)).pollUntilDone();
  const found = await blob.getProperties();
  equal([copied.copyStatus, found.copyStatus, found.copyId, found.copySource], ["success", "success", copied.copyId, source.url]);
  equal((await blob.downloadToBuffer()).equals(await source.downloadToBuffer()), true);
  equal((await blob.syncCopyFromURL(source.url)).copyStatus, "success");
  const status = await blob.beginCopyFromURL(`${source.url}none`).then(() => 202, (error) => error.statusCode);
  equal(status, 404);
});
await attempt("tiers", async () => {
  const blob = container.getBlockBlobClient("copy");
  const { etag } = await blob.getProperties();
  for (const tier of ["Cool", "Cold", "Hot"]) {
    await blob.setAccessTier(tier);
    const found = await blob.getProperties();
    equal([found.accessTier, found.etag], [tier, etag]);
  }
  await blob.delete();
});
if (!byKey) {
  await attempt("a token for this account alone", async () => {
    const own = new BlobServiceClient(BLOB_URL, credential, { audience: getBlobServiceAccountAudience(BLOB_ACCOUNT) });
    equal(await own.getContainerClient("jsbox").exists(), true);
  });
  await attempt("a token for another account is refused", async () => {
    const token = await credential.getToken(getBlobServiceAccountAudience(`other${BLOB_ACCOUNT}`));
    const other = new BlobServiceClient(BLOB_URL, { getToken: async () => token });
    const status = await other.getContainerClient("jsbox").getProperties().then(() => 200, (error) => error.statusCode);
    equal(status, 401);
  });
}
await attempt("deletes", async () => {
  await container.getBlobClient("large").delete();
  equal(await container.getBlobClient("large").exists(), false);
  await container.delete();
});
process.exit(failed ? 1 : 0);
