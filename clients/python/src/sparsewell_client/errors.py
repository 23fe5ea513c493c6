"""Errors of the API and of the client, and the reading of responses.

The class of an error says how a caller may react; `code` names the case and never changes. `read_json` and `read_text`
return the body of a success and raise the error of a problem (RFC 9457).
"""

from http import HTTPStatus
from typing import Any, ClassVar

import httpx


class SparsewellError(Exception):
    """Base of all errors.

    `code`: stable name in snake_case. `detail`: a sentence for people. `extra`: further members of the API's problem,
    with `status` (HTTP) and `retry_after` (seconds) when known.
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, code: str, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.extra = extra

    def __str__(self) -> str:
        return f"{self.detail} [{self.code}]"

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle makes an exception from its `args`, which are not the arguments of this constructor.
        return _restore, (type(self), self.code, self.detail, self.extra)


def _restore(kind: type[SparsewellError], code: str, detail: str, extra: dict[str, Any]) -> SparsewellError:
    return kind(code, detail, **extra)


class InvalidInput(SparsewellError):
    """The request can never succeed as it is."""

    status = 422
    title = "Invalid input"


class TooLarge(InvalidInput):
    """The request exceeds a published limit."""

    status = 413
    title = "Too large"


class TooSlow(SparsewellError):
    """The request did not arrive in time."""

    status = 408
    title = "Request timeout"


class UnsupportedMediaType(InvalidInput):
    """The endpoint does not read this content type."""

    status = 415
    title = "Unsupported media type"


class Unauthorized(SparsewellError):
    """The key is missing or not valid."""

    status = 401
    title = "Unauthorized"


class Forbidden(SparsewellError):
    """The key does not allow this."""

    status = 403
    title = "Forbidden"


class NotFound(SparsewellError):
    """The index, document or job does not exist."""

    status = 404
    title = "Not found"


class Conflict(SparsewellError):
    """The request contradicts the stored data."""

    status = 409
    title = "Conflict"


class Overloaded(SparsewellError):
    """The API is overloaded. It accepted nothing of the request unless the body says so; try again later."""

    status = 429
    title = "Overloaded"


class BackendUnavailable(SparsewellError):
    """The API, or a service that it needs, cannot be reached or did not answer in time."""

    status = 503
    title = "Backend unavailable"


class EncoderMismatch(SparsewellError):
    """The API's query table does not belong to the encoder of the index."""

    status = 503
    title = "Encoder mismatch"


class ConfigurationError(SparsewellError):
    """The client cannot work with its settings."""

    title = "Configuration error"


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
    detail = str(body.get("detail", f"The answer is not from sparsewell's API (status {status})."))
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
