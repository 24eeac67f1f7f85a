"""Tokens out of their time: a site of its own runs on a clock that is behind or ahead (libfaketime), issues tokens,
and is started again on the true clock."""

import glob
import json
import os

from harness import check, equal

LOGIN = "https://login.microsoftonline.com"
PLANES = {
    "https://management.azure.com": ("https://management.azure.com/subscriptions?api-version=2022-12-01", 200),
    "https://graph.microsoft.com": ("https://graph.microsoft.com/v1.0/organization", 200),
    # No such vault: who is let in learns that, and a stranger does not.
    "https://vault.azure.net": ("https://kv-of-no-time.vault.azure.net/secrets/s?api-version=7.4", 404),
    # A service principal is let in, and is no machine.
    "https://his.arc.azure.com": ("https://gbl.his.arc.azure.com/machines/heartbeat", 403),
}


class Site:
    """A second site, whose clock can be set for each run."""

    def __init__(self, world):
        self.world = world
        self.data = os.path.join(world.folder, "time")
        self.clock = {}

    def arcadia(self, *arguments):
        return self.world.run([self.world.arcadia, "--data", self.data, *arguments], env=self.clock)

    def __enter__(self):
        self.arcadia("up", "--detach").ok()
        self.env = self.arcadia("env", "--admin", "--format", "json").json()
        return self

    def __exit__(self, *_):
        self.arcadia("down").ok()

    def at(self, offset):
        (library,) = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
        # Only the time of day is moved: what waits goes on waiting as long as it should.
        still = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
        self.clock = {"LD_PRELOAD": library, "FAKETIME": offset, **still} if offset else {}
        return self

    def curl(self, *arguments):
        done = self.world.run(["curl", "-sS", "-w", "\n%{http_code}", *arguments], env={**self.env, **self.clock}).ok()
        body, _, code = done.out.rpartition("\n")
        return int(code), body

    def token(self, resource):
        fields = {
            "grant_type": "client_credentials",
            "client_id": self.env["AZURE_CLIENT_ID"],
            "client_secret": self.env["AZURE_CLIENT_SECRET"],
            "scope": f"{resource}/.default",
        }
        data = [word for name, value in fields.items() for word in ("--data-urlencode", f"{name}={value}")]
        code, body = self.curl(*data, f"{LOGIN}/{self.env['AZURE_TENANT_ID']}/oauth2/v2.0/token")
        equal(code, 200)
        return json.loads(body)["access_token"]

    def status(self, address, token):
        body = json.dumps({"vmId": "00000000-0000-0000-0000-000000000000"})
        more = ["--json", body] if "heartbeat" in address else []
        return self.curl(*more, "-H", f"Authorization: Bearer {token}", address)[0]


def tokens_of(site):
    """A token for each plane, each of which lets its holder in at the clock it was issued by."""
    tokens = {resource: site.token(resource) for resource in PLANES}
    for resource, (address, status) in PLANES.items():
        equal(site.status(address, tokens[resource]), status)
    return tokens


@check("tokens that have expired or are not valid yet are refused by every plane")
def out_of_time(world):
    site = Site(world)
    kept = {}
    for name, offset in (("expired", "-2h"), ("not valid yet", "+3h")):
        with site.at(offset):
            kept[name] = tokens_of(site)
    with site.at(None):
        tokens_of(site)
        for name, tokens in kept.items():
            for resource, (address, _) in PLANES.items():
                status = site.status(address, tokens[resource])
                if status != 401:
                    raise AssertionError(f"a token that is {name} got {status} from {address}")
