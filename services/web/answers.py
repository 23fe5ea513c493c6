"""Answers of the API read back: bodies of good ones, and problem+json as the errors that it was made of."""

from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from services.errors import (
    BackendUnavailable,
    ConfigurationError,
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
# One status may stand for several kinds (503); the title tells them apart.
_BY_TITLE = {(kind.status, kind.title): kind for kind in _KINDS}
_BY_STATUS = {kind.status: kind for kind in reversed(_KINDS)}
_PROBLEM_MEMBERS = frozenset({"type", "title", "detail", "code"})


def checked_address(base: str) -> httpx.URL:
    """The address of an API. Raises ConfigurationError (`bad_address`)."""
    try:
        url = httpx.URL(base.rstrip("/"))
    except httpx.InvalidURL as error:
        raise ConfigurationError("bad_address", f"{base} is not an address: {error}.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError("bad_address", f"{base} is not an http address.")
    if url.port is not None and not 0 < url.port <= 65535:
        raise ConfigurationError("bad_address", f"{base} is not an address: its port is not from 1 to 65535.")
    return url


def problem(status: int, body: dict[str, Any], retry_after: str | None) -> SparsewellError:
    """The error for a status and a problem body; further members are its `extra`, `retry_after` in seconds."""
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


def read_answer(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of a good answer, empty for an answer without a body.

    Raises the error of a problem, and BackendUnavailable for what is none of ours.
    """
    if response.status_code == HTTPStatus.NO_CONTENT:
        return {}
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    raise problem(response.status_code, body if isinstance(body, dict) else {}, response.headers.get("retry-after"))


def path_part(text: str, name: str) -> str:
    """The text as one part of an address. Raises InvalidInput (`not_utf8`; `invalid_request` for `.` and `..`).

    Those two are steps of a path, however they are quoted: deleting document `..` would delete its index.
    """
    if text in (".", ".."):
        raise InvalidInput("invalid_request", f"{name} is {text}, which no address can name.")
    return quote(utf8(text, name), safe="")


def utf8(text: str, name: str) -> str:
    """The text as it is. Raises InvalidInput (`not_utf8`) for half a surrogate pair, which is no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput("not_utf8", f"{name} is not text in UTF-8.") from None
    return text


def read_text(response: httpx.Response) -> str:
    """The text of a good answer that is a file. Raises as `read_answer`."""
    if not response.is_success:
        read_answer(response)
    return response.text
