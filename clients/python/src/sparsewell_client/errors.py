"""Errors of the API and of the client. The class says what a caller may do; `code` names the case and never changes."""

from typing import Any, ClassVar


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
    """The request contradicts what is stored."""

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
