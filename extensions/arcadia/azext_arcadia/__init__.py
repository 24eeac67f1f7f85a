"""`az role assignment create` with --resource-group, and with --scope left out, as it was in 2021.

Everything else about the command is what the installed az makes of it: `custom` calls az's own function, and its
arguments and checks are taken over here.
"""

from azure.cli.core import AzCommandsLoader
from knack.help_files import helps

helps["role assignment create"] = """
type: command
short-summary: Create a role assignment for a user, group, or service principal.
long-summary: >
  With --resource-group, for a resource group of the current subscription. With neither --scope nor
  --resource-group, for the whole subscription.
examples:
  - name: Give a role in a resource group.
    text: az role assignment create --assignee USER --resource-group arc-hack --role Reader
"""


class ArcadiaCommandsLoader(AzCommandsLoader):
    def __init__(self, cli_ctx=None):
        from azure.cli.core.commands import CliCommandType

        commands = CliCommandType(operations_tmpl="azext_arcadia.custom#{}")
        super().__init__(cli_ctx=cli_ctx, custom_command_type=commands)

    def load_command_table(self, args):
        from azure.cli.command_modules.role._validators import process_assignment_namespace

        with self.command_group("role assignment") as group:
            group.custom_command("create", "create_role_assignment", validator=process_assignment_namespace)
        return self.command_table

    def load_arguments(self, command):
        from azure.cli.command_modules.role._params import load_arguments

        load_arguments(self, command)


COMMAND_LOADER_CLS = ArcadiaCommandsLoader
