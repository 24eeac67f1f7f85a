"""`az login` in every way, and `az account`."""

import html.parser
import os
import re
import subprocess
import urllib.parse

from harness import check, claims, clip, contains, equal

ARM = "https://management.core.windows.net/"


@check("az login --service-principal")
def login_principal(world):
    found = world.run_az(
        "login", "--service-principal", "-u", world.client, "-p", world.secret, "--tenant", world.tenant, who="sp"
    ).json()
    equal([account["id"] for account in found], [world.subscription])
    equal(found[0]["user"], {"name": world.client, "type": "servicePrincipal"})


@check("az login --service-principal with a wrong secret is refused")
def login_principal_wrong(world):
    world.run_az(
        "login", "--service-principal", "-u", world.client, "-p", "wrong", "--tenant", world.tenant, who="nobody"
    ).fails("AADSTS7000215")


@check("az login --service-principal of nobody is refused")
def login_principal_nobody(world):
    nobody = "11111111-2222-3333-4444-555555555555"
    world.run_az(
        "login", "--service-principal", "-u", nobody, "-p", "x", "--tenant", world.tenant, who="nobody2"
    ).fails("AADSTS700016")


@check("az login with user name and password")
def login_password(world):
    found = world.run_az("login", "-u", world.user, "-p", world.password).json()
    equal([account["id"] for account in found], [world.subscription])
    equal(found[0]["tenantId"], world.tenant)
    equal(found[0]["user"], {"name": world.user, "type": "user"})


@check("az login with a wrong password is refused")
def login_password_wrong(world):
    world.run_az("login", "-u", world.user, "-p", "wrong", who="nobody3").fails("AADSTS50126")


@check("az login --tenant of nobody is refused")
def login_tenant_nobody(world):
    nobody = "99999999-8888-7777-6666-555555555555"
    world.run_az("login", "-u", world.user, "-p", world.password, "--tenant", nobody, who="nobody4").fails(nobody)


class Form(html.parser.HTMLParser):
    """The first form of a page: where it goes and what it asks for."""

    def __init__(self, page):
        super().__init__()
        self.action, self.fields, self.inside = None, {}, False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "form" and self.action is None:
            self.action, self.inside = attributes.get("action", ""), True
        elif tag in ("input", "button") and self.inside and attributes.get("name"):
            # Of several buttons a person presses one: the first.
            kind = attributes.get("type", "submit" if tag == "button" else "text")
            if kind == "submit" and any(known == "submit" for known, _ in self.fields.values()):
                return
            self.fields[attributes["name"]] = (kind, attributes.get("value", ""))

    def handle_endtag(self, tag):
        if tag == "form":
            self.inside = False


def curl(world, *arguments):
    jar = os.path.join(world.folder, "cookies")
    done = world.run(["curl", "-sS", "-L", "-b", jar, "-c", jar, "-w", "\n%{url_effective}", *arguments]).ok()
    page, _, address = done.out.rpartition("\n")
    return page, address


def complete(world, address, code):
    """Fills the pages in as a person would, with curl, until there is nothing more to fill in."""
    page, address = curl(world, address)
    for _ in range(6):
        form = Form(page)
        if form.action is None:
            return page
        values = []
        for name, (kind, value) in form.fields.items():
            if kind == "password":
                value = world.password
            elif kind in ("text", "email"):
                value = code if "code" in name or name == "otc" else world.user
            values += ["--data-urlencode", f"{name}={value}"]
        page, address = curl(world, *values, urllib.parse.urljoin(address, form.action))
    raise AssertionError(f"the pages do not end: {clip(page)}")


def device_login(world, who, *more):
    command = [world.az, "login", "--use-device-code", *more]
    env = {**world.env, **world.login_folder(who), "AZURE_CORE_ONLY_SHOW_ERRORS": "false"}
    client = subprocess.Popen(
        command, env=env, cwd=world.folder, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )
    try:
        said = ""
        for line in client.stderr:
            said += line
            if found := re.search(r"(https://\S+?)[,.]? .*?code ([A-Z0-9-]{6,})", said.replace("\n", " ")):
                break
        else:
            raise AssertionError(f"az did not say where to go: {clip(said)}")
        complete(world, found[1], found[2])
        out, err = client.communicate(timeout=60)
    finally:
        client.kill()
    equal((client.returncode, clip(err) if client.returncode else ""), (0, ""))
    return out


@check("az login --use-device-code, with its page")
def login_device(world):
    contains(device_login(world, "device"), world.subscription, world.user)


@check("az login --use-device-code --tenant")
def login_device_tenant(world):
    contains(device_login(world, "device2", "--tenant", world.tenant), world.subscription)


@check("az account show")
def account_show(world):
    equal(world.run_az("account", "show", "--query", "id", "-o", "tsv").text(), world.subscription)


@check("az account list and list --refresh")
def account_list(world):
    for more in ([], ["--refresh"]):
        found = world.run_az("account", "list", *more).json()
        equal([account["id"] for account in found], [world.subscription])


@check("az account set")
def account_set(world):
    world.run_az("account", "set", "-s", world.subscription).ok()


def token(world, *more, who="user"):
    return world.run_az("account", "get-access-token", *more, "--query", "accessToken", "-o", "tsv", who=who).text()


@check("az account get-access-token for ARM, vault, Graph and PostgreSQL")
def account_token(world):
    wanted = [
        ([], ARM), (["--resource", "https://vault.azure.net"], "https://vault.azure.net"),
        (["--resource-type", "ms-graph"], "https://graph.microsoft.com"),
        (["--resource-type", "oss-rdbms"], "https://ossrdbms-aad.database.windows.net"),
    ]
    for more, audience in wanted:
        said = claims(token(world, *more))
        equal(said["aud"].rstrip("/"), audience.rstrip("/"))
        equal(said["tid"], world.tenant)
        equal(said["upn"], world.user)
        contains(said["iss"], world.tenant)


@check("tokens of a service principal name it")
def account_token_principal(world):
    said = claims(token(world, who="sp"))
    equal((said["appid"], said["idtyp"]), (world.client, "app"))


@check("az account list-locations has uksouth")
def locations(world):
    contains(world.run_az("account", "list-locations", "--query", "[].name").json(), "uksouth")


@check("az logout")
def logout(world):
    world.run_az("logout", who="device2").ok()
    world.run_az("group", "list", who="device2").fails("az login")
