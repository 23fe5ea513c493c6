"""Values of columns as the types that an index declares: converted where there is one reading, else refused."""

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from services.documents import is_date
from services.errors import InvalidInput
from services.index_spec import FieldType

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"[+-]?\d{1,18}")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
# How databases print a moment: ISO 8601 but for the space.
_SPACED = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d.*)")


def as_text(value: Any, column: str) -> str | None:
    """A value as text; None for nothing. Raises InvalidInput (`bad_value`) for lists, objects and bytes."""
    match value:
        case None | "":
            return None
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float() | Decimal():
            return str(value)
        case datetime() | date():
            return value.isoformat()
    raise _none(value, column, "text")


def as_id(value: Any, column: str) -> str | None:
    """A document id. Whole numbers are taken, others have more than one spelling."""
    if isinstance(value, float | Decimal | bool):
        raise _none(value, column, "an id (text or a whole number)")
    return as_text(value, column)


def as_whole(value: Any, column: str) -> int | None:
    """A document version."""
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value)
    raise _none(value, column, "a whole number")


def converted(kind: FieldType, value: Any, column: str) -> Any:
    """A metadata value, or a list, as the declared type; None for nothing. Raises InvalidInput (`bad_value`)."""
    if isinstance(value, list | tuple):
        found = [_converted(kind, item, column) for item in value]
        return [item for item in found if item is not None] or None
    return _converted(kind, value, column)


def _converted(kind: FieldType, value: Any, column: str) -> Any:
    if value is None or value == "":
        return None
    match kind:
        case "keyword" | "text":
            return as_text(value, column)
        case "number":
            return _number(value, column)
        case "boolean":
            return _boolean(value, column)
        case "date":
            return _date(value, column)


def _number(value: Any, column: str) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, str):
        text = value.strip()
        if _WHOLE.fullmatch(text):
            return int(text)
        if _NUMBER.fullmatch(text):
            return float(text)
    raise _none(value, column, "a number")


def _boolean(value: Any, column: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _TRUTH:
        return _TRUTH[value.strip().lower()]
    raise _none(value, column, "true, false, 1 or 0")


def _date(value: Any, column: str) -> str:
    if isinstance(value, date):  # a datetime is one
        return value.isoformat()
    if isinstance(value, str):
        text = _SPACED.sub(r"\1T\2", value.strip())
        if is_date(text):
            return text
    raise _none(value, column, "a date as in 2026-11-24 or 2026-11-24T09:30:00Z")


def _none(value: Any, column: str, wanted: str) -> InvalidInput:
    text = repr(value)
    shown = text if len(text) <= 60 else text[:57] + "..."
    return InvalidInput("bad_value", f"Column {column[:80]!r}: {shown} is not {wanted}.")
