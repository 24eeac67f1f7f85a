"""The commands."""

import os
import secrets
import socket
import string

from azure.cli.core.azclierror import InvalidArgumentValueError
from knack.log import get_logger

from azext_db_up.arm import POSTGRES_VERSION, RESOURCES_VERSION, Arm
from azext_db_up.strings import PORT, connection_strings

logger = get_logger(__name__)

KIND = "Microsoft.DBforPostgreSQL/servers"
CONNECT_SECONDS_MAX = 5


def up(
    cmd,
    server_name=None,
    database_name="sampledb",
    admin_user=None,
    admin_password=None,
    generate_password=False,
    resource_group_name=None,
    location="eastus",
    sku_name="GP_Gen5_2",
    version="10",
    ssl_enforcement="Enabled",
    geo_redundant_backup="Disabled",
    storage_mb=None,
    backup_retention=None,
    tags=None,
):
    if admin_password and generate_password:
        raise InvalidArgumentValueError("--admin-password and --generate-password exclude each other; give one.")
    arm = Arm(cmd.cli_ctx)
    server_name = server_name or unique("server")
    group = ensure_group(cmd, arm, resource_group_name, server_name, location)
    path = f"/resourceGroups/{group}/providers/{KIND}/{server_name}"
    server = arm.find(path, POSTGRES_VERSION)
    if generate_password or not (admin_password or server):
        admin_password = generated_password()
    if server is None:
        admin_user = admin_user or unique("user")
        storage = {"geoRedundantBackup": geo_redundant_backup}
        storage.update({"storageMB": storage_mb} if storage_mb else {})
        storage.update({"backupRetentionDays": backup_retention} if backup_retention else {})
        logger.warning("Creating PostgreSQL server '%s' in group '%s'...", server_name, group)
        body = {
            "sku": {"name": sku_name},
            "properties": {
                "version": version,
                "sslEnforcement": ssl_enforcement,
                "storageProfile": storage,
                "createMode": "Default",
                "administratorLogin": admin_user,
                "administratorLoginPassword": admin_password,
            },
            "location": location,
        }
        server = arm.write("PUT", path, POSTGRES_VERSION, {**body, "tags": tags} if tags else body)
    else:
        known = server["properties"]["administratorLogin"]
        if admin_user not in (None, known):
            raise InvalidArgumentValueError(
                f"The administrator of server '{server_name}' is '{known}', which cannot be changed; "
                "use another server name."
            )
        admin_user = known
        if admin_password:
            body = {"properties": {"administratorLoginPassword": admin_password}}
            server = arm.write("PATCH", path, POSTGRES_VERSION, body)
    if arm.find(f"{path}/databases/{database_name}", POSTGRES_VERSION) is None:
        logger.warning("Creating database '%s'...", database_name)
        arm.write("PUT", f"{path}/databases/{database_name}", POSTGRES_VERSION, {})
    host = server["properties"]["fullyQualifiedDomainName"]
    for rule, address in (("devbox", own_address(host)), ("azure-access", "0.0.0.0")):
        if address:
            body = {"properties": {"startIpAddress": address, "endIpAddress": address}}
            arm.write("PUT", f"{path}/firewallRules/{rule}", POSTGRES_VERSION, body)
    user = f"{admin_user}@{server_name}"
    return {
        "connectionStrings": connection_strings(host, database_name, user, admin_password),
        "host": host,
        "password": admin_password or "{password}",
        "username": user,
    }


def show_connection_string(
    cmd, server_name="{server}", database_name="{database}", admin_user="{login}", admin_password=None
):
    host = f"{server_name}{cmd.cli_ctx.cloud.suffixes.postgresql_server_endpoint}"
    return {"connectionStrings": connection_strings(host, database_name, f"{admin_user}@{server_name}", admin_password)}


def ensure_group(cmd, arm, named, server_name, location):
    """The group to use, made when it is not there."""
    default = cmd.cli_ctx.config.get("defaults", "group", fallback=None)
    if not named:
        server = arm.named(KIND, server_name)
        named = server["id"].split("/")[4] if server else default
    if named and arm.find(f"/resourceGroups/{named}", RESOURCES_VERSION) is not None:
        return named
    named = named or unique("group")
    logger.warning("Creating resource group '%s'...", named)
    arm.write("PUT", f"/resourceGroups/{named}", RESOURCES_VERSION, {"location": location})
    return named


def own_address(host):
    """The IPv4 address under which the server sees this computer; None when that cannot be found out."""
    try:
        # libpq connects to PGHOSTADDR in place of the address that the name has, and so does this.
        target = (os.environ.get("PGHOSTADDR") or host, PORT)
        with socket.create_connection(target, timeout=CONNECT_SECONDS_MAX) as connection:
            address = connection.getsockname()[0]
    except OSError as error:
        logger.warning("No firewall rule is made for this computer: %s cannot be reached: %s", host, error)
        return None
    return address if ":" not in address else None


def unique(prefix):
    return f"{prefix}{secrets.randbelow(10**9):09}"


def generated_password():
    """22 characters, of all three kinds that the service asks for."""
    drawn = [secrets.choice(string.ascii_letters + string.digits) for _ in range(19)]
    kinds = (string.ascii_lowercase, string.ascii_uppercase, string.digits)
    return "".join(drawn + [secrets.choice(kind) for kind in kinds])
