"""`az ad`."""

import os

from harness import check, claims, contains, equal


@check("az ad signed-in-user show, with id and objectId")
def me(world):
    found = world.run_az("ad", "signed-in-user", "show").json()
    equal(found["userPrincipalName"], world.user)
    equal(found["objectId"], found["id"])
    world.user_id = found["id"]


@check("az ad user create, show, list, delete")
def users(world):
    domain = world.user.partition("@")[2]
    name = f"bob@{domain}"
    made = world.run_az(
        "ad", "user", "create", "--display-name", "Bob", "--user-principal-name", name, "--password", "Xx12345!longer"
    ).json()
    equal(world.run_az("ad", "user", "show", "--id", name, "--query", "id", "-o", "tsv").text(), made["id"])
    equal(world.run_az("ad", "user", "show", "--id", made["id"], "--query", "userPrincipalName", "-o", "tsv").text(), name)
    contains(world.run_az("ad", "user", "list", "--query", "[].userPrincipalName").json(), name, world.user)
    world.bob = {"name": name, "id": made["id"], "password": "Xx12345!longer"}


@check("a user without a role logs in and sees no subscription")
def bob_logs_in(world):
    arguments = ["login", "-u", world.bob["name"], "-p", world.bob["password"]]
    world.run_az(*arguments, who="bob-refused").fails("No subscriptions found")
    world.run_az(*arguments, "--allow-no-subscriptions", who="bob").ok()
    own = world.run_az("account", "get-access-token", "--query", "accessToken", "-o", "tsv", who="bob").text()
    groups = f"https://management.azure.com/subscriptions/{world.subscription}/resourcegroups?api-version=2024-11-01"
    found = world.run(["curl", "-sS", "-H", f"Authorization: Bearer {own}", groups]).json()
    equal(found, {"value": []})
    found = world.run(["curl", "-sS", "-H", f"Authorization: Bearer {own}", groups.replace("?", "/arc-hack?")]).json()
    equal(found["error"]["code"], "AuthorizationFailed")


@check("az ad user delete ends the login")
def user_delete(world):
    name = "carl@" + world.user.partition("@")[2]
    world.run_az(
        "ad", "user", "create", "--display-name", "Carl", "--user-principal-name", name, "--password", "Xx12345!longer"
    ).ok()
    world.run_az("ad", "user", "delete", "--id", name).ok()
    world.run_az("login", "-u", name, "-p", "Xx12345!longer", "--allow-no-subscriptions", who="carl").fails("AADSTS")


@check("az ad app create, again, show, delete")
def apps(world):
    made = world.run_az("ad", "app", "create", "--display-name", "app1").json()
    again = world.run_az("ad", "app", "create", "--display-name", "app1").json()
    equal(again["appId"], made["appId"])
    for key in ("appId", "id"):
        equal(world.run_az("ad", "app", "show", "--id", made[key]).json()["displayName"], "app1")
    world.app = made["appId"]
    other = world.run_az("ad", "app", "create", "--display-name", "app2").json()
    world.run_az("ad", "app", "delete", "--id", other["appId"]).ok()
    world.run_az("ad", "app", "show", "--id", other["appId"]).fails(code=3)


@check("az ad sp create, show, list; az ad app credential reset; login with it")
def principals(world):
    made = world.run_az("ad", "sp", "create", "--id", world.app).json()
    equal(world.run_az("ad", "sp", "show", "--id", world.app).json()["id"], made["id"])
    contains(world.run_az("ad", "sp", "list", "--display-name", "app1", "--query", "[].appId").json(), world.app)
    reset = world.run_az("ad", "app", "credential", "reset", "--id", world.app).json()
    equal(reset["appId"], world.app)
    login = ["login", "--service-principal", "-u", world.app, "--tenant", world.tenant, "--allow-no-subscriptions"]
    world.run_az(*login, "-p", reset["password"], who="app1").ok()
    newer = world.run_az("ad", "app", "credential", "reset", "--id", world.app).json()
    world.run_az(*login, "-p", reset["password"], who="app1-old").fails("AADSTS7000215")
    world.run_az(*login, "-p", newer["password"], who="app1-new").ok()


@check("az ad app permission add lets an application act for who signs in to it")
def app_permission(world):
    made = world.run_az("ad", "app", "create", "--display-name", "desktop", "--is-fallback-public-client").json()
    world.run_az("ad", "sp", "create", "--id", made["appId"]).ok()
    fields = [
        "grant_type=password", f"client_id={made['appId']}", f"username={world.user}", f"password={world.password}",
        "scope=https://vault.azure.net/.default",
    ]
    values = [word for field in fields for word in ("--data-urlencode", field)]
    address = f"https://login.microsoftonline.com/{world.tenant}/oauth2/v2.0/token"
    refused = world.run(["curl", "-sS", *values, address]).json()
    equal(refused["error_codes"], [65001])
    # The refusal says what an administrator runs.
    command = refused["error_description"].partition(": az ")[2].splitlines()[0].split()
    equal(command[:4], ["ad", "app", "permission", "add"])
    world.run_az(*command).ok()
    given = world.run(["curl", "-sS", *values, address]).json()
    equal(claims(given["access_token"])["scp"], "user_impersonation")


@check("az ad group create, member add, member check")
def groups(world):
    made = world.run_az("ad", "group", "create", "--display-name", "g1", "--mail-nickname", "g1").json()
    world.directory_group = made["id"]
    world.run_az("ad", "group", "member", "add", "--group", "g1", "--member-id", world.bob["id"]).ok()
    found = world.run_az("ad", "group", "member", "check", "--group", "g1", "--member-id", world.bob["id"]).json()
    equal(found["value"], True)


@check("az ad group list, show, member list, member remove, delete")
def groups_more(world):
    world.run_az("ad", "group", "create", "--display-name", "g2", "--mail-nickname", "g2").ok()
    contains(world.run_az("ad", "group", "list", "--query", "[].displayName").json(), "g1", "g2")
    equal(world.run_az("ad", "group", "show", "--group", "g2").json()["mailNickname"], "g2")
    world.run_az("ad", "group", "member", "add", "--group", "g2", "--member-id", world.user_id).ok()
    equal(world.run_az("ad", "group", "member", "list", "--group", "g2", "--query", "[].id").json(), [world.user_id])
    world.run_az("ad", "group", "member", "remove", "--group", "g2", "--member-id", world.user_id).ok()
    equal(world.run_az("ad", "group", "member", "list", "--group", "g2", "--query", "[].id").json(), [])
    world.run_az("ad", "group", "delete", "--group", "g2").ok()
    equal("g2" in world.run_az("ad", "group", "list", "--query", "[].displayName").json(), False)


@check("az ad sp credential reset and sp delete end old logins")
def principal_ends(world):
    made = world.run_az("ad", "sp", "create-for-rbac", "-n", "rbac9").json()
    login = ["login", "--service-principal", "-u", made["appId"], "--tenant", world.tenant, "--allow-no-subscriptions"]
    world.run_az(*login, "-p", made["password"], who="rbac9").ok()
    # The principal's own credentials stand beside the application's.
    reset = ["ad", "sp", "credential", "reset", "--id", made["appId"]]
    first, second = (world.run_az(*reset).json()["password"] for _ in range(2))
    world.run_az(*login, "-p", first, who="rbac9-first").fails("AADSTS7000215")
    world.run_az(*login, "-p", second, who="rbac9-second").ok()
    world.run_az("ad", "sp", "delete", "--id", made["appId"]).ok()
    world.run_az(*login, "-p", made["password"], who="rbac9-gone").fails("AADSTS")
    world.run_az(*login, "-p", second, who="rbac9-gone2").fails("AADSTS")


@check("az ad sp create-for-rbac with a role")
def for_rbac(world):
    made = world.run_az(
        "ad", "sp", "create-for-rbac", "-n", "rbac1", "--role", "Reader", "--scopes", world.group_id
    ).json()
    equal(made["tenant"], world.tenant)
    login = ["login", "--service-principal", "-u", made["appId"], "-p", made["password"], "--tenant", world.tenant]
    world.run_az(*login, who="rbac1").ok()
    equal(world.run_az("group", "list", "--query", "[].name", who="rbac1").json(), ["arc-hack"])
    world.run_az("group", "update", "-n", "arc-hack", "--set", "tags.no=no", who="rbac1").fails("AuthorizationFailed")


@check("az ad sp create-for-rbac without a role")
def for_rbac_bare(world):
    made = world.run_az("ad", "sp", "create-for-rbac", "-n", "rbac2").json()
    login = ["login", "--service-principal", "-u", made["appId"], "-p", made["password"], "--tenant", world.tenant]
    world.run_az(*login, who="rbac2").fails("No subscriptions found")


@check("az ad sp create-for-rbac --create-cert; login with the certificate")
def for_rbac_certificate(world):
    # az writes the file into the home folder.
    made = world.run(
        [world.az, "ad", "sp", "create-for-rbac", "-n", "rbac3", "--create-cert"],
        env={**world.login_folder("user"), "HOME": world.folder},
    ).json()
    file = made["fileWithCertAndPrivateKey"]
    equal(os.path.exists(file), True)
    world.run_az(
        "login", "--service-principal", "-u", made["appId"], "--certificate", file, "--tenant", world.tenant,
        "--allow-no-subscriptions", who="rbac3",
    ).ok()
    # Another application's certificate proves nothing.
    world.run_az(
        "login", "--service-principal", "-u", world.app, "--certificate", file, "--tenant", world.tenant,
        "--allow-no-subscriptions", who="rbac3-other",
    ).fails("AADSTS")
