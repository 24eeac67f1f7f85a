"""Credentials of people, and environment credentials."""

import os
import warnings

warnings.filterwarnings("ignore")

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError  # noqa: E402
from azure.core.pipeline.transport import RequestsTransport  # noqa: E402
from azure.identity import EnvironmentCredential, UsernamePasswordCredential  # noqa: E402
from azure.keyvault.secrets import SecretClient  # noqa: E402

from outcome import attempt, end, equal  # noqa: E402

URL, NAME, VALUE = os.environ["VAULT_URL"], os.environ["SECRET_NAME"], os.environ["SECRET_VALUE"]
USER, PASSWORD, TENANT = os.environ["ARCADIA_USER"], os.environ["ARCADIA_PASSWORD"], os.environ["AZURE_TENANT_ID"]
AZ = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"


def read(credential):
    with SecretClient(URL, credential) as client:
        equal(client.get_secret(NAME).value, VALUE)


class Counted(RequestsTransport):
    """Counts the tokens that are asked for, with those that azure-core asks for again by itself."""

    asked = 0

    def send(self, request, **options):
        self.asked += request.method == "POST"
        return super().send(request, **options)


def wrong_password():
    transport = Counted()
    credential = UsernamePasswordCredential(AZ, USER, "wrong", tenant_id=TENANT, transport=transport)
    try:
        credential.get_token("https://vault.azure.net/.default")
    except ClientAuthenticationError as error:
        equal(("AADSTS50126" in str(error), transport.asked), (True, 1))
        return
    raise AssertionError("a wrong password got a token")


def wrong_audience():
    class Fixed:
        def get_token(self, *_, **__):
            return EnvironmentCredential().get_token("https://management.azure.com/.default")

    with SecretClient(URL, Fixed()) as client:
        try:
            client.get_secret(NAME)
        except HttpResponseError as error:
            equal((error.status_code, "AKV10022" in str(error)), (401, True))
            return
    raise AssertionError("a token for ARM opened the vault")


attempt("a user name and password read", lambda: read(UsernamePasswordCredential(AZ, USER, PASSWORD, tenant_id=TENANT)))
attempt("the environment's service principal reads", lambda: read(EnvironmentCredential()))
attempt("a wrong password", wrong_password)
attempt("a token for another audience", wrong_audience)
end()
