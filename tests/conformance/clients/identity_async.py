"""The same as identity.py with the asynchronous clients, which take their roots and proxy elsewhere."""

import asyncio
import os

from azure.core.exceptions import HttpResponseError
from azure.identity.aio import ManagedIdentityCredential
from azure.keyvault.secrets.aio import SecretClient

from outcome import attempt_async, end, equal

URL, NAME, VALUE = os.environ["VAULT_URL"], os.environ["SECRET_NAME"], os.environ["SECRET_VALUE"]


async def token(credential):
    found = await credential.get_token("https://management.azure.com/.default")
    equal(len(found.token.split(".")), 3)


async def read(client):
    equal((await client.get_secret(NAME)).value, VALUE)


async def forbidden(client):
    try:
        await client.set_secret(NAME, "x")
    except HttpResponseError as error:
        equal(error.status_code, 403)
        return
    raise AssertionError("a reader wrote")


async def main():
    async with ManagedIdentityCredential() as credential, SecretClient(URL, credential) as client:
        await attempt_async("gets a token for ARM", token(credential))
        await attempt_async("reads the secret", read(client))
        await attempt_async("may not write", forbidden(client))


asyncio.run(main())
end()
