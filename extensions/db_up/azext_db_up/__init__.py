"""`az postgres up` and `az postgres show-connection-string`, for single servers (api-version 2017-12-01).

`custom` holds the commands, `arm` the requests, `strings` the connection strings.
"""

from azure.cli.core import AzCommandsLoader
from knack.help_files import helps

helps["postgres up"] = """
type: command
short-summary: Make a PostgreSQL server, a database and its firewall rules; what exists already is kept.
long-summary: >
  Without --resource-group, the group of an existing server of that name is used, else the default group of
  `az configure --defaults group=NAME`, else a new group. Without --admin-password, an existing server keeps its
  password and a new one gets a generated password, which is printed.
examples:
  - name: Make a server and a database.
    text: >
        az postgres up --server-name postgres-1 --database-name app --admin-user arcadmin --admin-password PASSWORD
        --location uksouth
"""

helps["postgres show-connection-string"] = """
type: command
short-summary: Show the connection strings of a PostgreSQL server. No request is made.
examples:
  - name: The command that connects with psql.
    text: >
        az postgres show-connection-string -s postgres-1 -d app -u arcadmin -p PASSWORD
        --query connectionStrings.psql_cmd -o tsv
"""


class DbUpCommandsLoader(AzCommandsLoader):
    def __init__(self, cli_ctx=None):
        from azure.cli.core.commands import CliCommandType

        super().__init__(cli_ctx=cli_ctx, custom_command_type=CliCommandType(operations_tmpl="azext_db_up.custom#{}"))

    def load_command_table(self, args):
        with self.command_group("postgres") as group:
            group.custom_command("up", "up")
            group.custom_command("show-connection-string", "show_connection_string")
        return self.command_table

    def load_arguments(self, command):
        from azure.cli.core.commands.parameters import get_enum_type, get_three_state_flag, tags_type

        for name in ("postgres up", "postgres show-connection-string"):
            with self.argument_context(name) as context:
                context.argument("server_name", options_list=["--server-name", "-s"], help="Name of the server.")
                context.argument("database_name", options_list=["--database-name", "-d"], help="Name of the database.")
                context.argument("admin_user", options_list=["--admin-user", "-u"], help="The administrator's login.")
                context.argument("admin_password", options_list=["--admin-password", "-p"], help="The password.")
        with self.argument_context("postgres up") as context:
            context.argument("resource_group_name", options_list=["--resource-group", "-g"])
            context.argument("location", options_list=["--location", "-l"], help="Where a new server is made.")
            context.argument("generate_password", arg_type=get_three_state_flag(), help="Set a generated password.")
            context.argument("sku_name", help="{tier}_{family}_{vCores}, such as B_Gen5_1 or GP_Gen5_2.")
            context.argument("ssl_enforcement", arg_type=get_enum_type(["Enabled", "Disabled"]))
            context.argument("geo_redundant_backup", arg_type=get_enum_type(["Enabled", "Disabled"]))
            context.argument("version", options_list=["--version", "-v"], help="PostgreSQL's major version.")
            context.argument("storage_mb", options_list=["--storage-size"], type=int, help="In megabytes.")
            context.argument("backup_retention", type=int, help="In days.")
            context.argument("tags", arg_type=tags_type)


COMMAND_LOADER_CLS = DbUpCommandsLoader
