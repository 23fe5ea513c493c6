"""Conversion of metadata values to the type of a field, where a value has one reading.

`sparsewell load` converts columns, and `sparsewell reindex --convert` converts stored values to a changed declaration.
A value with more than one reading is refused (`bad_value`): "1,234" is a number in one country and another in the next.
"""

import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from services.documents.document import describe_value, is_date, validate_metadata
from services.errors import InvalidInput
from services.index_spec import FieldType

INTEGER = re.compile(r"[+-]?\d{1,18}")
_NUMBER = re.compile(r"[+-]?(\d++(\.\d*+)?|\.\d++)([eE][+-]?\d++)?")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
# Databases print times in ISO 8601, but with a space.
_SPACED_DATE = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d.*)")


def fit_metadata(
    metadata: Mapping[str, Any], old: Mapping[str, FieldType], new: Mapping[str, FieldType], *, convert: bool
) -> dict[str, Any]:
    """Return stored metadata for a declaration that changes the types of fields from `old` to `new`.

    OpenSearch accepts the number 12 for a keyword, but the service would refuse the document that it has stored.
    With `convert`, values of the changed fields are converted. Raises InvalidInput (`bad_metadata`, `bad_value`).
    """
    changed = {name: kind for name, kind in new.items() if name in metadata and old.get(name, kind) != kind}
    if not changed:
        return dict(metadata)
    values = {name: metadata[name] for name in changed}
    if convert:
        values = {name: convert_value(changed[name], value, name) for name, value in values.items()}
    unchanged = {name: value for name, value in metadata.items() if name not in changed}
    return unchanged | validate_metadata(values, changed)


def as_text(value: Any, column: str) -> str | None:
    """Convert a value to text, or to None if it is empty.

    Raises InvalidInput (`bad_value`) for lists, objects and bytes.
    """
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
    raise bad_value(value, column, "text")


def convert_value(kind: FieldType, value: Any, column: str) -> Any:
    """Convert a metadata value, or a list, to the declared type; None stands for no value.

    Raises InvalidInput (`bad_value`).
    """
    if isinstance(value, list | tuple):
        items = [_convert_single(kind, item, column) for item in value]
        return [item for item in items if item is not None] or None
    return _convert_single(kind, value, column)


def _convert_single(kind: FieldType, value: Any, column: str) -> Any:
    if value is None or value == "":
        return None
    match kind:
        case "keyword" | "text":
            return as_text(value, column)
        case "number":
            return _convert_number(value, column)
        case "boolean":
            return _convert_boolean(value, column)
        case "date":
            return _convert_date(value, column)


def _convert_number(value: Any, column: str) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, str):
        text = value.strip()
        if INTEGER.fullmatch(text):
            return int(text)
        if _NUMBER.fullmatch(text):
            return float(text)
    raise bad_value(value, column, "a number")


def _convert_boolean(value: Any, column: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _BOOLEANS:
        return _BOOLEANS[value.strip().lower()]
    raise bad_value(value, column, "true, false, 1 or 0")


def _convert_date(value: Any, column: str) -> str:
    if isinstance(value, date):  # datetime is a subclass
        return value.isoformat()
    if isinstance(value, str):
        text = _SPACED_DATE.sub(r"\1T\2", value.strip())
        if is_date(text):
            return text
    raise bad_value(value, column, "a date as in 2026-11-24 or 2026-11-24T09:30:00Z")


def bad_value(value: Any, column: str, wanted: str) -> InvalidInput:
    """Return the error of a value that is not `wanted`."""
    return InvalidInput("bad_value", f"Column {column[:80]!r}: {describe_value(value)} is not {wanted}.")
