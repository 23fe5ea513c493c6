"""The error tree. A class fixes the HTTP status and whether a retry can help; `code` names the case and never changes.

`require_extra` turns a missing optional library into an error that names the extra to install.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar


class SparsewellError(Exception):
    """Base of every error that reaches a user.

    `code` is a stable snake_case name, `detail` a sentence about the cause and the remedy. `extra` members are added to
    the problem+json body unchanged.
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False

    def __init__(self, code: str, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.extra = extra

    def __str__(self) -> str:
        return f"{self.detail} [{self.code}]"

    def __reduce__(self) -> tuple[Any, ...]:
        # Process pools pickle exceptions with `args`, which differ from the arguments of this constructor.
        return _rebuild_error, (type(self), self.code, self.detail, self.extra)


def _rebuild_error(kind: type[SparsewellError], code: str, detail: str, extra: dict[str, Any]) -> SparsewellError:
    return kind(code, detail, **extra)


class InvalidInput(SparsewellError):
    """The request cannot succeed as it is."""

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
    """The endpoint does not read the content type of the body."""

    status = 415
    title = "Unsupported media type"


class Unauthorized(SparsewellError):
    """The request has no valid credentials."""

    status = 401
    title = "Unauthorized"


class Forbidden(SparsewellError):
    """The caller is known but not allowed to do this."""

    status = 403
    title = "Forbidden"


class NotFound(SparsewellError):
    """The named index, document or job does not exist."""

    status = 404
    title = "Not found"


class Conflict(SparsewellError):
    """The request contradicts the stored data."""

    status = 409
    title = "Conflict"


class Overloaded(SparsewellError):
    """The service is busy; nothing of the request was accepted unless the body says so. Try again later."""

    status = 429
    title = "Overloaded"
    retryable = True


class BackendUnavailable(SparsewellError):
    """OpenSearch, Redis or another backend could not be reached or did not answer in time."""

    status = 503
    title = "Backend unavailable"
    retryable = True


class EncoderMismatch(SparsewellError):
    """The query table or the encoder differs from the one that the index was encoded with."""

    status = 503
    title = "Encoder mismatch"


class ConfigurationError(SparsewellError):
    """The process cannot run with its settings or files."""

    title = "Configuration error"


@contextmanager
def require_extra(module: str, what: str, extra: str = "load") -> Iterator[None]:
    """Wrap the import of an optional library; `what` is the purpose in the error message.

    Raises ConfigurationError (`missing_library`).
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        raise ConfigurationError(
            "missing_library", f"To {what}, install the extra: pip install -e '.[{extra}]' ({module} is missing)."
        ) from None
