"""The widened command."""

import inspect
import types
import unittest
from unittest import mock

from azure.cli.core.azclierror import MutuallyExclusiveArgumentError

from azext_arcadia import custom

CMD = types.SimpleNamespace(cli_ctx=None)


def plain(cmd, role, scope, assignee=None, assignment_name=None):
    return (role, scope, assignee, assignment_name)


class Widened(unittest.TestCase):
    def setUp(self):
        patch = mock.patch.object(custom, "get_subscription_id", lambda _: "s")
        patch.start()
        self.addCleanup(patch.stop)
        self.command = custom.widened(plain)

    def test_scopes(self):
        self.assertEqual(self.command(CMD, role="R", scope="/x", assignee="a"), ("R", "/x", "a", None))
        in_group = self.command(CMD, role="R", resource_group_name="arc-hack", assignee="a")
        self.assertEqual(in_group[1], "/subscriptions/s/resourceGroups/arc-hack")
        self.assertEqual(self.command(CMD, role="R", assignment_name="n"), ("R", "/subscriptions/s", None, "n"))
        with self.assertRaises(MutuallyExclusiveArgumentError):
            self.command(CMD, role="R", scope="/x", resource_group_name="arc-hack")

    def test_the_arguments_are_those_of_the_installed_az_and_two_optional_ones(self):
        mine = inspect.signature(custom.create_role_assignment).parameters
        its = inspect.signature(custom.builtin).parameters
        self.assertEqual(set(mine), set(its) | {"resource_group_name"})
        self.assertIsNone(mine["scope"].default)
        self.assertIs(mine["role"].default, inspect.Parameter.empty)


if __name__ == "__main__":
    unittest.main()
