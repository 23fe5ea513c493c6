"""The API client of the commands: address, connection, answers and errors."""

from collections.abc import Callable
from typing import Any

import httpx

from services.access.client import bearer, own_bearer
from services.access.mode import read_keys
from services.addresses import http_address
from services.errors import BackendUnavailable, InvalidInput
from services.settings import Settings
from services.web.answers import checked_address, path_part, read_answer, read_text


def api_address(settings: Settings, given: str | None) -> str:
    """Return the address of --api, or else of the settings, without a trailing slash."""
    return (given or http_address(settings.api_host, settings.api_port)).rstrip("/")


def index_path(index: str) -> str:
    """Return the escaped path of an index. Raises InvalidInput (`not_utf8`, `invalid_request`)."""
    return f"/v1/indexes/{path_part(index, 'The name of the index')}"


def connect(base: str, timeout: float | httpx.Timeout) -> httpx.Client:
    """Return a client of the API, with SPARSEWELL_API_KEY if it is set and without a proxy. Raises `bad_address`."""
    return httpx.Client(base_url=checked_address(base), timeout=timeout, trust_env=False, headers=own_bearer())


def admin_headers(settings: Settings) -> dict[str, str]:
    """Return headers with SPARSEWELL_API_KEY, or else with the key of SPARSEWELL_ADMIN_KEY_FILE."""
    own = own_bearer()
    return own or bearer(next(iter(read_keys(settings.admin_key_file, "SPARSEWELL_ADMIN_KEY_FILE")), ""))


def away(base: str, error: Exception) -> BackendUnavailable:
    """Return the error for an API that does not answer."""
    return BackendUnavailable(
        "api_unavailable",
        f"No API answers at {base} ({type(error).__name__}): start it with `sparsewell up`, or use --api.",
    )


class Door:
    """A resource of an index in the API. Raises SparsewellError with the code and detail of the API."""

    def __init__(self, api_url: str | None, index: str, name: str) -> None:
        self._base = api_address(Settings.read(), api_url)
        self._path = f"{index_path(index)}/{name}"

    def ask(
        self,
        method: str,
        below: str = "",
        parameters: dict[str, Any] | None = None,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send a request and return the JSON answer."""
        return read_answer(self._send(method, below, params=parameters, json=body, headers=headers))

    def ask_file(self, below: str, parameters: dict[str, Any]) -> str:
        """Return the text of a file that the API makes."""
        return read_text(self._send("GET", below, params=parameters))

    def _send(self, method: str, below: str, **sent: Any) -> httpx.Response:
        with connect(self._base, timeout=60) as client:
            try:
                return client.request(method, self._path + below, **sent)
            except httpx.HTTPError as error:
                raise away(self._base, error) from None


def bulk_answer(send: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the answer to documents, with `accepted` and `rejected`, also if all documents were refused."""
    try:
        return send()
    except InvalidInput as error:
        if error.code != "no_document_accepted":
            raise
        return {"accepted": [], "rejected": error.extra.get("rejected", [])}
