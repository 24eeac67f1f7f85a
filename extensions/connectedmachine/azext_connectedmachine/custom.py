"""The commands. Requests are sent by az itself: its login, its proxy, its certificates, its cloud."""

from azure.cli.core.azclierror import HTTPError, ResourceNotFoundError
from azure.cli.core.commands.client_factory import get_subscription_id
from azure.cli.core.util import send_raw_request

API_VERSION = "2024-07-31-preview"
PROVIDER = "/providers/Microsoft.HybridCompute/machines"
PAGES_MAX = 1000


def show(cmd, resource_group_name, machine_name):
    try:
        return flat(send_raw_request(cmd.cli_ctx, "GET", address(cmd, resource_group_name, machine_name)).json())
    except HTTPError as error:
        if error.response.status_code != 404:
            raise
        message = (error.response.json().get("error") or {}).get("message")
        message = message or f"There is no machine '{machine_name}' in '{resource_group_name}'."
        raise ResourceNotFoundError(message) from error


def list_machines(cmd, resource_group_name=None):
    found, url = [], address(cmd, resource_group_name)
    for _ in range(PAGES_MAX):
        page = send_raw_request(cmd.cli_ctx, "GET", url).json()
        found += [flat(machine) for machine in page["value"]]
        url = page.get("nextLink")
        if not url:
            break
    return found


def delete(cmd, resource_group_name, machine_name):
    send_raw_request(cmd.cli_ctx, "DELETE", address(cmd, resource_group_name, machine_name))


def address(cmd, group, name=None):
    within = f"/resourceGroups/{group}" if group else ""
    which = f"/{name}" if name else ""
    return f"/subscriptions/{get_subscription_id(cmd.cli_ctx)}{within}{PROVIDER}{which}?api-version={API_VERSION}"


def flat(machine):
    """A machine as az shows it: what is in `properties` beside the rest, and the group by its name."""
    rest = {name: value for name, value in machine.items() if name != "properties"}
    return {**machine.get("properties", {}), **rest, "resourceGroup": machine["id"].split("/")[4]}
