"""The command: az's own, with the two arguments as they were."""

import functools
import inspect

from azure.cli.command_modules.role.custom import create_role_assignment as builtin
from azure.cli.core.azclierror import MutuallyExclusiveArgumentError
from azure.cli.core.commands.client_factory import get_subscription_id


def scope_of(subscription, scope, group):
    """The scope that the arguments name."""
    if scope and group:
        raise MutuallyExclusiveArgumentError("--scope names the resource group already; leave --resource-group out.")
    return scope or f"/subscriptions/{subscription}" + (f"/resourceGroups/{group}" if group else "")


def widened(function):
    """The function with an optional scope and a resource group; what else it takes, it takes as before."""

    @functools.wraps(function)
    def wrapper(cmd, scope=None, resource_group_name=None, **others):
        if not scope or resource_group_name:
            scope = scope_of(get_subscription_id(cmd.cli_ctx), scope, resource_group_name)
        return function(cmd, scope=scope, **others)

    signature = inspect.signature(function)
    kept = [parameter for name, parameter in signature.parameters.items() if name != "scope"]
    optional = functools.partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY, default=None)
    wrapper.__signature__ = signature.replace(parameters=[*kept, optional("scope"), optional("resource_group_name")])
    return wrapper


create_role_assignment = widened(builtin)
