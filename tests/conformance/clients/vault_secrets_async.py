"""ClientSecretCredential and secrets, asynchronous."""

import asyncio
import os

from azure.core.exceptions import ResourceNotFoundError
from azure.identity.aio import ClientSecretCredential
from azure.keyvault.secrets.aio import SecretClient

from outcome import attempt_async, end, equal

URL = os.environ["VAULT_URL"]
TENANT, CLIENT, SECRET = (os.environ[f"AZURE_{name}"] for name in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET"))


async def set_and_get(client):
    await client.set_secret("async", "one")
    equal((await client.get_secret("async")).value, "one")


async def at_once(client):
    names = [f"async-{number}" for number in range(20)]
    await asyncio.gather(*(client.set_secret(name, name) for name in names))
    found = await asyncio.gather(*(client.get_secret(name) for name in names))
    equal([secret.value for secret in found], names)


async def deletion(client):
    await client.delete_secret("async")
    await client.purge_deleted_secret("async")
    try:
        await client.get_secret("async")
    except ResourceNotFoundError:
        return
    raise AssertionError("a deleted secret was read")


async def main():
    async with ClientSecretCredential(TENANT, CLIENT, SECRET) as credential, SecretClient(URL, credential) as client:
        await attempt_async("set and get", set_and_get(client))
        await attempt_async("twenty at once", at_once(client))
        await attempt_async("delete and purge", deletion(client))


asyncio.run(main())
end()
