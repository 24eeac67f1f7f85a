"""The commands against a resource manager in memory, and the strings as a shell and libpq read them."""

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import types
import unittest
from unittest import mock
from urllib.parse import parse_qs, unquote, urlsplit

from azure.cli.core.azclierror import AzureResponseError, HTTPError, InvalidArgumentValueError

from azext_db_up import arm, custom, strings

SUBSCRIPTION = "/subscriptions/00000000-0000-0000-0000-00000000000a"
SERVER = "/resourceGroups/arc-hack/providers/Microsoft.DBforPostgreSQL/servers/postgres-1"


class Answer:
    def __init__(self, status, body=None, headers=None):
        self.status_code, self.body, self.headers = status, body, headers or {}
        self.text = json.dumps(body)

    def json(self):
        return self.body


class Manager:
    """Holds what is PUT, and accepts before it is done. `outcome` is how operations end."""

    def __init__(self, **resources):
        self.resources, self.requests, self.outcome, self.polls = dict(resources), [], {"status": "Succeeded"}, 0

    def __call__(self, cli_ctx, method, url, body=None):
        split = urlsplit(url)
        path = split.path.removeprefix(SUBSCRIPTION)
        self.requests.append((method, path, json.loads(body) if body else None))
        if path == "/operation":
            self.polls += 1
            return Answer(200, {"status": "InProgress"} if self.polls % 2 else self.outcome, {"Retry-After": "0"})
        if path == "/resources":
            kind, name = (part.split("'")[1] for part in parse_qs(split.query)["$filter"][0].split(" and "))
            ids = [SUBSCRIPTION + path for path in self.resources if path.endswith(f"/{kind}/{name}")]
            return Answer(200, {"value": [{"id": one} for one in ids]})
        if method == "GET":
            if path in self.resources:
                return Answer(200, self.resources[path])
            raise HTTPError("Not Found", Answer(404))
        self.resources[path] = self.made(path, json.loads(body))
        headers = {"Azure-AsyncOperation": f"https://management.azure.com{SUBSCRIPTION}/operation?t=1", "Retry-After": "0"}
        return Answer(201, {}) if path.count("/") == 2 else Answer(202, {}, headers)

    def made(self, path, body):
        known = self.resources.get(path, {"properties": {}})
        properties = {**known["properties"], **body.get("properties", {})}
        if "/servers/" in path and path.count("/") == 6:
            properties["fullyQualifiedDomainName"] = f"{path.rsplit('/')[-1]}.postgres.database.azure.com"
        return {**body, "properties": properties}

    def changes(self):
        return [(method, path) for method, path, _ in self.requests if method != "GET"]


def up(manager, defaults=None, address="10.0.0.9", **arguments):
    config = types.SimpleNamespace(get=lambda section, name, fallback: defaults)
    cmd = types.SimpleNamespace(cli_ctx=types.SimpleNamespace(config=config))
    with mock.patch.object(arm, "send_raw_request", manager), mock.patch.object(
        arm, "get_subscription_id", lambda _: SUBSCRIPTION.split("/")[2]
    ), mock.patch.object(custom, "own_address", lambda _: address):
        return custom.up(cmd, **arguments)


AS_WRITTEN = {
    "server_name": "postgres-1", "database_name": "arc_hack", "admin_user": "arcadmin", "location": "uksouth",
}


class Up(unittest.TestCase):
    def test_the_text_s_command_in_the_recorded_order(self):
        manager = Manager(**{"/resourceGroups/arc-hack": {}})
        made = up(manager, defaults="arc-hack", admin_password="Awesome-Antelope!", **AS_WRITTEN)
        self.assertEqual(
            manager.changes(),
            [
                ("PUT", SERVER),
                ("PUT", f"{SERVER}/databases/arc_hack"),
                ("PUT", f"{SERVER}/firewallRules/devbox"),
                ("PUT", f"{SERVER}/firewallRules/azure-access"),
            ],
        )
        body = next(body for method, path, body in manager.requests if (method, path) == ("PUT", SERVER))
        self.assertEqual(
            body,
            {
                "sku": {"name": "GP_Gen5_2"},
                "properties": {
                    "version": "10", "sslEnforcement": "Enabled", "storageProfile": {"geoRedundantBackup": "Disabled"},
                    "createMode": "Default", "administratorLogin": "arcadmin",
                    "administratorLoginPassword": "Awesome-Antelope!",
                },
                "location": "uksouth",
            },
        )
        rules = manager.resources[f"{SERVER}/firewallRules/devbox"]["properties"]
        self.assertEqual(rules, {"startIpAddress": "10.0.0.9", "endIpAddress": "10.0.0.9"})
        self.assertEqual(made["host"], "postgres-1.postgres.database.azure.com")
        self.assertEqual((made["username"], made["password"]), ("arcadmin@postgres-1", "Awesome-Antelope!"))
        self.assertIn("psql_cmd", made["connectionStrings"])

    def test_without_any_group_one_is_made(self):
        manager = Manager()
        up(manager, admin_password="p", **AS_WRITTEN)
        method, path = manager.changes()[0]
        self.assertEqual(method, "PUT")
        self.assertRegex(path, r"^/resourceGroups/group\d{9}$")
        self.assertIn(f"{path}{SERVER[len('/resourceGroups/arc-hack'):]}", manager.resources)

    def test_a_second_time_finds_the_server_and_changes_its_password_only(self):
        manager = Manager()
        up(manager, admin_password="p", **AS_WRITTEN)
        before, manager.requests = set(manager.resources), []
        again = up(manager, admin_password="q", **AS_WRITTEN)
        self.assertEqual(set(manager.resources), before)
        self.assertEqual([method for method, _ in manager.changes()], ["PATCH", "PUT", "PUT"])
        self.assertEqual(again["password"], "q")

    def test_an_existing_server_keeps_a_password_that_is_not_named(self):
        manager = Manager()
        up(manager, admin_password="p", **AS_WRITTEN)
        manager.requests = []
        found = up(manager, server_name="postgres-1", database_name="arc_hack")
        self.assertNotIn("PATCH", [method for method, _ in manager.changes()])
        self.assertEqual((found["username"], found["password"]), ("arcadmin@postgres-1", "{password}"))

    def test_a_new_server_without_a_password_gets_one(self):
        manager = Manager()
        made = up(manager, **AS_WRITTEN)
        self.assertRegex(made["password"], r"^(?=.*[a-z])(?=.*[A-Z])(?=.*\d)[a-zA-Z0-9]{22}$")
        self.assertNotEqual(made["password"], up(Manager(), **AS_WRITTEN)["password"])

    def test_refusals(self):
        manager = Manager()
        up(manager, admin_password="p", **AS_WRITTEN)
        with self.assertRaisesRegex(InvalidArgumentValueError, "'arcadmin'"):
            up(manager, server_name="postgres-1", admin_user="other")
        with self.assertRaises(InvalidArgumentValueError):
            up(Manager(), admin_password="p", generate_password=True)
        manager = Manager(**{"/resourceGroups/arc-hack": {}})
        manager.outcome = {"status": "Failed", "error": {"code": "PasswordNotComplex", "message": "Too simple."}}
        with self.assertRaisesRegex(AzureResponseError, "PasswordNotComplex: Too simple."):
            up(manager, resource_group_name="arc-hack", admin_password="p", **AS_WRITTEN)
        self.assertEqual(manager.changes(), [("PUT", SERVER)])

    def test_only_what_is_not_found_is_taken_for_absent(self):
        def refuse(*_, **__):
            raise HTTPError("Forbidden", Answer(403))

        with self.assertRaises(HTTPError):
            up(refuse, admin_password="p", **AS_WRITTEN)

    def test_an_address_that_is_not_known_makes_no_rule(self):
        manager = Manager()
        up(manager, address=None, admin_password="p", **AS_WRITTEN)
        self.assertEqual([path.split("/")[-1] for _, path in manager.changes()][-2:], ["arc_hack", "azure-access"])


class Address(unittest.TestCase):
    def test_it_is_the_one_the_server_sees(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            with mock.patch.object(custom, "PORT", server.getsockname()[1]), mock.patch.dict(
                os.environ, {"PGHOSTADDR": "127.0.0.1"}
            ):
                self.assertEqual(custom.own_address("postgres-1.invalid"), "127.0.0.1")
            port = server.getsockname()[1]
        with mock.patch.object(custom, "PORT", port), mock.patch.dict(os.environ, {"PGHOSTADDR": "127.0.0.1"}):
            self.assertIsNone(custom.own_address("postgres-1.invalid"))


HOST, USER = "postgres-1.postgres.database.azure.com", "arcadmin@postgres-1"

# Says what psql would be given.
FAKE_PSQL = "import json,os,sys;print(json.dumps([os.environ.get('PGPASSWORD'),os.environ.get('PGSSLMODE'),sys.argv[1:]]))"


def run(script, command):
    """Runs the command with a psql that tells its arguments."""
    define = f"psql_cmd={shlex.quote(command)}\n"
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "psql")
        with open(path, "w", encoding="utf-8") as out:
            out.write(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(FAKE_PSQL)} \"$@\"\n")
        os.chmod(path, 0o755)
        env = {"PATH": f"{folder}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-c", define + script], env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


class Strings(unittest.TestCase):
    def test_psql_cmd_runs_unquoted_and_as_typed(self):
        command = strings.psql_command(HOST, "arc_hack", USER, "Awesome-Antelope!")
        wanted = [
            "Awesome-Antelope!", "require",
            [f"--host={HOST}", "--port=5432", f"--username={USER}", "--dbname=arc_hack"],
        ]
        self.assertEqual(run("$psql_cmd", command), wanted)
        self.assertEqual(run(command, command), wanted)

    def test_passwords_that_a_shell_would_change(self):
        for password in ("two words", "a*b?[c]", "it's", 'quo"te', "$HOME", "back\\slash", "a!b", "a;b&c|d", "ä%41#/@:", "~", "a{b,c}1A", "x{1..3}Y", ""):
            secret, _, arguments = run("$psql_cmd", strings.psql_command(HOST, "arc_hack", USER, password))
            self.assertIsNone(secret)
            found = urlsplit(arguments[0])
            self.assertEqual(unquote(found.password), password)
            self.assertEqual((unquote(found.username), found.hostname, found.port), (USER, HOST, 5432))
            self.assertEqual((found.path, found.query), ("/arc_hack", "sslmode=require"))

    def test_without_a_password_psql_asks(self):
        command = strings.psql_command(HOST, "arc_hack", USER, None)
        self.assertEqual(command, f"psql --host={HOST} --port=5432 --username={USER} --dbname=arc_hack")

    def test_every_client_has_a_string(self):
        made = strings.connection_strings(HOST, "arc_hack", USER, "it's")
        self.assertEqual(
            sorted(made), sorted(["C++ (libpq)", "ado.net", "jdbc", "node.js", "php", "psql_cmd", "python", "ruby", "webapp"])
        )
        self.assertIn("password='it\\'s'", made["python"])
        self.assertIn("user=arcadmin%40postgres-1&password=it%27s&", made["jdbc"])
        unknown = strings.connection_strings(HOST, "arc_hack", USER, None)
        self.assertIn("password={password}", unknown["jdbc"])

    def test_show_makes_no_request(self):
        suffixes = types.SimpleNamespace(postgresql_server_endpoint=".postgres.database.azure.com")
        cmd = types.SimpleNamespace(cli_ctx=types.SimpleNamespace(cloud=types.SimpleNamespace(suffixes=suffixes)))
        shown = custom.show_connection_string(cmd, "postgres-1", "arc_hack", "arcadmin", "Awesome-Antelope!")
        self.assertEqual(
            shown["connectionStrings"], strings.connection_strings(HOST, "arc_hack", USER, "Awesome-Antelope!")
        )


if __name__ == "__main__":
    unittest.main()
