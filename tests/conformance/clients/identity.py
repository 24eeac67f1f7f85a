"""ManagedIdentityCredential and DefaultAzureCredential on a connected machine, synchronous."""

import os
import pwd
import sys

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.identity import DefaultAzureCredential, ManagedIdentityCredential
from azure.keyvault.secrets import SecretClient

from outcome import attempt, end, equal

URL, NAME, VALUE = os.environ["VAULT_URL"], os.environ["SECRET_NAME"], os.environ["SECRET_VALUE"]


def read(credential):
    with SecretClient(URL, credential) as client:
        equal(client.get_secret(NAME).value, VALUE)


def refused():
    # As root first, which works and loads everything that an ordinary user may not be able to read.
    ManagedIdentityCredential().get_token("https://vault.azure.net/.default")
    user = pwd.getpwnam("arcadmin")
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    try:
        ManagedIdentityCredential().get_token("https://vault.azure.net/.default")
    except (PermissionError, ClientAuthenticationError):
        return
    raise AssertionError("an ordinary user got a token")


def forbidden():
    with SecretClient(URL, ManagedIdentityCredential()) as client:
        try:
            client.set_secret(NAME, "x")
        except HttpResponseError as error:
            equal((error.status_code, error.error.code), (403, "Forbidden"))
            return
    raise AssertionError("a reader wrote")


def other_identity():
    credential = ManagedIdentityCredential(client_id="11111111-2222-3333-4444-555555555555")
    try:
        credential.get_token("https://vault.azure.net/.default")
    except ClientAuthenticationError as error:
        equal("dentity not found" in str(error) or "dentity" in str(error) and "not assigned" in str(error), True)
        return
    raise AssertionError("a token for an identity that is not this machine's")


if "--refused" in sys.argv:
    attempt("is refused the challenge file", refused)
else:
    attempt("reads the secret", lambda: read(ManagedIdentityCredential()))
    attempt("DefaultAzureCredential reads the secret", lambda: read(DefaultAzureCredential()))
    attempt("may not write", forbidden)
    attempt("an identity of another client id is refused", other_identity)
end()
