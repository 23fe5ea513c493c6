"""The columns that make a row talk, where it says that it is (`kind`)."""

from typing import Any

import orjson

from cli.loading.conversion import as_text
from cli.loading.source import Record
from services.errors import InvalidInput

_TEXTS = ("kind", "description", "url")
_JSON = ("segments", "transcript", "chapters")
TALK_COLUMNS = (*_TEXTS, *_JSON, "duration")


def talk_columns(record: Record) -> dict[str, Any]:
    """The members of a talk; none of any other row. Lists and objects may be JSON text, as in Parquet.

    Raises InvalidInput (`bad_value`).
    """
    if record.get("kind") != "talk":
        return {}
    members = {name: as_text(record.get(name), name) for name in _TEXTS}
    return members | {name: _decoded(record.get(name), name) for name in _JSON} | {"duration": _duration(record)}


def _decoded(value: Any, name: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value) if value else None
    except orjson.JSONDecodeError as error:
        raise InvalidInput("bad_value", f"Column {name!r} is not JSON: {error}.") from None


def _duration(record: Record) -> Any:
    """A number, or a clock, which the service reads."""
    value = record.get("duration")
    if isinstance(value, str):
        try:
            return float(value) if value.strip() else None
        except ValueError:
            return value
    return value
