"""`az extension add` from the site's index, and the commands of 2021 that the extensions bring back."""

import json
import os
import shlex
import uuid

from checks_machine import MACHINE
from harness import check, contains, equal

NAMES = ["arcadia", "connectedmachine", "db-up"]
# Logins of their own: an extension changes az for everything that uses its folder.
WHO, STRANGER = "extensions", "extensions-stranger"


def run(world, *arguments, **options):
    return world.run_az(*arguments, who=WHO, **options)


@check("az extension list-available shows what the site serves, before anybody has signed in")
def available(world):
    found = run(world, "extension", "list-available").json()
    equal([(one["name"], one["installed"]) for one in found], [(name, False) for name in NAMES])


@check("the commands of 2021 are not in today's az")
def before(world):
    run(world, "login", "-u", world.user, "-p", world.password).ok()
    run(world, "connectedmachine", "list").fails("connectedmachine")
    run(world, "postgres", "up").fails("up")
    run(world, "role", "assignment", "create", "--assignee", world.user_id, "--role", "Reader", "-g", "arc-hack").fails("--scope")


@check("az extension add --name arcadia, connectedmachine and db-up; list; a second time does no harm")
def add(world):
    for name in NAMES * 2:
        run(world, "extension", "add", "--name", name).ok()
    found = run(world, "extension", "list").json()
    equal([(one["name"], one["extensionType"]) for one in found], [(name, "whl") for name in NAMES])
    run(world, "extension", "add", "--name", "no-such-extension").fails("No extension found")


@check("az extension add of a wheel that is not what the index says is refused")
def add_changed(world):
    index = world.run(["curl", "-sSf", world.env["AZURE_EXTENSION_INDEX_URL"]]).json()
    entry = index["extensions"]["db-up"][0]
    file = os.path.join(world.folder, entry["filename"])
    world.run(["curl", "-sSf", "-o", file, entry["downloadUrl"]]).ok()
    equal(world.run(["sha256sum", file]).text().split()[0], entry["sha256Digest"])
    world.run(["python3", "-m", "zipfile", "-t", file]).ok()
    wrong = entry["downloadUrl"].replace("db_up", "none")
    equal(world.run(["curl", "-s", "-o", file, "-w", "%{http_code}", wrong]).out, "404")
    world.run_az("extension", "add", "--yes", "--source", wrong, who="extensions-changed").fails("404")


@check("az role assignment create --resource-group")
def role(world):
    base = ["role", "assignment", "create", "--assignee", world.user_id, "--role"]
    found = run(world, *base, "Tag Contributor", "--resource-group", "arc-hack").json()
    equal((found["scope"], found["principalId"]), (world.group_id, world.user_id))
    again = run(world, *base, "Tag Contributor", "--scope", world.group_id).json()
    equal(again["name"], found["name"])
    found = run(world, *base, "Tag Contributor").json()
    equal(found["scope"], f"/subscriptions/{world.subscription}")
    run(world, *base, "Reader", "-g", "arc-hack", "--scope", world.group_id).fails("leave --resource-group out")
    run(world, *base, "No Such Role", "-g", "arc-hack").fails("No Such Role")
    for one in (found["id"], again["id"]):
        run(world, "role", "assignment", "delete", "--ids", one).ok()


@check("az role assignment create --resource-group, by somebody without the right to, is refused")
def role_refused(world):
    made = world.run_az("ad", "sp", "create-for-rbac", "-n", "extensions-stranger", "--role", "Reader",
                        "--scopes", world.group_id).json()
    world.run_az("login", "--service-principal", "-u", made["appId"], "-p", made["password"], "--tenant", made["tenant"],
                 who=STRANGER).ok()
    world.run_az("extension", "add", "--name", "arcadia", who=STRANGER).ok()
    world.run_az(
        "role", "assignment", "create", "--assignee-object-id", world.user_id, "--assignee-principal-type", "User",
        "--role", "Owner", "--resource-group", "arc-hack", who=STRANGER,
    ).fails("AuthorizationFailed")


@check("az connectedmachine show, as the text asks it")
def machine_show(world):
    shown = run(
        world, "connectedmachine", "show", "--name", MACHINE, "--resource-group", "arc-hack",
        "--query", "identity.principalId", "--output", "tsv",
    ).text()
    equal(shown, world.machine_object)
    found = run(world, "connectedmachine", "show", "-n", MACHINE, "-g", "arc-hack").json()
    equal((found["name"], found["resourceGroup"], found["status"]), (MACHINE, "arc-hack", "Connected"))
    run(world, "connectedmachine", "show", "-n", "no-machine", "-g", "arc-hack").fails("no-machine", code=3)


@check("az connectedmachine list and delete")
def machine_delete(world):
    path = f"{world.group_id}/providers/Microsoft.HybridCompute/machines/to-delete?api-version=2024-07-10"
    key = run(world, "connectedmachine", "show", "-n", MACHINE, "-g", "arc-hack", "--query", "clientPublicKey").json()
    properties = {"vmId": str(uuid.uuid4()), "clientPublicKey": key}
    body = {"location": "uksouth", "identity": {"type": "SystemAssigned"}, "properties": properties}
    run(world, "rest", "--method", "put", "--url", path, "--body", json.dumps(body)).ok()
    contains(run(world, "connectedmachine", "list", "--query", "[].name").json(), MACHINE, "to-delete")
    run(world, "connectedmachine", "delete", "-n", "to-delete", "-g", "arc-hack").fails("cancelled")
    run(world, "connectedmachine", "delete", "-n", "to-delete", "-g", "arc-hack", "--yes").ok()
    found = run(world, "connectedmachine", "list", "-g", "arc-hack", "--query", "[].name").json()
    equal(("to-delete" in found, MACHINE in found), (False, True))


@check("az postgres show-connection-string asks nobody")
def connection_string(world):
    nobody = {**world.login_folder(WHO), "HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    found = world.run(
        [world.az, "postgres", "show-connection-string", "--server-name", "postgres-1", "--database-name", "arc_hack",
         "--admin-user", "arcadmin", "--admin-password", "Awesome-Antelope!", "--query", "connectionStrings.psql_cmd",
         "--output", "tsv"],
        env=nobody,
    ).text()
    contains(found, "psql --host=postgres-1.postgres.database.azure.com --port=5432 --username=arcadmin@postgres-1")
    contains(found, "--dbname=arc_hack", "PGPASSWORD=Awesome-Antelope! ")


# Every sign that a shell might take for its own.
AWKWARD = "two words * $HOME it's \"q\" 9Z! ~ \\"


def up(world, *more, who=WHO):
    return world.run_az("postgres", "up", "--server-name", "postgres-ext", *more, who=who)


def psql(world, command, question):
    """Runs `$psql_cmd`, unquoted, with a question."""
    script = f"$psql_cmd --no-align --tuples-only --command {shlex.quote(question)}"
    return world.run(["bash", "-c", script], env={"psql_cmd": command})


@check("az postgres up, as the text writes it; $psql_cmd connects")
def postgres_up(world):
    # The site was restarted since this shell's variables were read, beside other sites perhaps.
    world.env["PGHOSTADDR"] = world.program("env", "--format", "json").json()["PGHOSTADDR"]
    made = up(world, "--database-name", "arc_hack", "--admin-user", "arcadmin", "--admin-password", "Awesome-Antelope!",
              "--location", "uksouth", "--resource-group", "arc-hack").json()
    equal(made["host"], "postgres-ext.postgres.database.azure.com")
    equal((made["username"], made["password"]), ("arcadmin@postgres-ext", "Awesome-Antelope!"))
    world.psql_cmd = made["connectionStrings"]["psql_cmd"]
    equal(psql(world, world.psql_cmd, "select current_database()").text(), "arc_hack")
    equal(world.run(["psql", made["connectionStrings"]["python"], "-Atc", "select 1"]).text(), "1")
    equal(world.run(["psql", made["connectionStrings"]["node.js"], "-Atc", "select 2"]).text(), "2")
    rules = f"{world.group_id}/providers/Microsoft.DBforPostgreSQL/servers/postgres-ext/firewallRules?api-version=2017-12-01"
    found = run(world, "rest", "--url", rules, "--query", "value[].name").json()
    equal(sorted(found), ["azure-access", "devbox"])


@check("az postgres up again finds the server without its group, adds a database and changes the password")
def postgres_again(world):
    made = up(world, "--database-name", "second", "--admin-password", AWKWARD).json()
    equal(psql(world, made["connectionStrings"]["psql_cmd"], "select current_database()").text(), "second")
    psql(world, world.psql_cmd, "select 1").fails("password authentication failed")
    kept = up(world, "--database-name", "second").json()
    equal((kept["username"], kept["password"]), ("arcadmin@postgres-ext", "{password}"))
    equal(psql(world, made["connectionStrings"]["psql_cmd"], "select 1").text(), "1")
    made = up(world, "--database-name", "second", "--generate-password").json()
    equal(psql(world, made["connectionStrings"]["psql_cmd"], "select 2").text(), "2")


@check("az postgres up: another administrator, a simple password, somebody without the right to: refused")
def postgres_refused(world):
    up(world, "--admin-user", "other").fails("'arcadmin'", "another server name")
    up(world, "--admin-password", "simple").fails("assword")
    world.run_az("extension", "add", "--name", "db-up", who=STRANGER).ok()
    up(world, "--admin-password", "Awesome-Antelope!", who=STRANGER).fails("AuthorizationFailed")


@check("az extension remove")
def remove(world):
    run(world, "extension", "remove", "--name", "arcadia").ok()
    run(world, "role", "assignment", "create", "--assignee", world.user_id, "--role", "Reader", "-g", "arc-hack").fails("--scope")
    equal(run(world, "extension", "list", "--query", "[].name").json(), NAMES[1:])
