"""A cloud of its own names: the authority is given in the code, or in AZURE_AUTHORITY_HOST."""

import os
import warnings

warnings.filterwarnings("ignore")

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError  # noqa: E402
from azure.identity import ClientSecretCredential, EnvironmentCredential, UsernamePasswordCredential  # noqa: E402
from azure.keyvault.secrets import SecretClient  # noqa: E402

from outcome import attempt, end, equal  # noqa: E402

URL, NAME, VALUE = os.environ["VAULT_URL"], os.environ["SECRET_NAME"], os.environ["SECRET_VALUE"]
TENANT, CLIENT, SECRET = (os.environ[f"AZURE_{name}"] for name in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET"))
USER, PASSWORD = os.environ["ARCADIA_USER"], os.environ["ARCADIA_PASSWORD"]
AUTHORITY = os.environ.pop("AZURE_AUTHORITY_HOST")
AZ = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"


def read(credential):
    # The challenge's resource is verified by the client: its host must be a parent of the vault's.
    with SecretClient(URL, credential) as client:
        equal(client.get_secret(NAME).value, VALUE)


def given():
    read(ClientSecretCredential(TENANT, CLIENT, SECRET, authority=AUTHORITY, disable_instance_discovery=True))


def person():
    read(UsernamePasswordCredential(
        AZ, USER, PASSWORD, tenant_id=TENANT, authority=AUTHORITY, disable_instance_discovery=True
    ))


def environment():
    os.environ["AZURE_AUTHORITY_HOST"] = AUTHORITY
    try:
        read(EnvironmentCredential(disable_instance_discovery=True))
    finally:
        del os.environ["AZURE_AUTHORITY_HOST"]


def public_cloud():
    try:
        ClientSecretCredential(TENANT, CLIENT, SECRET, connection_timeout=5, retry_total=0).get_token(
            "https://vault.azure.net/.default"
        )
    except ClientAuthenticationError:
        return
    raise AssertionError("the public cloud's names gave a token")


def other_audience():
    class Fixed:
        def get_token(self, *_, **__):
            credential = ClientSecretCredential(
                TENANT, CLIENT, SECRET, authority=AUTHORITY, disable_instance_discovery=True
            )
            return credential.get_token(f"{AUTHORITY.replace('login', 'management')}/.default")

    with SecretClient(URL, Fixed()) as client:
        try:
            client.get_secret(NAME)
        except HttpResponseError as error:
            equal((error.status_code, "AKV10022" in str(error)), (401, True))
            return
    raise AssertionError("a token for ARM opened the vault")


attempt("an authority in the code", given)
attempt("a user name and password", person)
attempt("an authority in the environment", environment)
attempt("the public cloud's names lead nowhere", public_cloud)
attempt("a token for another audience", other_audience)
end()
