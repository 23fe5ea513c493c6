"""Log lines: one event each, for people (`text`) or for machines (`json`, one object a line), to standard error.

Which build this is: its version, and the commit where the images say it.

What the work at hand belongs to: request, job, index. Log lines say it; it follows tasks and threads.
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


def build_information(settings: Settings) -> dict[str, str | None]:
    """Version and commit; `commit` is None for a build that was not told."""
    return {"version": version("sparsewell"), "commit": settings.commit or None}


REQUEST_ID_FIELD: Final = "request_id"
JOB_FIELD: Final = "job"
# Names that a message on the queue carries on, as headers.
PROPAGATED_FIELDS: Final = (REQUEST_ID_FIELD, JOB_FIELD)
# What a client may choose: nothing that breaks a log line, a header or a shell.
_WELL_FORMED: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_NOTHING: Final[Mapping[str, str]] = {}

_current_context: ContextVar[Mapping[str, str]] = ContextVar("sparsewell_context", default=_NOTHING)


def current_log_context() -> Mapping[str, str]:
    """The names that hold here, by their names in a log line."""
    return _current_context.get()


def bind_log_context(values: Mapping[str, str]) -> Token[Mapping[str, str]]:
    """Replaces the names until `unbind`; for paths where a context manager costs too much."""
    return _current_context.set(values)


def unbind_log_context(token: Token[Mapping[str, str]]) -> None:
    """Back to what held before."""
    _current_context.reset(token)


def add_log_context(**values: str) -> None:
    """Adds names until whoever bound the others unbinds them: what a request turns out to belong to."""
    _current_context.set({**_current_context.get(), **values})


@contextmanager
def log_context(**values: str | None) -> Iterator[None]:
    """Adds names inside the block; None adds nothing."""
    token = _current_context.set(
        {**_current_context.get(), **{name: value for name, value in values.items() if value is not None}}
    )
    try:
        yield
    finally:
        _current_context.reset(token)


def accept_request_id(given: str | None) -> str:
    """The client's id when it is well-formed, else a new one of 16 hexadecimal digits."""
    if given is not None and _WELL_FORMED.fullmatch(given):
        return given
    return secrets.token_hex(8)


LogFormat = Literal["text", "json"]

# Members that a line may bring by `extra`; all else in a record is Python's own.
_EXTRA: Final = ("method", "route", "status", "ms")
# The library of OpenSearch logs each request with its address and, at debug level, its body; Celery each message, of
# which `indexer.task_logging` has a line that says whose it is.
_LIBRARY_LEVELS: Final = {
    "opensearch": logging.ERROR,
    "urllib3": logging.ERROR,
    "uvicorn": logging.WARNING,
    "celery.app.trace": logging.WARNING,
    "celery.worker.strategy": logging.WARNING,
}


class JsonFormatter(logging.Formatter):
    """`time` (UTC), `level`, `logger`, `message`, `process`, `pid`; request, job and index where the work has them."""

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
        # (a name of the work never stands in the place of what the line says)
        line |= {name: value for name, value in current_log_context().items() if name not in line}
        if (trace := tracing.current_trace_id()) is not None:
            line["trace_id"] = trace
        for name in _EXTRA:
            if (value := getattr(record, name, None)) is not None:
                line[name] = value
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["stack"] = "".join(traceback.format_exception(*record.exc_info))
        # (not orjson: a message may hold half a surrogate pair, and is said all the same)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """The same for people: what the work belongs to comes at the end."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(process)d %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the library's name)
        # a line break in a message would look like a line of ours
        said = super().formatMessage(record).replace("\n", "\\n").replace("\r", "\\r")
        names = current_log_context()
        return f"{said} ({', '.join(f'{name}={value}' for name, value in names.items())})" if names else said


def configure_logging(process: str, form: LogFormat, level: str = "info") -> None:
    """Sets the root logger up, once a process. Raises ConfigurationError (`bad_log_level`)."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ConfigurationError("bad_log_level", f"{level!r} is no log level: debug, info, warning or error.")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process) if form == "json" else TextFormatter())
    logging.basicConfig(level=number, handlers=[handler])
    for name, least in _LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(max(number, least))
