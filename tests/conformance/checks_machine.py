"""A connected machine: onboarding, the agent, HIMDS, and `az` with the machine's identity."""

import json
import re

from checks_vaults import VAULT
from harness import check, claims, contains, equal, eventually

MACHINE = "ubuntu-01"
TOKEN = "http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource="
TOKENS = "/var/opt/azcmagent/tokens/"


@check("arcadia machine create")
def create(world):
    world.machines.append(MACHINE)
    world.program("machine", "create", MACHINE).ok()
    contains(world.program("machine", "list").text(), MACHINE, "running")
    equal(world.on_machine(MACHINE, "hostname").text(), MACHINE)


@check("arcadia machine create of one that exists is refused")
def create_again(world):
    world.program("machine", "create", MACHINE).fails("already")


@check("an unconnected machine has no identity")
def unconnected(world):
    contains(world.on_machine(MACHINE, "azcmagent", "show").out, "Disconnected")
    found = world.on_machine(MACHINE, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Metadata:true",
                             TOKEN + "https%3A%2F%2Fvault.azure.net").text()
    equal(found.startswith("2"), False)


def connect(world, client, password, *more):
    return world.on_machine(
        MACHINE, "azcmagent", "connect", "--service-principal-id", client, "--service-principal-secret", password,
        "--tenant-id", world.tenant, "--subscription-id", world.subscription, "--resource-group", "arc-hack",
        "--location", "uksouth", *more,
    )


@check("azcmagent connect with a wrong secret, or without the role, is refused")
def connect_refused(world):
    connect(world, world.client, "wrong").fails("AADSTS7000215")
    made = world.run_az("ad", "sp", "create-for-rbac", "-n", "no-onboarding").json()
    connect(world, made["appId"], made["password"]).fails("AuthorizationFailed")
    contains(world.on_machine(MACHINE, "azcmagent", "show").out, "Disconnected")


@check("azcmagent connect with a service principal that may only onboard")
def connect_machine(world):
    made = world.run_az(
        "ad", "sp", "create-for-rbac", "-n", "onboarding", "--role", "Azure Connected Machine Onboarding",
        "--scopes", world.group_id,
    ).json()
    world.onboarding = made
    done = connect(world, made["appId"], made["password"], "--tags", "platform=namespace,datacentre=here").ok()
    contains(done.out + done.err, "Connected machine to Azure")


@check("azcmagent connect again says that it is connected")
def connect_twice(world):
    made = world.onboarding
    connect(world, made["appId"], made["password"]).fails("AZCM0067")


@check("azcmagent show, as text and as JSON; version")
def show(world):
    text = world.on_machine(MACHINE, "azcmagent", "show").text()
    for name in ("Resource Name", "Resource Group Name", "Subscription ID", "Tenant ID", "Agent Status", "Agent Version"):
        contains(text, name)
    found = world.on_machine(MACHINE, "azcmagent", "show", "-j").json()
    equal(
        (found["resourceName"], found["resourceGroup"], found["subscriptionId"], found["tenantId"], found["status"]),
        (MACHINE, "arc-hack", world.subscription, world.tenant, "Connected"),
    )
    world.on_machine(MACHINE, "azcmagent", "version").ok()
    # Needs no root.
    world.on_machine(MACHINE, "azcmagent", "show", user="arcadmin").ok()


@check("a command on the machine has nobody's credentials")
def no_credentials(world):
    callers = {name: value for name, value in world.env.items() if value in (world.client, world.secret, world.password)}
    equal(len(callers), 5)
    found = world.on_machine(MACHINE, "env", env={"AZURE_USERNAME": world.user}).text().splitlines()
    equal([line for line in found if line.split("=")[0] in {*callers, "AZURE_USERNAME", "ARCADIA_USER"}], [])
    equal([line for line in found if line == f"AZURE_TENANT_ID={world.tenant}"], [f"AZURE_TENANT_ID={world.tenant}"])


@check("the machine's resource, by az resource show")
def resource(world):
    found = world.run_az(
        "resource", "show", "-g", "arc-hack", "-n", MACHINE, "--resource-type", "Microsoft.HybridCompute/machines"
    ).json()
    equal((found["identity"]["type"], found["location"]), ("SystemAssigned", "uksouth"))
    equal(found["tags"], {"platform": "namespace", "datacentre": "here"})
    equal(found["properties"]["status"], "Connected")
    world.machine_object = found["identity"]["principalId"]
    equal(world.run_az("ad", "sp", "show", "--id", world.machine_object).json()["displayName"], MACHINE)


@check("HIMDS: instance metadata")
def instance(world):
    base = "http://localhost:40342/metadata/instance"
    found = world.on_machine(MACHINE, "curl", "-sS", "-H", "Metadata:true", f"{base}?api-version=2020-06-01").json()["compute"]
    equal((found["name"], found["resourceGroupName"], found["subscriptionId"]), (MACHINE, "arc-hack", world.subscription))
    equal((found["osType"], found["azEnvironment"]), ("linux", "AzurePublicCloud"))
    contains(found["tagsList"], {"name": "datacentre", "value": "here"})
    for address in ("http://127.0.0.1:40342", "http://[::1]:40342"):
        world.on_machine(MACHINE, "curl", "-sSf", "-H", "Metadata:true", f"{address}/metadata/instance?api-version=2020-06-01").ok()


def status(world, *arguments):
    return world.on_machine(MACHINE, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *arguments).text()


@check("HIMDS: refusals of requests that are not plain")
def instance_refused(world):
    address = "http://127.0.0.1:40342/metadata/instance?api-version=2020-06-01"
    equal(status(world, address), "400")
    equal(status(world, "-H", "Metadata:true", "http://127.0.0.1:40342/metadata/instance"), "400")
    equal(status(world, "-H", "Metadata:true", "-H", "X-Forwarded-For: 1.2.3.4", address), "400")
    equal(status(world, "-X", "POST", "-H", "Metadata:true", address), "405")


def challenge(world, resource="https%3A%2F%2Fvault.azure.net"):
    found = world.on_machine(MACHINE, "curl", "-s", "-D", "-", "-H", "Metadata:true", TOKEN + resource).text()
    header = re.search(r"^Www-Authenticate: Basic realm=(\S+)\r?$", found, re.MULTILINE)
    if not found.startswith("HTTP/1.1 401") or not header:
        raise AssertionError(f"no challenge: {found[:300]!r}")
    return header[1]


def answer(world, secret, resource="https%3A%2F%2Fvault.azure.net"):
    found = world.on_machine(
        MACHINE, "curl", "-s", "-w", "\n%{http_code}", "-H", "Metadata:true", "-H", f"Authorization: Basic {secret}",
        TOKEN + resource,
    ).text()
    body, _, code = found.rpartition("\n")
    return code, json.loads(body)


@check("HIMDS: the challenge file's place, mode and content")
def challenge_file(world):
    path = challenge(world)
    contains(path, TOKENS, ".key")
    found = world.on_machine(MACHINE, "stat", "-c", "%G %a", path).text()
    group, mode = found.split()
    equal(group, "himds")
    equal(int(mode, 8) & 0o007, 0)
    content = world.on_machine(MACHINE, "cat", path).ok().out
    equal(content, content.strip())
    equal(0 < len(content) <= 4096, True)


@check("HIMDS: the challenge file is for root and himds alone")
def challenge_readers(world):
    path = challenge(world)
    world.on_machine(MACHINE, "cat", path, user="arcadmin").fails("Permission denied")
    world.on_machine(MACHINE, "ls", TOKENS, user="arcadmin").fails("Permission denied")
    world.on_machine(MACHINE, "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "cat", path).fails("Permission denied")
    world.on_machine(MACHINE, "cat", path, user="himds").ok()
    world.on_machine(MACHINE, "sudo", "cat", path, user="arcadmin").ok()


@check("HIMDS: a challenge buys one token")
def token(world):
    path = challenge(world)
    secret = world.on_machine(MACHINE, "cat", path).text()
    code, body = answer(world, secret)
    equal(code, "200")
    equal((body["token_type"], body["resource"]), ("Bearer", "https://vault.azure.net"))
    equal([type(body[name]) for name in ("expires_in", "expires_on", "not_before", "ext_expires_in")], [str] * 4)
    said = claims(body["access_token"])
    equal((said["oid"], said["tid"], said["aud"], said["idtyp"]),
          (world.machine_object, world.tenant, "https://vault.azure.net", "app"))
    contains(said["xms_mirid"].lower(), f"/machines/{MACHINE}")
    equal(86_400 - 600 < said["exp"] - said["iat"] + 300, True)
    world.on_machine(MACHINE, "test", "-e", path).fails(code=1)
    code, _ = answer(world, secret)
    equal(code, "401")
    world.vault_token = body["access_token"]


@check("HIMDS: a wrong answer, and an answer for another machine's file, are refused")
def token_refused(world):
    challenge(world)
    equal(answer(world, "bm90IGl0")[0], "401")
    equal(answer(world, "")[0], "401")


@check("the machine's token opens nothing before it has a role")
def no_role(world):
    def get(address):
        return world.on_machine(MACHINE, "curl", "-sS", "-H", f"Authorization: Bearer {world.vault_token}", address).json()

    found = get(f"https://{VAULT}.vault.azure.net/secrets/s/?api-version=7.1")
    equal(found["error"]["innererror"]["code"], "ForbiddenByRbac")
    found = get(f"https://management.azure.com{world.group_id}/resources?api-version=2020-06-01")
    contains(found["error"]["code"], "InvalidAuthenticationToken")


@check("a role for the machine is in effect at once")
def role(world):
    world.run_az(
        "role", "assignment", "create", "--assignee", world.machine_object, "--scope", world.vault_id,
        "--role", "Key Vault Secrets User",
    ).ok()
    world.run_az(
        "role", "assignment", "create", "--assignee", world.machine_object, "--scope", world.group_id, "--role", "Reader"
    ).ok()
    found = world.on_machine(
        MACHINE, "curl", "-sS", "-H", f"Authorization: Bearer {world.vault_token}",
        f"https://{VAULT}.vault.azure.net/secrets/s/?api-version=7.1",
    ).json()
    equal(found["value"], "mine")


@check("az login --identity on the machine; group list; secret show")
def az_identity(world):
    found = world.az_on_machine(MACHINE, "login", "--identity").json()
    equal((found[0]["id"], found[0]["user"]["name"]), (world.subscription, "systemAssignedIdentity"))
    equal(world.az_on_machine(MACHINE, "group", "list", "--query", "[].name").json(), ["arc-hack"])
    found = world.az_on_machine(
        MACHINE, "keyvault", "secret", "show", "--vault-name", VAULT, "--name", "s", "--query", "value", "-o", "tsv"
    )
    equal(found.text(), "mine")


@check("az login --identity of an identity that the machine does not have is refused")
def az_identity_other(world):
    world.az_on_machine(MACHINE, "login", "--identity", "--client-id", "11111111-2222-3333-4444-555555555555").fails(
        "dentity"
    )


@check("the machine and its identity outlive a restart of the site")
def restart(world):
    world.program("down").ok()
    world.program("up", "--detach").ok()

    def works():
        path = challenge(world)
        code, body = answer(world, world.on_machine(MACHINE, "cat", path).text())
        equal(code, "200")
        found = world.on_machine(
            MACHINE, "curl", "-sS", "-H", f"Authorization: Bearer {body['access_token']}",
            f"https://{VAULT}.vault.azure.net/secrets/s?api-version=7.4",
        ).json()
        equal(found["value"], "mine")

    eventually(works)
