"""The commands against a resource manager in memory."""

import types
import unittest
from unittest import mock

from azure.cli.core.azclierror import HTTPError, ResourceNotFoundError

from azext_connectedmachine import custom

ROOT = "/subscriptions/00000000-0000-0000-0000-00000000000a"
MACHINE = {
    "id": f"{ROOT}/resourceGroups/arc-hack/providers/Microsoft.HybridCompute/machines/ubuntu-01",
    "name": "ubuntu-01",
    "type": "Microsoft.HybridCompute/machines",
    "location": "uksouth",
    "identity": {"type": "SystemAssigned", "principalId": "p"},
    "properties": {"status": "Connected", "osName": "linux"},
}
VERSION = "?api-version=2024-07-31-preview"


def answer(body, status=200):
    return types.SimpleNamespace(json=lambda: body, status_code=status, text="{}")


class Commands(unittest.TestCase):
    def setUp(self):
        self.requests, self.answers = [], []

        def send(_, method, url):
            self.requests.append((method, url))
            outcome = self.answers.pop(0)
            if outcome.status_code >= 400:
                raise HTTPError("refused", outcome)
            return outcome

        for target, value in (("send_raw_request", send), ("get_subscription_id", lambda _: ROOT.split("/")[2])):
            patch = mock.patch.object(custom, target, value)
            patch.start()
            self.addCleanup(patch.stop)
        self.cmd = types.SimpleNamespace(cli_ctx=None)

    def test_show_has_identity_and_properties_side_by_side(self):
        self.answers = [answer(MACHINE)]
        shown = custom.show(self.cmd, "arc-hack", "ubuntu-01")
        self.assertEqual((shown["identity"]["principalId"], shown["status"]), ("p", "Connected"))
        self.assertEqual(shown["resourceGroup"], "arc-hack")
        self.assertNotIn("properties", shown)
        self.assertEqual(self.requests, [("GET", MACHINE["id"] + VERSION)])

    def test_a_machine_that_is_not_there(self):
        self.answers = [answer({"error": {"code": "ResourceNotFound", "message": "The Resource was not found."}}, 404)]
        with self.assertRaisesRegex(ResourceNotFoundError, "The Resource was not found."):
            custom.show(self.cmd, "arc-hack", "ubuntu-02")
        self.answers = [answer({"error": {"code": "AuthorizationFailed"}}, 403)]
        with self.assertRaises(HTTPError):
            custom.show(self.cmd, "arc-hack", "ubuntu-01")

    def test_list_reads_every_page(self):
        self.answers = [answer({"value": [MACHINE], "nextLink": "https://management.azure.com/next"}), answer({"value": [MACHINE]})]
        self.assertEqual([machine["name"] for machine in custom.list_machines(self.cmd)], ["ubuntu-01"] * 2)
        self.assertEqual(self.requests[0][1], f"{ROOT}/providers/Microsoft.HybridCompute/machines{VERSION}")
        self.assertEqual(self.requests[1][1], "https://management.azure.com/next")

    def test_list_of_a_group_and_delete(self):
        self.answers = [answer({"value": []}), answer(None, 204)]
        self.assertEqual(custom.list_machines(self.cmd, "arc-hack"), [])
        self.assertIn("/resourceGroups/arc-hack/providers/", self.requests[0][1])
        self.assertIsNone(custom.delete(self.cmd, "arc-hack", "ubuntu-01"))
        self.assertEqual(self.requests[1], ("DELETE", MACHINE["id"] + VERSION))


if __name__ == "__main__":
    unittest.main()
