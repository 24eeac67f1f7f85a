"""Storage accounts and blobs: `az storage`, curl from the machine as people are taught it, and the SDKs."""

import hashlib
import os

from checks_machine import MACHINE
from checks_sdks import node, python
from harness import check, contains, equal, eventually, outcomes

ACCOUNT = "arcfiles1"
URL = f"https://{ACCOUNT}.blob.core.windows.net"


def az(world, *arguments, who="user", **options):
    return world.run_az("storage", *arguments, who=who, **options)


def by_login(world, *arguments, **options):
    return az(world, *arguments, "--account-name", ACCOUNT, "--auth-mode", "login", **options)


def file_of(world, name, content):
    path = os.path.join(world.folder, name)
    with open(path, "wb") as out:
        out.write(content)
    return path


def content_of(world, name):
    with open(os.path.join(world.folder, name), "rb") as found:
        return found.read()


@check("storage: az storage account check-name, create, show, list")
def account(world):
    equal(az(world, "account", "check-name", "-n", ACCOUNT).json()["nameAvailable"], True)
    made = az(world, "account", "create", "-n", ACCOUNT, "-g", "arc-hack", "-l", "uksouth", "--sku", "Standard_LRS").json()
    equal((made["provisioningState"], made["sku"]["name"], made["kind"]), ("Succeeded", "Standard_LRS", "StorageV2"))
    world.account_id = made["id"]
    shown = az(world, "account", "show", "-n", ACCOUNT, "-g", "arc-hack", "--query", "primaryEndpoints.blob", "-o", "tsv")
    equal(shown.text(), f"{URL}/")
    equal(az(world, "account", "show", "-n", ACCOUNT).json()["id"], made["id"])
    contains(az(world, "account", "list", "--query", "[].name").json(), ACCOUNT)
    equal(az(world, "account", "check-name", "-n", ACCOUNT).json()["nameAvailable"], False)
    az(world, "account", "create", "-n", "No-Such_Name", "-g", "arc-hack", "-l", "uksouth").fails()


@check("storage: az storage account keys list, renew; show-connection-string")
def keys(world):
    before = az(world, "account", "keys", "list", "-n", ACCOUNT, "-g", "arc-hack").json()
    equal([key["keyName"] for key in before], ["key1", "key2"])
    after = az(world, "account", "keys", "renew", "-n", ACCOUNT, "-g", "arc-hack", "--key", "primary").json()
    equal((after[0]["value"] != before[0]["value"], after[1]["value"]), (True, before[1]["value"]))
    world.account_key, world.former_key = after[0]["value"], before[0]["value"]
    shown = az(world, "account", "show-connection-string", "-n", ACCOUNT, "-g", "arc-hack").json()
    contains(shown["connectionString"], f"AccountName={ACCOUNT}", "EndpointSuffix=core.windows.net")


@check("storage: the owner has no data role: refused by login, and the account key works")
def owner(world):
    made = by_login(world, "container", "create", "-n", "uploads").json()
    equal(made["created"], True)
    by_login(world, "blob", "list", "-c", "uploads").fails("permission")
    equal(az(world, "blob", "list", "-c", "uploads", "--account-name", ACCOUNT).json(), [])
    key = ["--account-name", ACCOUNT, "--account-key", world.account_key]
    equal(az(world, "blob", "list", "-c", "uploads", *key).json(), [])
    former = ["--account-name", ACCOUNT, "--account-key", world.former_key]
    az(world, "blob", "list", "-c", "uploads", *former).fails("uthenticat")


@check("storage: a data role for the user is in effect at once")
def role(world):
    world.run_az(
        "role", "assignment", "create", "--assignee", world.user, "--scope", world.account_id,
        "--role", "Storage Blob Data Contributor",
    ).ok()
    equal(by_login(world, "blob", "list", "-c", "uploads").json(), [])


@check("storage: az storage container create and list by login")
def containers(world):
    equal(by_login(world, "container", "create", "-n", "more").json()["created"], True)
    equal(by_login(world, "container", "create", "-n", "more").json()["created"], False)
    equal(by_login(world, "container", "list", "--query", "[].name").json(), ["more", "uploads"])
    equal(by_login(world, "container", "exists", "-n", "more").json()["exists"], True)
    by_login(world, "container", "show", "-n", "more").ok()
    equal(by_login(world, "container", "delete", "-n", "more").json()["deleted"], True)


@check("storage: az storage account blob-service-properties show, update; file-service-properties show")
def services(world):
    at = ["-n", ACCOUNT, "-g", "arc-hack"]
    shown = az(world, "account", "blob-service-properties", "show", *at).json()
    equal((shown["id"], shown["sku"]["name"]), (f"{world.account_id}/blobServices/default", "Standard_LRS"))
    equal((shown["cors"]["corsRules"], shown["deleteRetentionPolicy"]["enabled"]), ([], False))
    update = ["account", "blob-service-properties", "update", *at]
    off = az(world, *update, "--enable-versioning", "false", "--enable-delete-retention", "false").json()
    equal(off["id"], shown["id"])
    az(world, *update, "--enable-versioning", "true").fails("isVersioningEnabled")
    az(world, *update, "--enable-delete-retention", "true", "--delete-retention-days", "7").fails("deleteRetentionPolicy")
    files = az(world, "account", "file-service-properties", "show", *at).json()
    equal(files["shareDeleteRetentionPolicy"]["enabled"], False)


@check("storage: az storage container-rm create, show, exists, list, update, delete")
def containers_rm(world):
    at = ["--storage-account", ACCOUNT, "-g", "arc-hack"]
    rm = lambda verb, *arguments: az(world, "container-rm", verb, *at, *arguments)  # noqa: E731
    made = rm("create", "-n", "by-rm", "--metadata", "key1=value1").json()
    equal((made["id"], made["metadata"]), (f"{world.account_id}/blobServices/default/containers/by-rm", {"key1": "value1"}))
    rm("create", "-n", "by-rm", "--fail-on-exist").fails("already exists")
    equal(rm("create", "-n", "by-rm").json()["metadata"], {"key1": "value1"})
    rm("create", "-n", "open", "--public-access", "blob").fails("PublicAccessNotPermitted")
    shown = rm("show", "-n", "by-rm").json()
    equal((shown["etag"], shown["publicAccess"], shown["leaseState"]), (made["etag"], "None", "Available"))
    equal([rm("exists", "-n", name).json()["exists"] for name in ("by-rm", "nope")], [True, False])
    equal(rm("update", "-n", "by-rm", "--metadata", "key2=value2").json()["metadata"], {"key2": "value2"})
    equal(by_login(world, "container", "metadata", "show", "-n", "by-rm").json(), {"key2": "value2"})
    equal(rm("list", "--query", "[].name").json(), ["by-rm", "uploads"])
    equal(rm("list", "--include-deleted", "--query", "[].name").json(), ["by-rm", "uploads"])
    rm("delete", "-n", "by-rm", "--yes").ok()
    rm("delete", "-n", "by-rm", "--yes").ok()
    rm("show", "-n", "by-rm").fails("ContainerNotFound")
    equal(by_login(world, "container", "list", "--query", "[].name").json(), ["uploads"])


@check("storage: az storage blob upload, list, show, exists, download, delete by login")
def blobs(world):
    path = file_of(world, "f.txt", b"hello arcadia\n")
    at = ["-c", "uploads", "-n", "a folder/f.txt"]
    by_login(world, "blob", "upload", *at, "-f", path).ok()
    by_login(world, "blob", "upload", *at, "-f", path).fails("already exists")
    by_login(world, "blob", "upload", *at, "-f", path, "--overwrite").ok()
    found = by_login(world, "blob", "list", "-c", "uploads").json()
    equal([(blob["name"], blob["properties"]["contentLength"]) for blob in found], [("a folder/f.txt", 14)])
    shown = by_login(world, "blob", "show", *at).json()
    equal((shown["properties"]["contentSettings"]["contentType"], shown["properties"]["blobType"]), ("text/plain", "BlockBlob"))
    equal(by_login(world, "blob", "exists", *at).json()["exists"], True)
    equal(by_login(world, "blob", "exists", "-c", "uploads", "-n", "nope").json()["exists"], False)
    by_login(world, "blob", "download", *at, "-f", "dl.txt").ok()
    equal(content_of(world, "dl.txt"), b"hello arcadia\n")
    by_login(world, "blob", "delete", *at).ok()
    by_login(world, "blob", "show", *at).fails("BlobNotFound")


@check("storage: az storage blob copy start, cancel and set-tier")
def copies(world):
    content = b"to be copied\n"
    path = file_of(world, "source.txt", content)
    source, target = ["-c", "uploads", "-n", "from/source +&%.txt"], ["-c", "uploads", "-n", "copy.txt"]
    by_login(world, "blob", "upload", *source, "-f", path, "--metadata", "a=b").ok()
    url = f"{URL}/uploads/from/source%20%2B%26%25.txt"
    start = ["blob", "copy", "start", "--destination-container", "uploads", "--destination-blob", "copy.txt"]
    copied = by_login(world, *start, "--source-uri", url).json()
    equal(copied["copy_status"], "success")
    shown = by_login(world, "blob", "show", *target).json()
    equal((shown["properties"]["copy"]["id"], shown["properties"]["copy"]["source"]), (copied["copy_id"], url))
    equal((shown["properties"]["copy"]["progress"], shown["metadata"]), (f"{len(content)}/{len(content)}", {"a": "b"}))
    by_login(world, "blob", "delete", *source).ok()
    by_login(world, "blob", "download", *target, "-f", "dl.txt").ok()
    equal(content_of(world, "dl.txt"), content)
    by_login(world, *start, "--source-uri", url).fails("CannotVerifyCopySource")
    by_login(world, *start, "--source-uri", "https://example.com/box/b").fails("CannotVerifyCopySource")
    key = ["--account-name", ACCOUNT, "--account-key", world.account_key]
    within = ["--source-container", "uploads", "--source-blob", "copy.txt", "--tier", "Cold"]
    equal(az(world, *start[:-1], "again.txt", *within, *key).json()["copy_status"], "success")
    again = ["-c", "uploads", "-n", "again.txt"]
    equal(by_login(world, "blob", "show", *again).json()["properties"]["blobTier"], "Cold")
    cancel = ["blob", "copy", "cancel", "--destination-container", "uploads", "--destination-blob", "copy.txt"]
    by_login(world, *cancel, "--copy-id", copied["copy_id"]).fails("no pending copy operation")
    for tier in ("Cool", "Cold", "Hot"):
        by_login(world, "blob", "set-tier", *target, "--tier", tier).ok()
        properties = by_login(world, "blob", "show", *target).json()["properties"]
        equal((properties["blobTier"], properties["etag"]), (tier, shown["properties"]["etag"]))
    by_login(world, "blob", "set-tier", *target, "--tier", "Archive").fails("InvalidBlobTier")
    for at in (target, again):
        by_login(world, "blob", "delete", *at).ok()


@check("storage: az storage blob upload and download with the account key")
def by_key(world):
    path = file_of(world, "k.txt", b"by key\n")
    key = ["--account-name", ACCOUNT, "--account-key", world.account_key, "-c", "uploads", "-n", "k.txt"]
    az(world, "blob", "upload", *key, "-f", path, "--metadata", "a=b", "some_thing=c").ok()
    equal(az(world, "blob", "metadata", "show", *key).json(), {"a": "b", "some_thing": "c"})
    az(world, "blob", "download", *key, "-f", "dl.txt").ok()
    equal(content_of(world, "dl.txt"), b"by key\n")
    connection = f"DefaultEndpointsProtocol=https;EndpointSuffix=core.windows.net;AccountName={ACCOUNT};AccountKey="
    listed = az(
        world, "blob", "list", "-c", "uploads", "--connection-string", connection + world.account_key,
        "--query", "[].name",
    )
    equal(listed.json(), ["k.txt"])


@check("storage: a file of 20 MiB in blocks")
def large(world):
    content = hashlib.shake_256(b"twenty").digest(20 * 1024 * 1024)
    path = file_of(world, "large.bin", content)
    script = (
        "import os, sys\n"
        "from azure.storage.blob import BlobClient\n"
        "url, key, path = sys.argv[1:]\n"
        "blob = BlobClient.from_blob_url(url, key, max_single_put_size=1, max_block_size=4 * 1024 * 1024)\n"
        "with open(path, 'rb') as source:\n"
        "    blob.upload_blob(source, max_concurrency=4)\n"
        "print(len(blob.get_block_list('committed')[0]))\n"
    )
    done = world.run([world.sdk_python, "-c", script, f"{URL}/uploads/large.bin", world.account_key, path])
    equal(done.text(), "5")
    by_login(world, "blob", "download", "-c", "uploads", "-n", "large.bin", "-f", "large.out", "--no-progress").ok()
    equal(content_of(world, "large.out") == content, True)
    by_login(world, "blob", "upload", "-c", "uploads", "-n", "one-body", "-f", path, "--no-progress").ok()
    by_login(world, "blob", "download", "-c", "uploads", "-n", "one-body", "-f", "large.out", "--no-progress").ok()
    equal(content_of(world, "large.out") == content, True)


TOKEN = r"""
challenge=$(curl -s -D - -H Metadata:true "http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2F{resource}" | grep -i Www-Authenticate | cut -d '=' -f 2 | tr -d '\r\n')
token=$(curl -s -H Metadata:true -H "Authorization: Basic $(cat $challenge)" "http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2F{resource}" | jq -r .access_token)
"""


def curl(world, script, resource="storage.azure.com"):
    return world.on_machine(MACHINE, "bash", "-c", "set -e\n" + TOKEN.replace("{resource}", resource) + script)


@check("storage: the machine without a data role is refused, and so is a token for another audience")
def machine_refused(world):
    put = f"""curl -sS -X PUT -d "" -H "x-ms-version: 2020-10-02" -H "Authorization: Bearer $token" "{URL}/machine?restype=container" """
    contains(curl(world, put).text(), "AuthorizationPermissionMismatch")
    contains(curl(world, put, resource="vault.azure.net").text(), "InvalidAuthenticationInfo")
    world.run_az(
        "role", "assignment", "create", "--assignee", world.machine_object, "--scope", world.account_id,
        "--role", "Storage Blob Data Contributor",
    ).ok()


@check("storage: curl on the machine makes a container and uploads a file")
def machine_curl(world):
    script = f"""
name={ACCOUNT}
curl -sS -o /dev/null -w '%{{http_code}}\\n' -X PUT -d "" -H "x-ms-version: 2020-10-02" -H "Authorization: Bearer $token" "https://$name.blob.core.windows.net/frommachine?restype=container"
curl -sS -i -X PUT -H "x-ms-blob-type: BlockBlob" -H "x-ms-version: 2020-10-02" -H "Authorization: Bearer $token" --data-binary @/etc/hosts https://$name.blob.core.windows.net/frommachine/hosts.txt
curl -sS -H "x-ms-version: 2020-10-02" -H "Authorization: Bearer $token" https://$name.blob.core.windows.net/frommachine/hosts.txt | cmp - /etc/hosts && echo same
"""
    found = curl(world, script).text()
    equal(found.splitlines()[0].strip(), "201")
    contains(found.lower(), "content-md5: ", "http/2 201" if "HTTP/2" in found else "http/1.1 201", "same")


@check("storage: a machine may only do what its role says, container by container")
def neighbours(world):
    script = f"""
for url in "{URL}/frommachine/hosts.txt?comp=lease" "{URL}/frommachine/none"; do
  curl -sS -o /dev/null -w '%{{http_code}}\\n' -H "x-ms-version: 2020-10-02" -H "Authorization: Bearer $token" "$url"
done
curl -sS -o /dev/null -w '%{{http_code}}\\n' "{URL}/frommachine/hosts.txt"
curl -sS -o /dev/null -w '%{{http_code}}\\n' -H "Authorization: Bearer $token" "{URL}/frommachine/hosts.txt"
"""
    equal(curl(world, script).lines(), ["400", "404", "401", "403"])


def variables(world):
    return {"BLOB_URL": URL, "BLOB_ACCOUNT": ACCOUNT, "BLOB_KEY": world.account_key}


def words(world):
    return [f"{name}={value}" for name, value in variables(world).items()]


@check("storage: azure-storage-blob for Python on the machine")
def python_sdk(world):
    return outcomes(world.on_machine(MACHINE, "env", *words(world), *python(world, "blobs.py")), 16)


@check("storage: @azure/storage-blob for JavaScript on the machine")
def javascript_sdk(world):
    return outcomes(world.on_machine(MACHINE, "env", *words(world), *node(world, "blobs.mjs")), 10)


@check("storage: @azure/storage-blob for JavaScript with the account key")
def javascript_key(world):
    return outcomes(world.run(node(world, "blobs.mjs", "--key"), env=variables(world)), 8)


@check("storage: blobs outlive a kill -9 of the site in the middle of uploads")
def killed(world):
    script = (
        "import sys\n"
        "from azure.storage.blob import ContainerClient\n"
        "url, key = sys.argv[1:]\n"
        "with ContainerClient.from_container_url(url, key, retry_total=0) as box:\n"
        "    for number in range(100000):\n"
        "        size = 3000 if number % 3 else 300000\n"
        "        box.upload_blob(f'{ROUND}/{number}', bytes([number % 251]) * size)\n"
        "        print(number, flush=True)\n"
    )
    reading = (
        "import sys\n"
        "from azure.storage.blob import ContainerClient\n"
        "url, key, start, count = sys.argv[1:]\n"
        "with ContainerClient.from_container_url(url, key) as box:\n"
        "    for number in range(int(count)):\n"
        "        size = 3000 if number % 3 else 300000\n"
        "        found = box.download_blob(f'{start}/{number}').readall()\n"
        "        assert found == bytes([number % 251]) * size, number\n"
        "print('all there')\n"
    )
    import subprocess
    import time

    box = f"{URL}/uploads"
    for turn in range(3):
        writer = subprocess.Popen(
            [world.sdk_python, "-c", script.replace("{ROUND}", f"killed{turn}"), box, world.account_key],
            env=world.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        time.sleep(2.0 + turn * 0.37)
        world.kill_site()
        out, _ = writer.communicate(timeout=60)
        count = len(out.split())
        equal(count > 3, True)
        eventually(lambda: world.program("up", "--detach").ok())
        equal(world.run([world.sdk_python, "-c", reading, box, world.account_key, f"killed{turn}", str(count)]).text(), "all there")


@check("storage: az storage account delete; the name is free and its data is gone")
def delete(world):
    az(world, "account", "delete", "-n", ACCOUNT, "-g", "arc-hack", "--yes").ok()
    equal(az(world, "account", "check-name", "-n", ACCOUNT).json()["nameAvailable"], True)
    az(world, "account", "create", "-n", ACCOUNT, "-g", "arc-hack", "-l", "uksouth", "--sku", "Standard_LRS").ok()
    equal(az(world, "container", "list", "--account-name", ACCOUNT, "--query", "[].name").json(), [])
    az(world, "account", "delete", "-n", ACCOUNT, "-g", "arc-hack", "--yes").ok()
