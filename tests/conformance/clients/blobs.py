"""azure-storage-blob on a connected machine with its identity, synchronous and asynchronous."""

import asyncio
import hashlib
import os

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceModifiedError, ResourceNotFoundError
from azure.identity import ManagedIdentityCredential
from azure.identity.aio import ManagedIdentityCredential as AsyncManagedIdentityCredential
from azure.storage.blob import BlobBlock, BlobServiceClient, ContentSettings
from azure.storage.blob.aio import BlobServiceClient as AsyncBlobServiceClient

from outcome import attempt, attempt_async, end, equal

URL = os.environ["BLOB_URL"]
OF_ANOTHER_ACCOUNT = URL.replace("://", "://other", 1)
LARGE = hashlib.shake_256(b"large").digest(5 * 1024 * 1024 + 17)


def refused(status, code, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except HttpResponseError as error:
        equal((error.status_code, str(getattr(error.error_code, "value", error.error_code))), (status, code))
        return
    raise AssertionError("it was not refused")


def whole(container):
    blob = container.get_blob_client("a folder/käse +&%.txt")
    blob.upload_blob(b"hello", metadata={"who": "machine"}, content_settings=ContentSettings("text/plain"))
    equal(blob.download_blob().readall(), b"hello")
    found = blob.get_blob_properties()
    equal((found.size, found.metadata, found.content_settings.content_type), (5, {"who": "machine"}, "text/plain"))
    equal(bytes(found.content_settings.content_md5), hashlib.md5(b"hello").digest())
    blob.set_blob_metadata({"who": "else"})
    equal(blob.get_blob_properties().metadata, {"who": "else"})
    refused(409, "BlobAlreadyExists", blob.upload_blob, b"again")
    blob.upload_blob(b"again", overwrite=True)
    equal(blob.download_blob(offset=1, length=3).readall(), b"gai")


def empty(container):
    blob = container.upload_blob("empty", b"")
    equal((blob.exists(), blob.download_blob().readall()), (True, b""))
    equal(container.get_blob_client("none").exists(), False)


def blocks(container):
    blob = container.get_blob_client("blocks")
    for name in ("c", "a", "b"):
        blob.stage_block(f"block-{name}", name.encode(), validate_content=False)
    equal(len(blob.get_block_list("all")[1]), 3)
    blob.commit_block_list([BlobBlock(f"block-{name}") for name in ("a", "b", "c", "a")])
    equal(blob.download_blob().readall(), b"abca")
    equal([block.size for block in blob.get_block_list("committed")[0]], [1, 1, 1, 1])


def large(service):
    options = {"max_single_put_size": 1024 * 1024, "max_block_size": 1024 * 1024, "max_single_get_size": 1024 * 1024}
    with BlobServiceClient(URL, ManagedIdentityCredential(), **options) as service:
        blob = service.get_blob_client("sdkbox", "large")
        blob.upload_blob(LARGE, max_concurrency=4)
        equal(blob.download_blob(max_concurrency=4).readall() == LARGE, True)


def lists(container):
    for name in ("dir/one", "dir/two", "dir/sub/three", "top"):
        container.upload_blob(name, b"x", overwrite=True)
    equal([blob.name for blob in container.list_blobs("dir/", results_per_page=2)], ["dir/one", "dir/sub/three", "dir/two"])
    equal(sorted(item.name for item in container.walk_blobs("dir/")), ["dir/one", "dir/sub/", "dir/two"])
    blob = next(iter(container.list_blobs("dir/one", include=["metadata"])))
    equal((blob.size, blob.blob_type.value), (1, "BlockBlob"))


def conditions(container):
    blob = container.upload_blob("conditions", b"one", overwrite=True)
    tag = blob.get_blob_properties().etag
    match = {"etag": tag, "match_condition": MatchConditions.IfNotModified}
    blob.upload_blob(b"two", overwrite=True, **match)
    try:
        blob.upload_blob(b"three", overwrite=True, **match)
    except ResourceModifiedError:
        equal(blob.download_blob().readall(), b"two")
        return
    raise AssertionError("a stale tag was taken")


def copies(container):
    source = container.upload_blob("copy source +&%", LARGE, metadata={"who": "machine"}, overwrite=True)
    blob = container.get_blob_client("copy")
    copied = blob.start_copy_from_url(source.url)
    found = blob.get_blob_properties()
    equal((copied["copy_status"], found.copy.status, found.copy.id), ("success", "success", copied["copy_id"]))
    equal((found.copy.source, found.copy.progress), (source.url, f"{len(LARGE)}/{len(LARGE)}"))
    equal((found.metadata, blob.download_blob().readall() == LARGE), ({"who": "machine"}, True))
    listed = next(iter(container.list_blobs("copy", include=["copy"])))
    equal((listed.name, listed.copy.id), ("copy", copied["copy_id"]))
    waited = blob.start_copy_from_url(source.url, metadata={"who": "else"}, requires_sync=True)
    equal((waited["copy_status"], blob.get_blob_properties().metadata), ("success", {"who": "else"}))
    refused(409, "NoPendingCopyOperation", blob.abort_copy, waited["copy_id"])
    refused(404, "CannotVerifyCopySource", blob.start_copy_from_url, source.url + "none")
    refused(409, "CannotVerifyCopySource", blob.start_copy_from_url, "https://example.com/b")
    tag = {"etag": "0x8D0", "match_condition": MatchConditions.IfNotModified}
    refused(412, "SourceConditionNotMet", blob.start_copy_from_url, source.url, **{f"source_{k}": v for k, v in tag.items()})
    for gone in (source, blob):
        gone.delete_blob()


def tiers(container):
    blob = container.upload_blob("tiers", b"x", overwrite=True)
    before = blob.get_blob_properties()
    for tier in ("Cool", "Cold", "Hot"):
        blob.set_standard_blob_tier(tier)
        found = blob.get_blob_properties()
        equal((found.blob_tier, found.etag, found.last_modified), (tier, before.etag, before.last_modified))
    refused(400, "InvalidBlobTier", blob.set_standard_blob_tier, "Archive")
    blob.delete_blob()


def deletes(container):
    container.delete_blob("top")
    try:
        container.delete_blob("top")
    except ResourceNotFoundError:
        return
    raise AssertionError("a blob was deleted twice")


def wrong_audience(audience):
    token = ManagedIdentityCredential().get_token(f"{audience}/.default")

    class Wrong:
        def get_token(self, *_, **__):
            return token

    with BlobServiceClient(URL, Wrong()) as service:
        try:
            list(service.list_containers())
        except HttpResponseError as error:
            equal(error.status_code, 401)
            return
    raise AssertionError("a token for another audience was taken")


def own_audience():
    with BlobServiceClient(URL, ManagedIdentityCredential(), audience=URL) as service:
        equal("sdkbox" in [found.name for found in service.list_containers()], True)


async def asynchronous():
    async with AsyncManagedIdentityCredential() as credential, AsyncBlobServiceClient(URL, credential) as service:
        container = service.get_container_client("sdkasync")
        await container.create_container()
        blob = await container.upload_blob("b", LARGE)
        equal(await (await blob.download_blob()).readall() == LARGE, True)
        equal([item.name async for item in container.list_blobs()], ["b"])
        await blob.delete_blob()
        await container.delete_container()


with BlobServiceClient(URL, ManagedIdentityCredential()) as client:
    box = client.get_container_client("sdkbox")
    attempt("makes a container", box.create_container)
    attempt("a second one of the name is refused", lambda: refused(409, "ContainerAlreadyExists", box.create_container))
    attempt("lists containers", lambda: equal("sdkbox" in [found.name for found in client.list_containers()], True))
    attempt("a blob that is put whole", lambda: whole(box))
    attempt("empty and missing blobs", lambda: empty(box))
    attempt("blocks and their list", lambda: blocks(box))
    attempt("a large blob in parallel blocks and ranges", lambda: large(client))
    attempt("lists, pages and folders", lambda: lists(box))
    attempt("conditions", lambda: conditions(box))
    attempt("copies and their status", lambda: copies(box))
    attempt("tiers", lambda: tiers(box))
    attempt("deletes", lambda: deletes(box))
attempt("a token for another audience is refused", lambda: wrong_audience("https://vault.azure.net"))
attempt("a token for this account alone", own_audience)
attempt("a token for another account is refused", lambda: wrong_audience(OF_ANOTHER_ACCOUNT))
asyncio.run(attempt_async("asynchronous", asynchronous()))
end()
