"""`az role`."""

import json
import os

from harness import check, contains, equal

OFFICER = "Key Vault Secrets Officer"


def assign(world, assignee, role, scope, *more):
    return world.run_az(
        "role", "assignment", "create", "--assignee", assignee, "--role", role, "--scope", scope, *more
    )


@check("az role assignment create, by object id, user name and application id")
def create(world):
    found = assign(world, world.user_id, OFFICER, world.group_id).json()
    equal((found["principalId"], found["scope"]), (world.user_id, world.group_id))
    equal(assign(world, world.user, "Contributor", world.group_id).json()["principalId"], world.user_id)
    found = assign(world, world.app, "Reader", world.group_id).json()
    equal(found["principalType"], "ServicePrincipal")
    world.app_object = found["principalId"]


@check("az role assignment create again is the same assignment")
def create_again(world):
    first = assign(world, world.app, "Reader", world.group_id).json()
    equal(assign(world, world.app, "Reader", world.group_id).json()["name"], first["name"])


@check("az role assignment create --assignee-object-id, with and without its type")
def create_object(world):
    base = ["role", "assignment", "create", "--role", "Key Vault Secrets User", "--scope", world.vault_id]
    found = world.run_az(*base, "--assignee-object-id", world.app_object).json()
    equal(found["scope"], world.vault_id)
    world.run_az(*base, "--assignee-object-id", world.app_object, "--assignee-principal-type", "ServicePrincipal").ok()


@check("az role assignment create to a group; a member has it")
def create_group(world):
    assign(world, world.directory_group, "Reader", world.group_id).ok()
    world.run_az("login", "-u", world.bob["name"], "-p", world.bob["password"], who="bob-member").ok()
    equal(world.run_az("group", "list", "--query", "[].name", who="bob-member").json(), ["arc-hack"])


@check("az role assignment create: no such role, no such assignee, no right to")
def create_refused(world):
    assign(world, world.user_id, "Nope", world.group_id).fails("Nope")
    assign(world, "nobody@x.test", "Reader", world.group_id).fails("Cannot find user or service principal")
    world.run_az(
        "role", "assignment", "create", "--assignee-object-id", world.user_id, "--assignee-principal-type", "User",
        "--role", "Owner", "--scope", world.group_id, who="bob-member",
    ).fails("AuthorizationFailed")


@check("az role assignment list, in every form")
def listing(world):
    query = ["--query", "[].roleDefinitionName", "-o", "tsv"]
    contains(world.run_az("role", "assignment", "list", "-g", "arc-hack", *query).lines(), OFFICER, "Reader")
    contains(world.run_az("role", "assignment", "list", "--all", *query).lines(), "Owner", OFFICER, "Key Vault Secrets User")
    found = world.run_az("role", "assignment", "list", "--all", "--assignee", world.app, *query).lines()
    equal(sorted(found), ["Key Vault Secrets User", "Reader"])
    scopes = world.run_az(
        "role", "assignment", "list", "--scope", world.vault_id, "--include-inherited", "--query", "[].scope", "-o", "tsv"
    ).lines()
    contains(scopes, world.vault_id, world.group_id, f"/subscriptions/{world.subscription}")
    names = world.run_az("role", "assignment", "list", "--all", "--query", "[].principalName", "-o", "tsv").lines()
    contains(names, world.user, world.app)


@check("az role assignment list --include-groups")
def listing_groups(world):
    found = world.run_az(
        "role", "assignment", "list", "--assignee", world.bob["id"], "--include-groups", "--scope", world.group_id,
        "--query", "[].roleDefinitionName",
    ).json()
    equal(found, ["Reader"])


@check("az role assignment delete; it is gone at once")
def delete(world):
    world.run_az(
        "role", "assignment", "delete", "--assignee", world.directory_group, "--role", "Reader", "--scope", world.group_id
    ).ok()
    world.run_az("group", "show", "-n", "arc-hack", who="bob-member").fails("AuthorizationFailed")


@check("az role definition list")
def definitions(world):
    names = world.run_az("role", "definition", "list", "--query", "[].roleName", "-o", "tsv").lines()
    contains(names, "Owner", "Contributor", "Reader", OFFICER, "Azure Connected Machine Onboarding")
    found = world.run_az("role", "definition", "list", "--name", "Key Vault Secrets User").json()
    equal([role["roleName"] for role in found], ["Key Vault Secrets User"])
    contains(found[0]["permissions"][0]["dataActions"], "Microsoft.KeyVault/vaults/secrets/getSecret/action")


@check("az role definition create, use, delete")
def definition_create(world):
    file = os.path.join(world.folder, "role.json")
    role = {
        "Name": "Lab Role", "Description": "Reads groups", "Actions": ["Microsoft.Resources/subscriptions/resourceGroups/read"],
        "AssignableScopes": [f"/subscriptions/{world.subscription}"],
    }
    with open(file, "w", encoding="utf-8") as out:
        json.dump(role, out)
    equal(world.run_az("role", "definition", "create", "--role-definition", file).json()["roleName"], "Lab Role")
    assign(world, world.bob["id"], "Lab Role", world.group_id).ok()
    world.run_az("group", "show", "-n", "arc-hack", "--subscription", world.subscription, who="bob-member").ok()
    world.run_az("keyvault", "show", "-n", "kv-lab1", "-g", "arc-hack", who="bob-member").fails("AuthorizationFailed")
    world.run_az(
        "role", "assignment", "delete", "--assignee", world.bob["id"], "--role", "Lab Role", "--scope", world.group_id
    ).ok()
    world.run_az("role", "definition", "delete", "--name", "Lab Role").ok()
    equal(world.run_az("role", "definition", "list", "--name", "Lab Role").json(), [])


@check("az rest elevateAccess: a Global Administrator without a role assigns roles again, and gives it up")
def elevate_access(world):
    path, root = "/providers/Microsoft.Authorization/elevateAccess", ["--scope", "/"]
    subscription, bob = f"/subscriptions/{world.subscription}", {"who": "bob-member"}

    def elevate(**who):
        return world.run_az("rest", "--method", "post", "--url", f"{path}?api-version=2016-07-01", **who)

    def assign_as_bob():
        return world.run_az(
            "role", "assignment", "create", "--assignee-object-id", world.app_object, "--assignee-principal-type",
            "ServicePrincipal", "--role", "Monitoring Reader", "--scope", subscription, **bob,
        )

    elevate(**bob).fails("AuthorizationFailed", "Microsoft.Authorization/elevateAccess/action' over scope '/'")
    roles = "https://graph.microsoft.com/v1.0/roleManagement/directory/roleAssignments"
    role = {"roleDefinitionId": "62e90394-69f5-4237-9190-012177145e10", "directoryScopeId": "/"}
    role["principalId"] = world.bob["id"]
    made = world.run_az("rest", "--method", "post", "--url", roles, "--body", json.dumps(role)).json()
    assign_as_bob().fails("AuthorizationFailed")
    equal([elevate(**bob).ok().text() for _ in range(2)], ["", ""])
    equal(assign_as_bob().json()["scope"], subscription)
    query = ["--query", "[].[principalId, roleDefinitionName, scope]"]
    mine = [world.bob["id"], "User Access Administrator", "/"]
    equal(world.run_az("role", "assignment", "list", *root, *query, **bob).json(), [mine])
    # An application is none, whatever its role.
    elevate(who="sp").fails("AuthorizationFailed")

    given_up = ["--assignee", world.bob["id"], "--role", "User Access Administrator", *root]
    world.run_az("role", "assignment", "delete", *given_up, **bob).ok()
    assign_as_bob().fails("AuthorizationFailed")
    # Who is disabled has the role still, and a token.
    world.run_az("ad", "user", "update", "--id", world.bob["id"], "--account-enabled", "false").ok()
    elevate(**bob).fails("AuthorizationFailed")
    world.run_az("ad", "user", "update", "--id", world.bob["id"], "--account-enabled", "true").ok()
    world.run_az("rest", "--method", "delete", "--url", f"{roles}/{made['id']}").ok()
    elevate(**bob).fails("AuthorizationFailed")
    world.run_az(
        "role", "assignment", "delete", "--assignee", world.app, "--role", "Monitoring Reader", "--scope", subscription
    ).ok()
