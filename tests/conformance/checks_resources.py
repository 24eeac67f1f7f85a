"""`az resource`, `az rest`, `az provider`."""

from checks_vaults import VAULT
from harness import check, contains, equal

TYPE = "Microsoft.KeyVault/vaults"


@check("az resource list, of a group and of a type")
def listing(world):
    contains(world.run_az("resource", "list", "-g", "arc-hack", "--query", "[].type").json(), TYPE)
    contains(world.run_az("resource", "list", "--resource-type", TYPE, "--query", "[].name").json(), VAULT)


@check("az resource show, by name and by id")
def show(world):
    names = ["-g", "arc-hack", "-n", VAULT, "--resource-type", TYPE]
    for more in (names, ["--ids", world.vault_id]):
        equal(world.run_az("resource", "show", *more, "--query", "id", "-o", "tsv").text(), world.vault_id)


@check("az resource tag")
def tag(world):
    world.run_az("resource", "tag", "--ids", world.vault_id, "--tags", "via=resource").ok()
    equal(world.run_az("resource", "show", "--ids", world.vault_id, "--query", "tags").json(), {"via": "resource"})


@check("az rest to ARM, Graph and a vault")
def rest(world):
    found = world.run_az("rest", "--method", "get", "--url", f"{world.group_id}/resources?api-version=2020-06-01").json()
    contains([resource["name"] for resource in found["value"]], VAULT)
    equal(world.run_az("rest", "-m", "get", "-u", "https://graph.microsoft.com/v1.0/me").json()["id"], world.user_id)
    address = f"https://{VAULT}.vault.azure.net/secrets/s?api-version=7.4"
    equal(world.run_az("rest", "-m", "get", "-u", address, "--resource", "https://vault.azure.net").json()["value"], "mine")


@check("az rest with a token for another audience is refused by the vault")
def rest_audience(world):
    address = f"https://{VAULT}.vault.azure.net/secrets/s?api-version=7.4"
    world.run_az("rest", "-m", "get", "-u", address, "--resource", "https://management.azure.com").fails("AKV10022")


@check("az provider show and register")
def providers(world):
    show = ["provider", "show", "-n", "Microsoft.KeyVault", "--query", "registrationState", "-o", "tsv"]
    equal(world.run_az(*show).text(), "Registered")
    world.run_az("provider", "register", "-n", "Microsoft.HybridCompute").ok()
