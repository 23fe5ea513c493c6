"""Reading of HTTP responses: the body of a success, the error of a problem (RFC 9457)."""

from http import HTTPStatus
from typing import Any

import httpx

from sparsewell_client.errors import (
    BackendUnavailable,
    Conflict,
    EncoderMismatch,
    Forbidden,
    InvalidInput,
    NotFound,
    Overloaded,
    SparsewellError,
    TooLarge,
    TooSlow,
    Unauthorized,
    UnsupportedMediaType,
)

_KINDS: tuple[type[SparsewellError], ...] = (
    InvalidInput, TooLarge, TooSlow, UnsupportedMediaType, Unauthorized, Forbidden, NotFound, Conflict, Overloaded,
    BackendUnavailable, EncoderMismatch,
)  # fmt: skip
# Two classes have status 503; the title tells them apart.
_BY_TITLE = {(kind.status, kind.title): kind for kind in _KINDS}
_BY_STATUS = {kind.status: kind for kind in reversed(_KINDS)}
_PROBLEM_MEMBERS = frozenset({"type", "title", "detail", "code"})


def read_json(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of a success; empty for a response without a body.

    Raises the error of a problem, and BackendUnavailable (`api_unavailable`) for a response that is not the API's.
    """
    if response.status_code == HTTPStatus.NO_CONTENT:
        return {}
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    raise problem_error(
        response.status_code, body if isinstance(body, dict) else {}, response.headers.get("retry-after")
    )


def read_text(response: httpx.Response) -> str:
    """Return the text of a success. Raises as `read_json`."""
    if not response.is_success:
        read_json(response)
    return response.text


def problem_error(status: int, body: dict[str, Any], retry_after: str | None) -> SparsewellError:
    """Make the error for a status and a problem's body. Other members of the body become its `extra`."""
    code = str(body.get("code", "api_unavailable"))
    detail = str(body.get("detail", f"What answers there is not sparsewell's API (status {status})."))
    extra = {name: value for name, value in body.items() if name not in _PROBLEM_MEMBERS}
    extra["status"] = status
    if retry_after and retry_after.isdigit():
        extra["retry_after"] = float(retry_after)
    kind = _BY_TITLE.get((status, str(body.get("title"))))
    if kind is None and ("code" not in body or status >= HTTPStatus.INTERNAL_SERVER_ERROR):
        kind = BackendUnavailable
    return (kind or _BY_STATUS.get(status, InvalidInput))(code, detail, **extra)


def unreachable(address: str, error: Exception) -> BackendUnavailable:
    """Make the error for an API that does not answer."""
    return BackendUnavailable(
        "api_unavailable",
        f"No API answers at {address} ({type(error).__name__}): is it running, and is that its address?",
    )
