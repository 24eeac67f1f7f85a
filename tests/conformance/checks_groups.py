"""`az group`."""

from harness import check, contains, equal


@check("az group create")
def create(world):
    found = world.run_az("group", "create", "-n", "arc-hack", "-l", "uksouth", "--tags", "a=b").json()
    equal((found["name"], found["location"], found["tags"]), ("arc-hack", "uksouth", {"a": "b"}))
    equal(found["properties"]["provisioningState"], "Succeeded")


@check("az group show, in any case of letters")
def show(world):
    for name in ("arc-hack", "ARC-HACK"):
        equal(world.run_az("group", "show", "-n", name, "--query", "id", "-o", "tsv").text(), world.group_id)


@check("az group exists")
def exists(world):
    equal(world.run_az("group", "exists", "-n", "arc-hack").text(), "true")
    equal(world.run_az("group", "exists", "-n", "arc-hac").text(), "false")


@check("az group list")
def listing(world):
    contains(world.run_az("group", "list", "--query", "[].name").json(), "arc-hack")
    contains(world.run_az("group", "list", "-o", "table").text(), "arc-hack")


@check("az group show of nothing: 404, exit status 3")
def show_nothing(world):
    world.run_az("group", "show", "-n", "nope").fails("ResourceGroupNotFound", code=3)


@check("az group update")
def update(world):
    found = world.run_az("group", "update", "-n", "arc-hack", "--set", "tags.c=d").json()
    equal(found["tags"], {"a": "b", "c": "d"})


@check("az group delete takes what is in it")
def delete(world):
    world.run_az("group", "create", "-n", "arc-hack2", "-l", "uksouth").ok()
    world.run_az("keyvault", "create", "-n", "kv-goes", "-g", "arc-hack2", "-l", "uksouth").ok()
    world.run_az("group", "delete", "-n", "arc-hack2", "-y").ok()
    equal(world.run_az("group", "exists", "-n", "arc-hack2").text(), "false")
    world.run_az("keyvault", "show", "-n", "kv-goes", "-g", "arc-hack2").fails(code=3)
    contains(world.run_az("keyvault", "list-deleted", "--resource-type", "vault", "--query", "[].name").json(), "kv-goes")
    # The neighbour whose name is the beginning of this one's is as it was.
    equal(world.run_az("group", "exists", "-n", "arc-hack").text(), "true")
