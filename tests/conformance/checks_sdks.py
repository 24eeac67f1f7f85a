"""The Azure SDKs for Python and JavaScript, unmodified: on the machine with its identity, and on the workstation
with a service principal."""

import os

from checks_machine import MACHINE
from checks_vaults import VAULT
from harness import check, outcomes

CLIENTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "clients")
VARIABLES = {"VAULT_URL": f"https://{VAULT}.vault.azure.net", "SECRET_NAME": "s", "SECRET_VALUE": "mine"}


def words(world, more=None):
    return [f"{name}={value}" for name, value in {**VARIABLES, **(more or {})}.items()]


def python(world, script, *arguments):
    return [world.sdk_python, os.path.join(CLIENTS, script), *arguments]


def node(world, script, *arguments):
    if not world.node_modules:
        raise AssertionError("ARCADIA_NODE_MODULES does not say where the packages are; `cargo xtask ci` sets it")
    # Modules are looked for from the script upwards, so it stands beside them.
    folder = os.path.join(os.path.dirname(world.node_modules), "conformance")
    os.makedirs(folder, exist_ok=True)
    target = os.path.join(folder, script)
    with open(os.path.join(CLIENTS, script), encoding="utf-8") as source, open(target, "w", encoding="utf-8") as out:
        out.write(source.read())
    return ["node", target, *arguments]


def on_machine(world, command):
    return world.on_machine(MACHINE, "env", *words(world), *command)


@check("Python ManagedIdentityCredential on the machine")
def python_identity(world):
    return outcomes(on_machine(world, python(world, "identity.py")), 4)


@check("Python ManagedIdentityCredential on the machine, asynchronous")
def python_identity_async(world):
    return outcomes(on_machine(world, python(world, "identity_async.py")), 3)


@check("Python ManagedIdentityCredential as an ordinary user of the machine")
def python_identity_ordinary(world):
    return outcomes(on_machine(world, python(world, "identity.py", "--refused")), 1)


@check("Python ClientSecretCredential")
def python_secret(world):
    # This service principal is Owner and has no data role until now.
    world.run_az(
        "role", "assignment", "create", "--assignee", world.client, "--scope", world.vault_id,
        "--role", "Key Vault Secrets Officer",
    ).ok()
    return outcomes(world.run(python(world, "vault_secrets.py"), env=VARIABLES), 12)


@check("Python ClientSecretCredential, asynchronous")
def python_secret_async(world):
    return outcomes(world.run(python(world, "vault_secrets_async.py"), env=VARIABLES), 3)


@check("Python UsernamePassword, device code and refused credentials")
def python_people(world):
    return outcomes(world.run(python(world, "people.py"), env=VARIABLES), 3)


@check("JavaScript ManagedIdentityCredential on the machine")
def javascript_identity(world):
    return outcomes(on_machine(world, node(world, "identity.mjs")), 3)


@check("JavaScript ClientSecretCredential")
def javascript_secret(world):
    return outcomes(world.run(node(world, "vault_secrets.mjs"), env=VARIABLES), 8)
