"""`az keyvault secret`."""

import os

from checks_vaults import VAULT
from harness import check, contains, equal, eventually

NAME = "example-secret"


def secret(world, verb, *more, who="user"):
    return world.run_az("keyvault", "secret", verb, *more, who=who)


def at(name):
    return ["--vault-name", VAULT, "--name", name]


@check("az keyvault secret set")
def create(world):
    found = secret(world, "set", *at(NAME), "--value", "NinaIsTheMole").json()
    equal((found["value"], found["name"]), ("NinaIsTheMole", NAME))
    contains(found["id"], f"https://{VAULT}.vault.azure.net/secrets/{NAME}/")
    world.secret_id = found["id"]


@check("az keyvault secret show, by name and by id")
def show(world):
    value = ["--query", "value", "-o", "tsv"]
    equal(secret(world, "show", *at(NAME), *value).text(), "NinaIsTheMole")
    equal(secret(world, "show", "--id", world.secret_id, *value).text(), "NinaIsTheMole")


@check("az keyvault secret set from a file, with tags and dates")
def create_file(world):
    file = os.path.join(world.folder, "value.txt")
    with open(file, "w", encoding="utf-8") as out:
        out.write("from a file\n")
    found = secret(
        world, "set", *at("fs"), "--file", file, "--tags", "a=b", "--expires", "2099-01-01T00:00:00Z",
        "--not-before", "2020-01-01T00:00:00Z", "--description", "text/plain",
    ).json()
    equal(found["tags"]["a"], "b")
    contains(found["attributes"]["expires"], "2099-01-01")
    equal(found["contentType"], "text/plain")


@check("az keyvault secret list and list-versions")
def listing(world):
    secret(world, "set", *at(NAME), "--value", "second").ok()
    contains(secret(world, "list", "--vault-name", VAULT, "--query", "[].name").json(), NAME, "fs")
    found = secret(world, "list-versions", *at(NAME)).json()
    equal(len(found), 2)
    equal(any("value" in version and version["value"] for version in found), False)


@check("az keyvault secret set-attributes; a disabled version is refused")
def attributes(world):
    found = secret(world, "set-attributes", "--id", world.secret_id, "--enabled", "false").json()
    equal(found["attributes"]["enabled"], False)
    secret(world, "show", "--id", world.secret_id).fails("SecretDisabled")
    equal(secret(world, "show", *at(NAME), "--query", "value", "-o", "tsv").text(), "second")


@check("az keyvault secret backup and restore")
def backup(world):
    file = os.path.join(world.folder, "backup.bin")
    secret(world, "set", *at("bk"), "--value", "kept").ok()
    secret(world, "backup", *at("bk"), "-f", file).ok()
    secret(world, "restore", "--vault-name", VAULT, "-f", file).fails("Conflict")
    secret(world, "delete", *at("bk")).ok()
    secret(world, "purge", *at("bk")).ok()
    secret(world, "restore", "--vault-name", VAULT, "-f", file).ok()
    equal(secret(world, "show", *at("bk"), "--query", "value", "-o", "tsv").text(), "kept")


@check("az keyvault secret download")
def download(world):
    file = os.path.join(world.folder, "download.txt")
    secret(world, "download", *at("fs"), "-f", file).ok()
    with open(file, encoding="utf-8") as found:
        equal(found.read(), "from a file\n")


@check("az keyvault secret delete, list-deleted, show-deleted, recover, purge")
def deletion(world):
    secret(world, "delete", *at(NAME)).ok()
    secret(world, "show", *at(NAME)).fails("SecretNotFound", code=3)
    contains(secret(world, "list-deleted", "--vault-name", VAULT, "--query", "[].name").json(), NAME)
    equal(secret(world, "show-deleted", *at(NAME)).json()["name"], NAME)
    secret(world, "set", *at(NAME), "--value", "x").fails("ObjectIsDeletedButRecoverable")
    secret(world, "recover", *at(NAME)).ok()
    equal(eventually(lambda: secret(world, "show", *at(NAME), "--query", "value", "-o", "tsv").text()), "second")
    secret(world, "delete", *at("fs")).ok()
    secret(world, "purge", *at("fs")).ok()
    equal(secret(world, "list-deleted", "--vault-name", VAULT, "--query", "[].name").json(), [])


@check("az keyvault secret show of nothing: 404, exit status 3")
def show_nothing(world):
    secret(world, "show", *at("nope")).fails("SecretNotFound", code=3)


@check("Owner of the subscription holds no data role")
def owner(world):
    secret(world, "show", *at(NAME), who="sp").fails("ForbiddenByRbac")
    secret(world, "set", *at(NAME), "--value", "x", who="sp").fails("ForbiddenByRbac")


@check("a role on one secret opens neither another nor one whose name goes on")
def one_secret(world):
    secret(world, "set", *at("s"), "--value", "mine").ok()
    secret(world, "set", *at("s2"), "--value", "not mine").ok()
    world.run_az(
        "role", "assignment", "create", "--assignee", world.client, "--role", "Key Vault Secrets User",
        "--scope", f"{world.vault_id}/secrets/s",
    ).ok()
    equal(secret(world, "show", *at("s"), "--query", "value", "-o", "tsv", who="sp").text(), "mine")
    secret(world, "show", *at("s2"), who="sp").fails("ForbiddenByRbac")
    secret(world, "set", *at("s"), "--value", "x", who="sp").fails("ForbiddenByRbac")


@check("a role on one vault does not open another")
def one_vault(world):
    world.run_az("group", "create", "-n", "arc-hack-other", "-l", "uksouth").ok()
    world.run_az("keyvault", "create", "-n", "kv-lab11", "-g", "arc-hack-other", "-l", "uksouth").ok()
    world.run_az("keyvault", "secret", "set", "--vault-name", "kv-lab11", "-n", "a", "--value", "x").fails("ForbiddenByRbac")
