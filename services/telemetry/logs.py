"""Logging: one line an event to standard error, as text for people or as JSON, with the context of the work at hand.

The context (request, job, index) follows tasks and threads and is added to every line. The module also tells the
version and commit of the build.
"""

import json
import logging
import re
import secrets
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final, Literal

from services.errors import ConfigurationError
from services.settings import Settings
from services.telemetry import tracing

LogFormat = Literal["text", "json"]

REQUEST_ID_FIELD: Final = "request_id"
JOB_FIELD: Final = "job"
# Context that queue messages propagate as headers.
PROPAGATED_FIELDS: Final = (REQUEST_ID_FIELD, JOB_FIELD)

# Attributes that callers may pass as `extra`. All others of a record are Python's.
_EXTRA: Final = ("method", "route", "status", "ms")
# opensearch-py logs the address of each request and, at debug level, its body. Celery logs each message, for which
# `indexer.task_logging` writes a line with its context.
_LIBRARY_LEVELS: Final = {
    "opensearch": logging.ERROR,
    "urllib3": logging.ERROR,
    "uvicorn": logging.WARNING,
    "celery.app.trace": logging.WARNING,
    "celery.worker.strategy": logging.WARNING,
}
# Request ids that clients may choose. None can break a log line, a header or a shell.
_WELL_FORMED: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def configure_logging(process: str, form: LogFormat, level: str = "info") -> None:
    """Set up the root logger, once a process. Raises ConfigurationError (`bad_log_level`)."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ConfigurationError("bad_log_level", f"{level!r} is not a log level: debug, info, warning or error.")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process) if form == "json" else TextFormatter())
    logging.basicConfig(level=number, handlers=[handler])
    for name, minimum in _LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(max(number, minimum))


class JsonFormatter(logging.Formatter):
    """Formatter of JSON lines: `time` (UTC), `level`, `logger`, `message`, `process`, `pid`, and the context."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": self._process,
            "pid": record.process,
        }
        # The context never replaces a member of the line itself.
        line |= {name: value for name, value in current_log_context().items() if name not in line}
        if (trace := tracing.current_trace_id()) is not None:
            line["trace_id"] = trace
        for name in _EXTRA:
            if (value := getattr(record, name, None)) is not None:
                line[name] = value
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["stack"] = "".join(traceback.format_exception(*record.exc_info))
        # orjson would refuse a message with half a surrogate pair.
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """Formatter of text lines for people, with the context at the end."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(process)d %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the library's name)
        # A line break in a message could imitate a log line.
        line = super().formatMessage(record).replace("\n", "\\n").replace("\r", "\\r")
        context = current_log_context()
        return f"{line} ({', '.join(f'{name}={value}' for name, value in context.items())})" if context else line


_NOTHING: Final[Mapping[str, str]] = {}

_current_context: ContextVar[Mapping[str, str]] = ContextVar("sparsewell_context", default=_NOTHING)


def current_log_context() -> Mapping[str, str]:
    """Return the fields of the current context, by their names in a log line."""
    return _current_context.get()


@contextmanager
def log_context(**values: str | None) -> Iterator[None]:
    """Add fields to the context within the block; None adds nothing."""
    token = _current_context.set(
        {**_current_context.get(), **{name: value for name, value in values.items() if value is not None}}
    )
    try:
        yield
    finally:
        _current_context.reset(token)


def add_log_context(**values: str) -> None:
    """Add fields to the bound context, such as the index that a request turns out to belong to."""
    _current_context.set({**_current_context.get(), **values})


def bind_log_context(values: Mapping[str, str]) -> Token[Mapping[str, str]]:
    """Replace the context until `unbind_log_context`. For paths where a context manager costs too much."""
    return _current_context.set(values)


def unbind_log_context(token: Token[Mapping[str, str]]) -> None:
    """Restore the context before `bind_log_context`."""
    _current_context.reset(token)


def accept_request_id(client_id: str | None) -> str:
    """Return the client's id if it is well-formed, else a new one of 16 hexadecimal digits."""
    if client_id is not None and _WELL_FORMED.fullmatch(client_id):
        return client_id
    return secrets.token_hex(8)


def build_information(settings: Settings) -> dict[str, str | None]:
    """Return version and commit; `commit` is None where the build does not record it."""
    return {"version": version("sparsewell"), "commit": settings.commit or None}
