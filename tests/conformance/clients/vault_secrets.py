"""ClientSecretCredential and the life of secrets, synchronous."""

import datetime
import os

from azure.core import MatchConditions  # noqa: F401  (shows that the core is there)
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient

from outcome import attempt, end, equal

URL = os.environ["VAULT_URL"]
TENANT, CLIENT, SECRET = (os.environ[f"AZURE_{name}"] for name in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET"))
credential = ClientSecretCredential(TENANT, CLIENT, SECRET)
client = SecretClient(URL, credential)
PAGED = 30


def set_and_get():
    expires = datetime.datetime(2099, 1, 1, tzinfo=datetime.timezone.utc)
    made = client.set_secret("sdk", "one", content_type="text/plain", tags={"a": "b"}, expires_on=expires)
    found = client.get_secret("sdk")
    equal((found.value, found.properties.version), ("one", made.properties.version))
    equal((found.properties.content_type, found.properties.tags, found.properties.expires_on), ("text/plain", {"a": "b"}, expires))
    equal(found.properties.created_on is not None and found.properties.recoverable_days, 7)
    equal(found.properties.recovery_level, "CustomizedRecoverable+Purgeable")


def versions():
    first = client.get_secret("sdk").properties.version
    client.set_secret("sdk", "two")
    equal(client.get_secret("sdk").value, "two")
    equal(client.get_secret("sdk", first).value, "one")
    equal(len(list(client.list_properties_of_secret_versions("sdk"))), 2)
    equal(list(client.list_properties_of_secret_versions("sdk-unknown")), [])


def update():
    version = client.get_secret("sdk").properties.version
    changed = client.update_secret_properties("sdk", version, tags={"c": "d"}, content_type="text/html")
    equal((changed.tags, changed.content_type), ({"c": "d"}, "text/html"))
    client.update_secret_properties("sdk", version, enabled=False)
    try:
        client.get_secret("sdk")
    except HttpResponseError as error:
        equal(error.status_code, 403)
    else:
        raise AssertionError("a disabled secret was read")
    client.update_secret_properties("sdk", version, enabled=True)


def paging():
    names = {f"page-{number:02}" for number in range(PAGED)}
    for name in names:
        client.set_secret(name, name)
    listed = [properties.name for properties in client.list_properties_of_secrets()]
    equal(len(listed), len(set(listed)))
    equal(names <= set(listed), True)


def small_pages():
    pages = [[item.name for item in page] for page in client.list_properties_of_secrets(max_page_size=7).by_page()]
    names = [name for page in pages for name in page]
    equal(max(len(page) for page in pages) <= 7, True)
    equal(len(names), len(set(names)))
    equal(sum(name.startswith("page-") for name in names), PAGED)


def many_versions():
    for number in range(27):
        client.set_secret("page-00", str(number))
    found = [item.version for item in client.list_properties_of_secret_versions("page-00")]
    equal(len(found), len(set(found)))
    equal(len(found), 28)


def deletion():
    deleted = client.begin_delete_secret("sdk").result()
    equal(deleted.name, "sdk")
    equal(deleted.recovery_id is not None and deleted.scheduled_purge_date > deleted.deleted_date, True)
    found = client.get_deleted_secret("sdk")
    equal(found.properties.name, "sdk")
    equal("sdk" in [item.name for item in client.list_deleted_secrets()], True)
    try:
        client.get_secret("sdk")
    except ResourceNotFoundError:
        pass
    else:
        raise AssertionError("a deleted secret was read")
    try:
        client.set_secret("sdk", "x")
    except ResourceExistsError as error:
        equal(error.status_code, 409)
    else:
        raise AssertionError("a deleted secret was written over")


def recovery():
    client.begin_recover_deleted_secret("sdk").wait()
    equal(client.get_secret("sdk").value, "two")


def purge():
    client.begin_delete_secret("sdk").wait()
    client.purge_deleted_secret("sdk")
    try:
        client.get_deleted_secret("sdk")
    except ResourceNotFoundError:
        return
    raise AssertionError("a purged secret is still there")


def backup():
    client.set_secret("sdk-backup", "kept")
    blob = client.backup_secret("sdk-backup")
    client.begin_delete_secret("sdk-backup").wait()
    client.purge_deleted_secret("sdk-backup")
    equal(client.restore_secret_backup(blob).name, "sdk-backup")
    equal(client.get_secret("sdk-backup").value, "kept")


def large_values():
    text = "ä€😀" * 2500
    client.set_secret("sdk-large", text[:7000])
    equal(client.get_secret("sdk-large").value, text[:7000])
    try:
        client.set_secret("sdk-large", "x" * 26_000)
    except HttpResponseError as error:
        equal(error.status_code, 400)
    else:
        raise AssertionError("a value over 25 kB was taken")


def unknown():
    try:
        client.get_secret("never-made")
    except ResourceNotFoundError as error:
        equal((error.status_code, error.error.code), (404, "SecretNotFound"))
    else:
        raise AssertionError("a secret that was never made was read")


def bad_name():
    try:
        client.set_secret("under_score", "x")
    except HttpResponseError as error:
        equal(error.status_code, 400)
    else:
        raise AssertionError("a bad name was taken")


def wrong_secret():
    try:
        ClientSecretCredential(TENANT, CLIENT, "wrong").get_token("https://vault.azure.net/.default")
    except ClientAuthenticationError as error:
        equal("AADSTS7000215" in str(error), True)
    else:
        raise AssertionError("a wrong secret got a token")


attempt("set and get", set_and_get)
attempt("versions", versions)
attempt("update", update)
attempt("list over pages", paging)
attempt("list in small pages", small_pages)
attempt("many versions", many_versions)
attempt("delete", deletion)
attempt("recover", recovery)
attempt("purge", purge)
attempt("backup and restore", backup)
attempt("large values", large_values)
attempt("an unknown secret", unknown)
attempt("a bad name", bad_name)
attempt("a wrong client secret", wrong_secret)
end()
