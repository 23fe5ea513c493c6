"""The one error tree. A class fixes what a client may do about it; `code` names the case and never changes.

Libraries of the extras: who lacks one is told what to install.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar


class SparsewellError(Exception):
    """Base of every error that reaches a user.

    `code` is a stable snake_case name, `detail` a sentence that says what happened and what to do, `extra` members
    are added to the problem+json body as they are.
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
        # An exception is pickled with its `args`, which are not what this one is made of; pools of processes pickle.
        return _rebuild_error, (type(self), self.code, self.detail, self.extra)


def _rebuild_error(kind: type[SparsewellError], code: str, detail: str, extra: dict[str, Any]) -> SparsewellError:
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
    """The body's content type is none that the endpoint reads."""

    status = 415
    title = "Unsupported media type"


class Unauthorized(SparsewellError):
    """The request does not say who asks, or not so that it can be believed."""

    status = 401
    title = "Unauthorized"


class Forbidden(SparsewellError):
    """Who asks is known, and may not do this."""

    status = 403
    title = "Forbidden"


class NotFound(SparsewellError):
    """The named index, document or job does not exist."""

    status = 404
    title = "Not found"


class Conflict(SparsewellError):
    """The request contradicts what is stored."""

    status = 409
    title = "Conflict"


class Overloaded(SparsewellError):
    """Try again later; nothing of the request was accepted unless the body says so."""

    status = 429
    title = "Overloaded"
    retryable = True


class BackendUnavailable(SparsewellError):
    """OpenSearch, Redis or another part cannot be reached or did not answer in time."""

    status = 503
    title = "Backend unavailable"
    retryable = True


class EncoderMismatch(SparsewellError):
    """The query table or the encoder at hand is not the one that the index was encoded with."""

    status = 503
    title = "Encoder mismatch"


class ConfigurationError(SparsewellError):
    """The process cannot run with the settings or files that it was given."""

    title = "Configuration error"


@contextmanager
def require_extra(module: str, what: str, extra: str = "load") -> Iterator[None]:
    """Around an import; `what` is what cannot be done without it. Raises ConfigurationError (`missing_library`)."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        raise ConfigurationError(
            "missing_library", f"To {what}, install the extra: pip install -e '.[{extra}]' ({module} is missing)."
        ) from None
