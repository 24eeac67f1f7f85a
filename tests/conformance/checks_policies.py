"""A vault that is opened by access policies instead of roles."""

from harness import check, contains, equal

VAULT = "kv-policy"


def secret(world, verb, name, *more, who="user"):
    return world.run_az("keyvault", "secret", verb, "--vault-name", VAULT, "--name", name, *more, who=who)


@check("az keyvault create --enable-rbac-authorization false gives its maker the policies")
def create(world):
    found = world.run_az(
        "keyvault", "create", "--name", VAULT, "-g", "arc-hack", "-l", "uksouth", "--enable-rbac-authorization", "false"
    ).json()
    policies = found["properties"]["accessPolicies"]
    equal([policy["objectId"] for policy in policies], [world.user_id])
    secret(world, "set", "p", "--value", "policy").ok()
    equal(secret(world, "show", "p", "--query", "value", "-o", "tsv").text(), "policy")


@check("without a policy a vault with policies is closed, whatever the roles")
def closed(world):
    secret(world, "show", "p", who="sp").fails("Forbidden")
    world.run_az(
        "role", "assignment", "create", "--assignee", world.client, "--role", "Key Vault Administrator",
        "--scope", f"{world.group_id}/providers/Microsoft.KeyVault/vaults/{VAULT}",
    ).ok()
    secret(world, "show", "p", who="sp").fails("Forbidden")


@check("az keyvault set-policy and delete-policy")
def policy(world):
    give = ["keyvault", "set-policy", "--name", VAULT, "--spn", world.client, "--secret-permissions", "get"]
    world.run_az(*give).ok()
    equal(secret(world, "show", "p", "--query", "value", "-o", "tsv", who="sp").text(), "policy")
    secret(world, "set", "p", "--value", "x", who="sp").fails("Forbidden")
    world.run_az("keyvault", "delete-policy", "--name", VAULT, "--spn", world.client).ok()
    secret(world, "show", "p", who="sp").fails("Forbidden")


@check("az keyvault create by a service principal, with policies")
def create_principal(world):
    world.run_az(
        "keyvault", "create", "--name", "kv-policy2", "-g", "arc-hack", "-l", "uksouth",
        "--enable-rbac-authorization", "false", who="sp",
    ).ok()
    world.run_az("keyvault", "secret", "set", "--vault-name", "kv-policy2", "--name", "p", "--value", "x", who="sp").ok()


@check("az keyvault update to roles closes what policies opened")
def to_roles(world):
    world.run_az("keyvault", "update", "--name", VAULT, "-g", "arc-hack", "--enable-rbac-authorization", "true").ok()
    equal(world.run_az("keyvault", "show", "--name", VAULT, "--query", "properties.enableRbacAuthorization").json(), True)
    # Its Key Vault Administrator may now, and so may the holder of a role on the group.
    contains(secret(world, "show", "p", "--query", "value", "-o", "tsv", who="sp").text(), "policy")
