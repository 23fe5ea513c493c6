"""Log lines: one event each, for people (`text`) or for machines (`json`, one object a line), to standard error."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Final, Literal

from services.errors import ConfigurationError
from services.telemetry import tracing
from services.telemetry.context import bound

Format = Literal["text", "json"]

# Members that a line may bring by `extra`; all else in a record is Python's own.
_EXTRA: Final = ("method", "route", "status", "ms")
# The library of OpenSearch logs each request with its address and, at debug level, its body; Celery each message, of
# which `indexer.observed_task` has a line that says whose it is.
_QUIET: Final = {
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
        line |= {name: value for name, value in bound().items() if name not in line}
        if (trace := tracing.trace_id()) is not None:
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
        names = bound()
        return f"{said} ({', '.join(f'{name}={value}' for name, value in names.items())})" if names else said


def configure_logging(process: str, form: Format, level: str = "info") -> None:
    """Sets the root logger up, once a process. Raises ConfigurationError (`bad_log_level`)."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ConfigurationError("bad_log_level", f"{level!r} is no log level: debug, info, warning or error.")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process) if form == "json" else TextFormatter())
    logging.basicConfig(level=number, handlers=[handler])
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(number, least))
