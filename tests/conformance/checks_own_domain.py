"""A second site, under a domain of its own: a custom cloud for az and the SDKs, through the proxy, and by name in
namespaces of the test's own, where nothing but the site can be reached."""

import json
import os

from checks_sdks import node, python
from harness import World, check, claims, contains, equal, outcomes

DOMAIN = "site.test"
VAULT = "kv-own-1"
SERVER = "pg-own-1"
ACCOUNT = "stown1"
MACHINE = "ubuntu-own"
VARIABLES = {"VAULT_URL": f"https://{VAULT}.vault.{DOMAIN}", "SECRET_NAME": "s", "SECRET_VALUE": "mine"}
REGISTER = ["cloud", "register", "-n", "Arcadia", "--endpoint-resource-manager", f"https://management.{DOMAIN}"]


@check("own domain: arcadia up --domain, without a way out")
def start(world):
    world.own = World(world.keep)
    world.others.append(world.own)
    world.own.start("--domain", DOMAIN, "--offline")
    equal(world.own.user, f"admin@{DOMAIN}")
    names = [one["name"] for one in world.own.program("status", "--json").json()["names"]]
    contains(names, f"management.{DOMAIN}", f"login.{DOMAIN}", f"*.vault.{DOMAIN}")
    equal([name for name in names if not name.endswith(DOMAIN)], [])


@check("own domain: another domain is refused")
def other(world):
    world.own.program("down").ok()
    world.own.program("up", "--domain", "other.test", "--detach").fails(DOMAIN, "without --domain", code=1)
    world.own.program("up", "--detach", "--offline").ok()


@check("own domain: az cloud register, set; every endpoint is set")
def register(world):
    for who in ("user", "sp"):
        world.own.run_az(*REGISTER, who=who).ok()
        world.own.run_az("cloud", "set", "-n", "Arcadia", who=who).ok()
    cloud = world.own.run_az("cloud", "show").json()
    # Where the extensions come from is told by AZURE_EXTENSION_INDEX_URL.
    missing = [name for part in ("endpoints", "suffixes") for name, value in cloud[part].items() if not value]
    equal(missing, ["azmirrorStorageAccountResourceId"])
    foreign = [value for part in ("endpoints", "suffixes") for value in cloud[part].values() if value and DOMAIN not in value]
    equal(foreign, [])


@check("own domain: ARM_CLOUD_METADATA_URL, the other shape of the metadata")
def metadata_url(world):
    url = f"https://management.{DOMAIN}/metadata/endpoints?api-version=2019-05-01"
    env = {**world.own.login_folder("metadata"), "ARM_CLOUD_METADATA_URL": url}
    equal(world.own.run([world.own.az, "cloud", "show", "--query", "name"], env=env).json(), "Arcadia")
    world.own.run(
        [world.own.az, "login", "--service-principal", "-u", world.own.client, "-p", world.own.secret,
         "--tenant", world.own.tenant], env=env,
    ).ok()


@check("own domain: az login as a service principal and as a person")
def login(world):
    own = world.own
    found = own.run_az(
        "login", "--service-principal", "-u", own.client, "-p", own.secret, "--tenant", own.tenant, who="sp"
    ).json()
    equal((found[0]["id"], found[0]["cloudName"]), (own.subscription, "Arcadia"))
    own.run_az("login", "-u", own.user, "-p", "wrong").fails("AADSTS50126")
    found = own.run_az("login", "-u", own.user, "-p", own.password).json()
    equal((found[0]["id"], found[0]["user"]["name"]), (own.subscription, own.user))
    token = claims(own.run_az("account", "get-access-token", "--query", "accessToken", "-o", "tsv").text())
    equal((token["iss"], token["aud"]), (f"https://login.{DOMAIN}/{own.tenant}/", f"https://management.{DOMAIN}/"))


@check("own domain: az without the cloud is refused in words")
def public_cloud(world):
    own = world.own
    own.run_az("login", "--service-principal", "-u", own.client, "-p", own.secret, "--tenant", own.tenant, who="public").fails()
    said = own.run(["curl", "-sS", "https://login.microsoftonline.com/"]).fails(code=56)
    contains(said.err, "403")
    for name in ("portal", "x.managedhsm"):
        said = own.run(["curl", "-sS", f"https://{name}.{DOMAIN}/"]).text()
        contains(said, "ServiceNotServed", f"does not serve {name}.{DOMAIN}")
    # And so az tells it.
    own.run_az("keyvault", "key", "list", "--hsm-name", "x").fails("does not serve x.managedhsm")


@check("own domain: group, vault, role, secret; identifiers are the site's own")
def vault(world):
    own = world.own
    own.run_az("group", "create", "-n", "arc-hack", "-l", "uksouth").ok()
    made = own.run_az(
        "keyvault", "create", "-n", VAULT, "-g", "arc-hack", "-l", "uksouth", "--enable-rbac-authorization",
        "--retention-days", "7",
    ).json()
    equal(made["properties"]["vaultUri"], f"https://{VAULT}.vault.{DOMAIN}/")
    own.vault_id = made["id"]
    me = own.run_az("ad", "signed-in-user", "show", "--query", "id", "-o", "tsv").text()
    own.run_az("keyvault", "secret", "set", "--vault-name", VAULT, "-n", "s", "--value", "x").fails("Forbidden")
    for who in (me, own.client):
        own.run_az("role", "assignment", "create", "--assignee", who, "--scope", own.vault_id,
                   "--role", "Key Vault Secrets Officer").ok()
    found = own.run_az("keyvault", "secret", "set", "--vault-name", VAULT, "-n", "s", "--value", "mine").json()
    contains(found["id"], f"https://{VAULT}.vault.{DOMAIN}/secrets/s/")
    equal(own.run_az("keyvault", "secret", "show", "--vault-name", VAULT, "-n", "s", "--query", "value").json(), "mine")
    equal(own.run_az("keyvault", "secret", "show", "--id", found["id"], "--query", "value").json(), "mine")


@check("own domain: a database, by password and by a token for either audience")
def database(world):
    own = world.own
    made = own.run_az(
        "postgres", "flexible-server", "create", "-g", "arc-hack", "-n", SERVER, "-l", "uksouth",
        "--admin-user", "arcadmin", "--admin-password", "Passw0rd!x", "--tier", "Burstable",
        "--sku-name", "Standard_B1ms", "--storage-size", "32", "--microsoft-entra-auth", "Enabled",
        "--public-access", "127.0.0.1-127.255.255.255", "--yes",
    ).json()
    equal(made["host"], f"{SERVER}.postgres.{DOMAIN}")
    me = own.run_az("ad", "signed-in-user", "show", "--query", "id", "-o", "tsv").text()
    own.run_az("postgres", "flexible-server", "microsoft-entra-admin", "create", "-g", "arc-hack", "-s", SERVER,
               "-u", own.user, "-i", me, "-t", "User").ok()

    def connect(user, password):
        target = f"host={SERVER}.postgres.{DOMAIN} user={user} dbname=postgres sslmode=verify-full"
        return own.run(["psql", target, "-Atc", "select current_user"], env={"PGPASSWORD": password})

    def token(*what):
        return own.run_az("account", "get-access-token", *what, "--query", "accessToken", "-o", "tsv").text()

    equal(connect("arcadmin", "Passw0rd!x").text(), "arcadmin")
    connect("arcadmin", "wrong").fails("password authentication failed")
    for audience in (["--resource-type", "oss-rdbms"], ["--resource", "https://ossrdbms-aad.database.windows.net"]):
        equal(connect(own.user, token(*audience)).text(), own.user)
    connect(own.user, token()).fails(f"https://ossrdbms.{DOMAIN}")


@check("own domain: blobs, with a login and with the account's key")
def blobs(world):
    own = world.own
    made = own.run_az("storage", "account", "create", "-n", ACCOUNT, "-g", "arc-hack", "-l", "uksouth", "--sku", "Standard_LRS").json()
    equal(made["primaryEndpoints"]["blob"], f"https://{ACCOUNT}.blob.{DOMAIN}/")
    account = ["--account-name", ACCOUNT]
    login = [*account, "--auth-mode", "login"]
    file, copy = os.path.join(own.folder, "blob"), os.path.join(own.folder, "copy")
    with open(file, "w", encoding="utf-8") as out:
        out.write("mine")
    own.run_az("storage", "container", "create", "-n", "files", *login).ok()
    upload = ["storage", "blob", "upload", "-c", "files", "-f", file, "--no-progress"]
    own.run_az(*upload, "-n", "b", *login).fails("permission")
    me = own.run_az("ad", "signed-in-user", "show", "--query", "id", "-o", "tsv").text()
    own.run_az("role", "assignment", "create", "--assignee", me, "--scope", made["id"],
               "--role", "Storage Blob Data Contributor").ok()
    own.run_az(*upload, "-n", "b", *login).ok()
    own.run_az(*upload, "-n", "k", *account).ok()
    equal(own.run_az("storage", "blob", "list", "-c", "files", *login, "--query", "[].name").json(), ["b", "k"])
    own.run_az("storage", "blob", "download", "-c", "files", "-n", "k", "-f", copy, "--no-progress", *login).ok()
    with open(copy, encoding="utf-8") as found:
        equal(found.read(), "mine")
    text = own.run_az("storage", "account", "show-connection-string", "-n", ACCOUNT, "-g", "arc-hack").json()["connectionString"]
    contains(text, f"EndpointSuffix={DOMAIN}", f"BlobEndpoint=https://{ACCOUNT}.blob.{DOMAIN}/")
    # The bearer of a token for the site's own storage audience is as welcome, one for vaults is not.
    for resource, wanted in ((f"https://storage.{DOMAIN}", "200"), (f"https://vault.{DOMAIN}", "401")):
        token = own.run_az("account", "get-access-token", "--resource", resource, "--query", "accessToken", "-o", "tsv").text()
        found = own.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Authorization: Bearer {token}",
                         "-H", "x-ms-version: 2021-08-06", f"https://{ACCOUNT}.blob.{DOMAIN}/files/b"]).text()
        equal(found, wanted)


@check("own domain: az extension add from the site's own index")
def extension(world):
    world.own.run_az("extension", "add", "--name", "arcadia").ok()
    contains(world.own.run_az("extension", "list", "--query", "[].name").json(), "arcadia")


@check("own domain: Python with an authority of its own")
def sdk_python(world):
    return outcomes(world.own.run(python(world, "own_cloud.py"), env=VARIABLES), 5)


@check("own domain: JavaScript with an authority of its own")
def sdk_javascript(world):
    return outcomes(world.own.run(node(world, "own_cloud.mjs"), env=VARIABLES), 2)


@check("own domain: a machine is connected without being told of the site")
def machine(world):
    own = world.own
    made = own.run_az(
        "ad", "sp", "create-for-rbac", "-n", "onboarding", "--role", "Azure Connected Machine Onboarding",
        "--scopes", own.group_id,
    ).json()
    own.machines.append(MACHINE)
    own.program("machine", "create", MACHINE).ok()
    connect = [
        "azcmagent", "connect", "--service-principal-id", made["appId"], "--service-principal-secret", made["password"],
        "--tenant-id", own.tenant, "--subscription-id", own.subscription, "--resource-group", "arc-hack",
        "--location", "uksouth",
    ]
    # Said outright, the public cloud is not this site.
    own.on_machine(MACHINE, *connect, "--cloud", "AzureCloud").fails("token")
    own.on_machine(MACHINE, "sudo", *connect).ok()
    found = own.on_machine(MACHINE, "azcmagent", "show", "-j").json()
    equal((found["status"], found["cloud"]), ("Connected", "Arcadia"))
    kept = json.loads(own.on_machine(MACHINE, "cat", "/var/opt/azcmagent/agentconfig.json").text())["endpoints"]
    equal(
        (kept["login"], kept["management"], kept["his"]),
        (f"https://login.{DOMAIN}", f"https://management.{DOMAIN}", f"https://gbl.his.{DOMAIN}"),
    )


@check("own domain: ManagedIdentityCredential on the machine")
def identity(world):
    own = world.own
    principal = own.run_az(
        "resource", "show", "-g", "arc-hack", "-n", MACHINE, "--resource-type", "Microsoft.HybridCompute/machines",
        "--query", "identity.principalId", "-o", "tsv",
    ).text()
    own.run_az("role", "assignment", "create", "--assignee", principal, "--scope", own.vault_id,
               "--role", "Key Vault Secrets User").ok()
    words = [f"{name}={value}" for name, value in VARIABLES.items()]
    return outcomes(own.on_machine(MACHINE, "env", *words, *python(world, "identity.py")), 4)


@check("own domain: az login --identity on the machine")
def az_identity(world):
    own = world.own
    for command in (REGISTER, ["cloud", "set", "-n", "Arcadia"], ["login", "--identity", "--allow-no-subscriptions"]):
        own.az_on_machine(MACHINE, *command).ok()
    found = own.az_on_machine(MACHINE, "keyvault", "secret", "show", "--vault-name", VAULT, "-n", "s", "--query", "value")
    equal(found.json(), "mine")


# In namespaces of their own the site has port 443, and its names are those of a hosts file; there is no other way
# to anywhere, so whatever a client asks elsewhere fails.
BY_NAME = r"""
set -euo pipefail
ip link set lo up
arcadia=$1 az=$2 vault=$3
"$arcadia" up --detach --offline --listen 127.40.34.2:443
trap '"$arcadia" down' EXIT
server=pg-own-1.postgres.site.test account=stown1.blob.site.test
{ printf '127.0.0.1\tlocalhost\n'; "$arcadia" hosts "$vault" "$server" "$account"; } > hosts
mount --bind "$PWD/hosts" /etc/hosts
# What the shell has of a proxy leads nowhere here: the site's names go around it.
export HTTPS_PROXY=http://127.0.0.1:1 https_proxy=http://127.0.0.1:1
eval "$("$arcadia" env --direct --admin)"
curl -sSf "https://login.site.test/common/v2.0/.well-known/openid-configuration" --output /dev/null
"$az" cloud register -n Arcadia --endpoint-resource-manager https://management.site.test
"$az" cloud set -n Arcadia
"$az" login --service-principal -u "$AZURE_CLIENT_ID" -p "$AZURE_CLIENT_SECRET" --tenant "$AZURE_TENANT_ID" --output none
"$az" login -u "$ARCADIA_USER" -p "$ARCADIA_PASSWORD" --output none
"$az" group create -n by-name -l uksouth --query name --output tsv
"$az" keyvault secret set --vault-name kv-own-1 -n by-name --value resolved --query id --output tsv
"$az" keyvault secret show --vault-name kv-own-1 -n by-name --query value --output tsv
"$az" group delete -n by-name --yes
"$az" storage blob list --account-name stown1 -c files --auth-mode login --query "join('+', [].name)" --output tsv
env -u PGHOSTADDR PGPASSWORD='Passw0rd!x' psql "host=$server user=arcadmin dbname=postgres sslmode=verify-full" -Atc 'select 1 + 41'
"$4" "$5" 1>&2
if curl -sS --noproxy '*' https://management.azure.com/ 2> refused; then exit 4; fi
grep -q 'resolve' refused
if curl -sS --cacert /etc/ssl/certs/ca-certificates.crt https://login.site.test/; then exit 5; fi
echo by name
"""


@check("own domain: by hosts file and listener on port 443, without a proxy")
def by_name(world):
    own = world.own
    own.program("down").ok()
    unshare = ["unshare", "--mount", "--net"] if os.geteuid() == 0 else ["unshare", "-r", "--mount", "--net"]
    env = {**own.login_folder("by-name"), **VARIABLES, "ARCADIA_DATA": own.data}
    script = python(world, "own_cloud.py")
    command = [*unshare, "bash", "-c", BY_NAME, "sh", own.arcadia, own.az, f"{VAULT}.vault.{DOMAIN}", *script]
    try:
        done = own.run(command, env=env, timeout=300).ok()
    finally:
        own.program("up", "--detach", "--offline").ok()
    lines = done.out.splitlines()
    contains(lines, "by-name", "resolved", "b+k", "42", "by name")
    contains(done.out, f"https://{VAULT}.vault.{DOMAIN}/secrets/by-name/")
    return outcomes(type(done)(done.command, done.code, done.err, ""), 5)


@check("own domain: what was made by name is there through the proxy")
def afterwards(world):
    own = world.own
    equal(own.run_az("keyvault", "secret", "show", "--vault-name", VAULT, "-n", "by-name", "--query", "value").json(), "resolved")
