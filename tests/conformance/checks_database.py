"""`az postgres flexible-server`, and psql, psycopg and node-postgres on what it makes."""

import os

from checks_machine import MACHINE
from checks_sdks import node, python
from harness import check, contains, equal, eventually, outcomes

SERVER, OTHER = "pg-conformance", "pg-conformance-2"
PASSWORD, SECOND = "Awesome-Antelope!", "Other-Antelope!"
RESOURCE = "https://ossrdbms-aad.database.windows.net"
ROLE = "nina-the-app"


def flexible(world, *arguments):
    return world.run_az("postgres", "flexible-server", *arguments, timeout=300)


def psql(world, statement, user="arcadmin", password=SECOND, database="arc_hack", server=SERVER, more=""):
    host = f"{server}.postgres.database.azure.com"
    place = f"host={host} port=5432 user='{user}' dbname={database} connect_timeout=20 sslmode=verify-full {more}"
    return world.run(["psql", "-X", "-A", "-t", "-c", statement, place], env={"PGPASSWORD": password})


def directories(world):
    """Those of the servers that the site runs."""
    folder = os.path.join(world.data, "postgres")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name for name in names if not name.startswith("template-"))


@check("az postgres flexible-server create")
def create(world):
    # Other checks have left a server, which stays.
    world.other_servers = directories(world)
    for name in (SERVER, OTHER):
        found = flexible(
            world, "create", "-g", "arc-hack", "-n", name, "-l", "uksouth", "--admin-user", "arcadmin",
            "--admin-password", PASSWORD, "--tier", "Burstable", "--sku-name", "Standard_B1ms",
            "--storage-size", "32", "--public-access", "127.0.0.1", "--yes",
        ).json()
        equal(found["host"], f"{name}.postgres.database.azure.com")


@check("az postgres flexible-server create of a name that is taken")
def create_again(world):
    flexible(
        world, "create", "-g", "arc-hack", "-n", SERVER, "-l", "uksouth", "--admin-user", "arcadmin",
        "--admin-password", PASSWORD, "--tier", "Burstable", "--sku-name", "Standard_B1ms", "--public-access", "None",
        "--yes",
    ).fails("already")


@check("az postgres flexible-server show, list, list-skus, parameter list")
def show(world):
    found = flexible(world, "show", "-g", "arc-hack", "-n", SERVER).json()
    equal((found["state"], found["administratorLogin"]), ("Ready", "arcadmin"))
    equal(found.get("administratorLoginPassword"), None)
    contains(flexible(world, "list", "--query", "[].name").json(), SERVER, OTHER)
    contains(flexible(world, "list-skus", "-l", "uksouth", "-o", "json").text(), found["version"], "Standard_B1ms")
    settings = flexible(world, "parameter", "list", "-g", "arc-hack", "--server-name", SERVER).json()
    equal([setting["value"] for setting in settings if setting["name"] == "fsync"], ["on"])


@check("az postgres flexible-server db create, list, show")
def database(world):
    at = ["-g", "arc-hack", "--server-name", SERVER]
    found = flexible(world, "db", "create", *at, "--name", "arc_hack").json()
    equal((found["charset"], found["collation"]), ("utf8", "en_US.utf8"))
    contains(flexible(world, "db", "list", *at, "--query", "[].name").json(), "arc_hack")
    equal(flexible(world, "db", "show", *at, "--name", "arc_hack", "--query", "name", "-o", "tsv").text(), "arc_hack")


@check("az postgres flexible-server db list, show, delete: a database that was made in SQL")
def database_made_in_sql(world):
    at = ["-g", "arc-hack", "--server-name", SERVER]
    psql(world, "CREATE DATABASE by_sql", password=PASSWORD).ok()
    names = flexible(world, "db", "list", *at, "--query", "[].name").json()
    contains(names, "arc_hack", "by_sql")
    equal(flexible(world, "db", "show", *at, "--name", "by_sql", "--query", "charset", "-o", "tsv").text(), "UTF8")
    flexible(world, "db", "delete", *at, "--name", "by_sql", "--yes").ok()
    psql(world, "SELECT 1", password=PASSWORD, database="by_sql").fails('database "by_sql" does not exist')
    names.remove("by_sql")
    equal(flexible(world, "db", "list", *at, "--query", "[].name").json(), names)


@check("az postgres flexible-server firewall-rule create, list, delete")
def firewall(world):
    at = ["-g", "arc-hack", "--server-name", OTHER]
    address = ["--start-ip-address", "10.0.0.1", "--end-ip-address", "10.0.0.9"]
    equal(flexible(world, "firewall-rule", "create", *at, "--name", "office", *address).json()["name"], "office")
    rules = flexible(world, "firewall-rule", "list", *at, "--query", "[].name").json()
    contains(rules, "office")
    psql(world, "SELECT 1", password=PASSWORD, database="postgres", server=OTHER).ok()
    for rule in rules:
        if rule != "office":
            flexible(world, "firewall-rule", "delete", *at, "--name", rule, "--yes").ok()
    refused = psql(world, "SELECT 1", password=PASSWORD, database="postgres", server=OTHER)
    refused.fails('no pg_hba.conf entry for host "127.0.0.1", user "arcadmin", database "postgres"')


@check("az postgres flexible-server update: another password")
def update(world):
    flexible(world, "update", "-g", "arc-hack", "-n", SERVER, "--admin-password", SECOND).ok()
    psql(world, "SELECT 1", password=PASSWORD).fails("password authentication failed")
    equal(psql(world, "SELECT 1").text(), "1")


@check("az postgres flexible-server update: a maintenance window, whose hours az writes as texts")
def window(world):
    at = ("-g", "arc-hack", "-n", SERVER)
    flexible(world, "update", *at, "--maintenance-window", "Mon:1:30").ok()
    shown = flexible(world, "show", *at).json()["maintenanceWindow"]
    equal([shown[name] for name in ("customWindow", "dayOfWeek", "startHour", "startMinute")], ["Enabled", 1, 1, 30])


@check("psql: both forms of the user, TLS 1.2 and 1.3, with and without SNI")
def forms(world):
    for user, more in (
        ("arcadmin", ""),
        (f"arcadmin@{SERVER}", ""),
        (f"arcadmin@{SERVER}", "sslsni=0"),
        ("arcadmin", "ssl_max_protocol_version=TLSv1.2"),
        ("arcadmin", "ssl_min_protocol_version=TLSv1.3"),
    ):
        equal(psql(world, "SELECT current_user", user=user, more=more).text(), "arcadmin")
    psql(world, "SELECT 1", user=f"arcadmin@{OTHER}").fails("the user names server")
    psql(world, "SELECT 1", user=f"arcadmin@{SERVER}", more="sslmode=disable").fails("SSL connection is required")


@check("psql with the command of az postgres flexible-server show-connection-string")
def connection_string(world):
    found = flexible(
        world, "show-connection-string", "--server-name", SERVER, "--database-name", "arc_hack",
        "--admin-user", "arcadmin", "--admin-password", SECOND,
    ).json()["connectionStrings"]["psql_cmd"]
    address = found.removeprefix("psql ").strip('"')
    equal(world.run(["psql", "-X", "-A", "-t", "-c", "SELECT 7", address]).text(), "7")


@check("psql on the machine")
def on_machine(world):
    place = f"host={SERVER}.postgres.database.azure.com user=arcadmin@{SERVER} dbname=arc_hack sslmode=verify-full"
    found = world.on_machine(MACHINE, "env", f"PGPASSWORD={SECOND}", "psql", "-X", "-A", "-t", "-c", "SELECT 7", place)
    equal(found.text(), "7")


@check("az postgres flexible-server microsoft-entra-admin create")
def entra(world):
    flexible(world, "update", "-g", "arc-hack", "-n", SERVER, "--microsoft-entra-auth", "Enabled").ok()
    at = ["-g", "arc-hack", "--server-name", SERVER]
    principal = world.run_az("ad", "sp", "show", "--id", world.client, "--query", "id", "-o", "tsv").text()
    more = ["--display-name", ROLE, "--object-id", principal, "--type", "ServicePrincipal"]
    found = flexible(world, "microsoft-entra-admin", "create", *at, *more).json()
    equal((found["principalName"], found["objectId"]), (ROLE, principal))
    contains(flexible(world, "microsoft-entra-admin", "list", *at, "--query", "[].principalName").json(), ROLE)


def token(world, resource=RESOURCE):
    """A token of the first service principal."""
    form = f"grant_type=client_credentials&client_id={world.client}&client_secret={world.secret}&resource={resource}"
    address = f"https://login.microsoftonline.com/{world.tenant}/oauth2/token"
    return world.run(["sh", "-c", f"curl -sS -d @- {address} | jq -r .access_token"], stdin=form).text()


@check("psql with a directory token")
def by_token(world):
    equal(psql(world, "SELECT current_user", user=ROLE, password=token(world)).text(), ROLE)
    other = token(world, "https://vault.azure.net")
    psql(world, "SELECT 1", user=ROLE, password=other).fails("another audience")
    broken = token(world)[:-4] + "AAAA"
    psql(world, "SELECT 1", user=ROLE, password=broken).fails("password authentication failed")
    psql(world, "SELECT 1", user="arcadmin", password=token(world)).fails("password authentication failed")


def variables(world):
    return {"DB_NAME": SERVER, "DB_PASSWORD": SECOND, "DB_TOKEN": token(world), "DB_ROLE": ROLE}


@check("psycopg")
def psycopg(world):
    return outcomes(world.run(python(world, "database.py"), env=variables(world)), 9)


@check("node-postgres")
def node_postgres(world):
    return outcomes(world.run(node(world, "database.mjs"), env=variables(world)), 4)


@check("a database outlives a kill of its site")
def killed(world):
    psql(world, "CREATE TABLE kept AS SELECT 7 AS a").ok()
    world.kill_site()
    # What started in the first site's place finds the same environment, ports and addresses.
    world.program("up", "--detach").ok()
    eventually(lambda: psql(world, "SELECT a FROM kept").text() == "7")


@check("az postgres flexible-server delete")
def delete(world):
    for name in (SERVER, OTHER):
        flexible(world, "delete", "-g", "arc-hack", "-n", name, "--yes").ok()
    psql(world, "SELECT 1").fails(f'server "{SERVER}" does not exist')
    equal(directories(world), world.other_servers)
