"""What the commands share as clients of the API: the address, the connection, answers and errors."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx

from services.addresses import http_address
from services.errors import (
    BackendUnavailable,
    ConfigurationError,
    Conflict,
    InvalidInput,
    NotFound,
    Overloaded,
    SparsewellError,
)
from services.settings import Settings


def api_address(settings: Settings, given: str | None) -> str:
    """The address that was given with --api, else that of the settings, without a slash at the end."""
    return (given or http_address(settings.api_host, settings.api_port)).rstrip("/")


def index_path(index: str) -> str:
    """The path of an index, whatever its name holds. Raises InvalidInput (`not_utf8`)."""
    return f"/v1/indexes/{quote(utf8(index, '--index'), safe='')}"


def utf8(text: str, name: str) -> str:
    """The argument as it is. Raises InvalidInput (`not_utf8`) for what a terminal gave us that is no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput("not_utf8", f"{name} is not text in UTF-8.") from None
    return text


def connect(base: str, timeout: float | httpx.Timeout) -> httpx.Client:
    """A client of the API; a proxy that is set for the outside world does not come between. Raises `bad_address`."""
    try:
        url = httpx.URL(base)
    except httpx.InvalidURL as error:
        raise ConfigurationError("bad_address", f"{base} is not an address: {error}.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError("bad_address", f"{base} is not an http address.")
    if url.port is not None and not 0 < url.port <= 65535:
        raise ConfigurationError("bad_address", f"{base} is not an address: its port is not from 1 to 65535.")
    return httpx.Client(base_url=url, timeout=timeout, trust_env=False)


def away(base: str, error: Exception) -> BackendUnavailable:
    """The error for an API that does not answer."""
    return BackendUnavailable(
        "api_unavailable",
        f"No API answers at {base} ({type(error).__name__}): start it with `sparsewell up`, or name it with --api.",
    )


def read_answer(response: httpx.Response) -> dict[str, Any]:
    """The body of a good answer; problem+json comes out as our errors, other failures as BackendUnavailable."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    raise problem(response.status_code, body if isinstance(body, dict) else {}, response.headers.get("retry-after"))


def problem(status: int, body: dict[str, Any], retry_after: str | None) -> SparsewellError:
    """The error for a status and a problem body."""
    code = str(body.get("code", "api_unavailable"))
    detail = str(body.get("detail", f"What answers there is not sparsewell's API (status {status})."))
    extra = {"rejected": body.get("rejected", []), "status": status}
    if retry_after and retry_after.isdigit():
        extra["retry_after"] = float(retry_after)
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return Overloaded(code, detail, **extra)
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or "code" not in body:
        return BackendUnavailable(code, detail, **extra)
    known: dict[int, type[SparsewellError]] = {httpx.codes.NOT_FOUND: NotFound, httpx.codes.CONFLICT: Conflict}
    return known.get(status, InvalidInput)(code, detail, **extra)


def bulk_answer(send: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The answer to documents, with `accepted` and `rejected`; that every single one was refused is an answer too."""
    try:
        return send()
    except InvalidInput as error:
        if error.code != "no_document_accepted":
            raise
        return {"accepted": [], "rejected": error.extra["rejected"]}
