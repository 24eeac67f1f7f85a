"""What curl sees: discovery, refusals of bad tokens on every plane, and the data directory."""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import time

from checks_vaults import VAULT
from harness import check, claims, contains, equal

ARM = "https://management.azure.com/subscriptions?api-version=2022-12-01"
GRAPH = "https://graph.microsoft.com/v1.0/me"
SECRET = f"https://{VAULT}.vault.azure.net/secrets/s?api-version=7.4"
LOGIN = "https://login.microsoftonline.com"


def curl(world, address, *arguments):
    done = world.run(["curl", "-sS", "-w", "\n%{http_code}", *arguments, address]).ok()
    body, _, code = done.out.rpartition("\n")
    return int(code), body


def get(world, address, token=None):
    more = ["-H", f"Authorization: Bearer {token}"] if token else []
    code, body = curl(world, address, *more)
    return code, json.loads(body) if body else None


def token(world, resource):
    return world.run_az("account", "get-access-token", "--resource", resource, "--query", "accessToken", "-o", "tsv").text()


def planes(world):
    yield ARM, token(world, "https://management.azure.com")
    yield GRAPH, token(world, "https://graph.microsoft.com")
    yield SECRET, token(world, "https://vault.azure.net")


@check("every plane answers its own token and refuses the others'")
def audiences(world):
    pairs = list(planes(world))
    for address, own in pairs:
        equal(get(world, address, own)[0], 200)
        equal(get(world, address)[0], 401)
        for _, other in pairs:
            if other != own:
                equal(get(world, address, other)[0], 401)


def part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def key_id(text):
    head = text.split(".")[0]
    return json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"]


def forged(world, genuine):
    """Tokens that say what the genuine one says, and are not it."""
    head, body, signature = genuine.split(".")
    said = claims(genuine)
    kid = key_id(genuine)
    yield "alg none", f"{part({'alg': 'none', 'typ': 'JWT', 'kid': kid})}.{body}."
    yield "alg none with the signature", f"{part({'alg': 'none', 'typ': 'JWT', 'kid': kid})}.{body}.{signature}"
    keys = get(world, f"{LOGIN}/common/discovery/v2.0/keys")[1]["keys"]
    public = next(key for key in keys if key["kid"] == kid)
    for name, secret in (("modulus", public["n"]), ("key", json.dumps(public)), ("certificate", public.get("x5c", [""])[0])):
        text = f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': kid})}.{body}"
        mac = base64.urlsafe_b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())
        yield f"HS256 over the public {name}", f"{text}.{mac.rstrip(b'=').decode()}"
    yield "another body", f"{head}.{part({**said, 'exp': said['exp'] + 1})}.{signature}"
    yield "no signature", f"{head}.{body}."
    yield "a changed signature", f"{head}.{body}.{('A' if signature[0] != 'A' else 'B') + signature[1:]}"
    for name, body in (("a foreign issuer with the same key id", said), ("expired", {**said, "exp": int(time.time()) - 3600})):
        yield f"{name}, signed with another key", foreign(world, kid, body)


def foreign(world, kid, body):
    """Signed with RS256 by a key that the site has never seen."""
    key = os.path.join(world.folder, "foreign.pem")
    if not os.path.exists(key):
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    text = f"{part({'alg': 'RS256', 'typ': 'JWT', 'kid': kid})}.{part(body)}"
    signed = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=text.encode(), check=True, capture_output=True)
    return f"{text}.{base64.urlsafe_b64encode(signed.stdout).rstrip(b'=').decode()}"


@check("forged tokens are refused")
def forgeries(world):
    found = []
    for address, genuine in planes(world):
        host = address.split("/")[2]
        for name, false in forged(world, genuine):
            code, _ = get(world, address, false)
            found.append((f"{name}, by {host}", None if code == 401 else f"answered {code}"))
    return found


@check("discovery: tenant, organizations, common, keys")
def discovery(world):
    for tenant in (world.tenant, "organizations", "common"):
        code, found = get(world, f"{LOGIN}/{tenant}/v2.0/.well-known/openid-configuration")
        equal(code, 200)
        for name in ("token_endpoint", "authorization_endpoint", "device_authorization_endpoint", "jwks_uri", "issuer"):
            contains(found, name)
        equal(get(world, found["jwks_uri"])[0], 200)


@check("a vault challenges before it looks at the request")
def vault_challenge(world):
    done = world.run(["curl", "-sS", "-D", "-", "-o", "/dev/null", SECRET]).ok()
    contains(done.out.lower(), "401", "www-authenticate: bearer", "authorization=", f"{LOGIN}/{world.tenant}".lower(), 'resource="https://vault.azure.net"')


@check("the text's address forms: trailing slash, double slash, capitals, api-version 7.1 and 2026-04-01")
def address_forms(world):
    own = token(world, "https://vault.azure.net")
    base = f"https://{VAULT}.vault.azure.net"
    for path in ("/secrets/s/?api-version=7.1", "//secrets/s?api-version=7.1", "/secrets/s?api-version=2026-04-01", "/Secrets/S/?api-version=7.4"):
        code, found = get(world, base + path, own)
        equal((path, code, (found or {}).get("value")), (path, 200, "mine"))


@check("a vault without an api-version is refused")
def no_version(world):
    equal(get(world, f"https://{VAULT}.vault.azure.net/secrets/s", token(world, "https://vault.azure.net"))[0], 400)


@check("a vault that does not exist")
def no_vault(world):
    address = "https://kv-never.vault.azure.net/secrets/s?api-version=7.4"
    done = world.run(["curl", "-sS", "-H", f"Authorization: Bearer {token(world, 'https://vault.azure.net')}", address])
    equal((done.code != 0 or "value" not in done.out, "mine" in done.out), (True, False))


@check("the proxy refuses loopback and private targets")
def proxy_refuses(world):
    for target in ("127.0.0.1:22", "localhost:22", "[::1]:22", "10.0.0.1:443", "192.168.1.1:443", "169.254.169.254:80", "0.0.0.0:22"):
        done = world.run(
            ["curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_connect}", "--noproxy", "", "-p", f"https://{target}/"]
        )
        equal((target, done.out), (target, "403"))


@check("az's update check is not taken for a storage account")
def update_check(world):
    done = world.run(["curl", "-sS", "-m", "5", "-I", "-o", "/dev/null", "-w", "%{http_connect}", "https://azcliprod.blob.core.windows.net/cli"])
    equal(done.out == "200" and done.code == 0, False)


@check("TLS: verified as clients do by default; the site's authority does not speak for other names")
def tls(world):
    world.run(["curl", "-sS", "-o", "/dev/null", f"{LOGIN}/common/discovery/v2.0/keys"]).ok()
    proxy = world.env["HTTPS_PROXY"].removeprefix("http://")
    for version in ("-tls1_2", "-tls1_3"):
        done = world.run(
            ["openssl", "s_client", "-proxy", proxy, "-connect", "kv-lab1.vault.azure.net:443", "-servername",
             "kv-lab1.vault.azure.net", "-verify_return_error", "-verify_hostname", "kv-lab1.vault.azure.net",
             "-x509_strict", "-CAfile", world.env["SSL_CERT_FILE"], version]
        ).ok()
        contains(done.out, "Verification: OK")


@check("the admin's secrets and a secret's value are not readable in the data directory")
def sealed(world):
    world.run_az("keyvault", "secret", "set", "--vault-name", VAULT, "-n", "sealed", "--value", "PlainlyVisibleNeedle4711").ok()
    found = subprocess.run(
        ["grep", "-rlaE", "PlainlyVisibleNeedle4711|Xx12345!longer", world.data], capture_output=True, text=True, check=False
    )
    equal((found.returncode, found.stdout), (1, ""))


@check("the data directory is closed to others")
def closed(world):
    equal(oct(os.stat(world.data).st_mode & 0o077), "0o0")


@check("the first credentials are for the owner alone")
def credentials(world):
    found = [os.path.join(folder, name) for folder, _, names in os.walk(world.data) for name in names
             if name in ("credentials.json", "root.key", "ca.key.pem")]
    equal(len(found), 3)
    for path in found:
        equal((os.path.basename(path), oct(os.stat(path).st_mode & 0o777)), (os.path.basename(path), "0o600"))


@check("a second site on the same data directory is refused")
def second(world):
    world.program("up", "--detach").fails("another site is running")
    world.program("status").ok()
