"""`az keyvault`, management plane."""

from harness import check, contains, equal

VAULT = "kv-lab1"


@check("az keyvault create")
def create(world):
    found = world.run_az(
        "keyvault", "create", "--name", VAULT, "--resource-group", "arc-hack", "--location=uksouth",
        "--enable-rbac-authorization", "--retention-days", "7",
    ).json()
    equal(found["id"], f"{world.group_id}/providers/Microsoft.KeyVault/vaults/{VAULT}")
    properties = found["properties"]
    equal(properties["vaultUri"], f"https://{VAULT}.vault.azure.net/")
    equal((properties["enableRbacAuthorization"], properties["softDeleteRetentionInDays"]), (True, 7))
    equal(properties["tenantId"], world.tenant)
    world.vault_id = found["id"]


@check("az keyvault create --no-wait")
def create_no_wait(world):
    world.run_az("keyvault", "create", "--name", "kv-lab2", "-g", "arc-hack", "--no-wait").ok()
    equal(world.run_az("keyvault", "show", "--name", "kv-lab2", "--query", "location", "-o", "tsv").text(), "uksouth")


@check("az keyvault create of one that exists is refused by az itself")
def create_again(world):
    world.run_az("keyvault", "create", "--name", VAULT, "-g", "arc-hack", "-l", "uksouth").fails("already exist")


@check("az keyvault show, with and without its group")
def show(world):
    for more in (["--resource-group", "arc-hack"], []):
        equal(world.run_az("keyvault", "show", "--name", VAULT, *more, "--query", "id", "-o", "tsv").text(), world.vault_id)


@check("az keyvault list, of all and of a group")
def listing(world):
    for more in ([], ["-g", "arc-hack"]):
        equal(sorted(world.run_az("keyvault", "list", *more, "--query", "[].name").json()), [VAULT, "kv-lab2"])


@check("az keyvault update")
def update(world):
    found = world.run_az("keyvault", "update", "--name", VAULT, "-g", "arc-hack", "--set", "tags.x=y").json()
    equal(found["tags"], {"x": "y"})
    equal(found["properties"]["enableRbacAuthorization"], True)


@check("az keyvault delete, list-deleted, show-deleted, recover")
def recover(world):
    world.run_az("keyvault", "delete", "--name", "kv-lab2").ok()
    for more in (["--resource-type", "vault"], []):
        contains(world.run_az("keyvault", "list-deleted", *more, "--query", "[].name").json(), "kv-lab2")
    found = world.run_az("keyvault", "show-deleted", "--name", "kv-lab2").json()
    contains(found["properties"]["vaultId"], "/vaults/kv-lab2")
    world.run_az("keyvault", "recover", "--name", "kv-lab2").ok()
    world.run_az("keyvault", "show", "--name", "kv-lab2").ok()


@check("az keyvault create of a deleted one's name says so")
def create_deleted(world):
    world.run_az("keyvault", "delete", "--name", "kv-lab2").ok()
    world.run_az("keyvault", "create", "--name", "kv-lab2", "-g", "arc-hack", "-l", "uksouth").fails("deleted")


@check("az keyvault purge")
def purge(world):
    world.run_az("keyvault", "purge", "--name", "kv-lab2").ok()
    found = world.run_az("keyvault", "list-deleted", "--resource-type", "vault", "--query", "[].name").json()
    equal("kv-lab2" in found, False)


@check("az keyvault update --enable-purge-protection; then no purge")
def purge_protection(world):
    world.run_az("keyvault", "create", "--name", "kv-lab3", "-g", "arc-hack", "-l", "uksouth", "--retention-days", "7").ok()
    found = world.run_az("keyvault", "update", "--name", "kv-lab3", "-g", "arc-hack", "--enable-purge-protection").json()
    equal(found["properties"]["enablePurgeProtection"], True)
    world.run_az("keyvault", "delete", "--name", "kv-lab3").ok()
    world.run_az("keyvault", "purge", "--name", "kv-lab3").fails("kv-lab3")
    contains(world.run_az("keyvault", "list-deleted", "--resource-type", "vault", "--query", "[].name").json(), "kv-lab3")


@check("az keyvault create with a bad name is refused")
def create_bad(world):
    world.run_az("keyvault", "create", "--name", "1-bad", "-g", "arc-hack", "-l", "uksouth").fails("Name", "1-bad")
