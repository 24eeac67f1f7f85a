"""Requests to the resource manager, sent by az itself: its login, its proxy, its certificates, its cloud."""

import json
import time

from azure.cli.core.azclierror import AzureResponseError, HTTPError
from azure.cli.core.commands.client_factory import get_subscription_id
from azure.cli.core.util import send_raw_request

POSTGRES_VERSION = "2017-12-01"
RESOURCES_VERSION = "2020-10-01"
OPERATION_SECONDS_MAX = 30 * 60
WAIT_SECONDS_MAX = 15


class Arm:
    """One subscription. Paths begin below it."""

    def __init__(self, cli_ctx):
        self.cli_ctx = cli_ctx
        self.root = f"/subscriptions/{get_subscription_id(cli_ctx)}"

    def find(self, path, version):
        """What is there; None when nothing is."""
        try:
            return self._send("GET", self._url(path, version)).json()
        except HTTPError as error:
            if error.response.status_code == 404:
                return None
            raise

    def write(self, method, path, version, body=None):
        """Sends a PUT or PATCH, waits for its end and gives what is there then."""
        url = self._url(path, version)
        answer = self._send(method, url, body)
        if answer.status_code == 202:
            self._wait(answer)
            answer = self._send("GET", url)
        return answer.json()

    def named(self, kind, name):
        """The resource of this kind and name anywhere in the subscription, or None."""
        query = f"/resources?$filter=resourceType eq '{kind}' and name eq '{name}'&api-version={RESOURCES_VERSION}"
        found = self._send("GET", self.root + query).json().get("value", [])
        return found[0] if found else None

    def _url(self, path, version):
        return f"{self.root}{path}?api-version={version}"

    def _send(self, method, url, body=None):
        return send_raw_request(self.cli_ctx, method, url, body=None if body is None else json.dumps(body))

    def _wait(self, answer):
        """Polls an operation that was accepted until it has ended; raises when it has failed."""
        deadline = time.monotonic() + OPERATION_SECONDS_MAX
        status_url, result_url = answer.headers.get("Azure-AsyncOperation"), answer.headers.get("Location")
        if not (status_url or result_url):
            raise AzureResponseError("The operation was accepted, and the answer does not say where to follow it.")
        wait = 0.5
        while time.monotonic() < deadline:
            # What the service asks for; without that, soon at first and then less often.
            wait = min(wait * 2, WAIT_SECONDS_MAX)
            asked = answer.headers.get("Retry-After", "")
            time.sleep(min(int(asked), WAIT_SECONDS_MAX) if asked.isdigit() else wait)
            answer = self._send("GET", status_url or result_url)
            if not status_url:
                if answer.status_code != 202:
                    return
                continue
            outcome = answer.json()
            if outcome["status"] == "Succeeded":
                return
            if outcome["status"] in ("Failed", "Canceled"):
                error = outcome.get("error") or {}
                code, message = error.get("code", outcome["status"]), error.get("message", "no reason given")
                raise AzureResponseError(f"{code}: {message}")
        raise AzureResponseError(f"The operation did not end within {OPERATION_SECONDS_MAX // 60} minutes.")
