"""What the work at hand belongs to: request, job, index. Log lines say it; it follows tasks and threads."""

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Final

REQUEST_ID: Final = "request_id"
JOB: Final = "job"
# Names that a message on the queue carries on, as headers.
CARRIED: Final = (REQUEST_ID, JOB)
# What a client may choose: nothing that breaks a log line, a header or a shell.
_WELL_FORMED: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_NOTHING: Final[Mapping[str, str]] = {}

_bound: ContextVar[Mapping[str, str]] = ContextVar("sparsewell_context", default=_NOTHING)


def bound() -> Mapping[str, str]:
    """The names that hold here, by their names in a log line."""
    return _bound.get()


def bind(values: Mapping[str, str]) -> Token[Mapping[str, str]]:
    """Replaces the names until `unbind`; for paths where a context manager costs too much."""
    return _bound.set(values)


def unbind(token: Token[Mapping[str, str]]) -> None:
    """Back to what held before."""
    _bound.reset(token)


def also(**values: str) -> None:
    """Adds names until whoever bound the others unbinds them: what a request turns out to belong to."""
    _bound.set({**_bound.get(), **values})


@contextmanager
def binding(**values: str | None) -> Iterator[None]:
    """Adds names inside the block; None adds nothing."""
    token = _bound.set({**_bound.get(), **{name: value for name, value in values.items() if value is not None}})
    try:
        yield
    finally:
        _bound.reset(token)


def accepted_request_id(given: str | None) -> str:
    """The client's id when it is well-formed, else a new one of 16 hexadecimal digits."""
    if given is not None and _WELL_FORMED.fullmatch(given):
        return given
    return secrets.token_hex(8)
