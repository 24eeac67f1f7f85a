"""`az connectedmachine show`, `list` and `delete`."""

from azure.cli.core import AzCommandsLoader
from knack.help_files import helps

helps["connectedmachine"] = """
type: group
short-summary: Manage connected machines.
"""
helps["connectedmachine show"] = """
type: command
short-summary: Show a connected machine and its identity.
examples:
  - name: The object id of the machine's identity.
    text: az connectedmachine show --name ubuntu-01 --resource-group arc-hack --query identity.principalId --output tsv
"""
helps["connectedmachine list"] = """
type: command
short-summary: List the connected machines of a group, or of the subscription.
"""
helps["connectedmachine delete"] = """
type: command
short-summary: Delete a connected machine and its identity.
"""


class MachineCommandsLoader(AzCommandsLoader):
    def __init__(self, cli_ctx=None):
        from azure.cli.core.commands import CliCommandType

        commands = CliCommandType(operations_tmpl="azext_connectedmachine.custom#{}")
        super().__init__(cli_ctx=cli_ctx, custom_command_type=commands)

    def load_command_table(self, args):
        with self.command_group("connectedmachine") as group:
            group.custom_show_command("show", "show")
            group.custom_command("list", "list_machines")
            group.custom_command("delete", "delete", confirmation=True)
        return self.command_table

    def load_arguments(self, command):
        with self.argument_context("connectedmachine") as context:
            names = ["--name", "-n", "--machine-name"]
            context.argument("machine_name", options_list=names, help="Name of the machine.")


COMMAND_LOADER_CLS = MachineCommandsLoader
