"""The values that filters name, checked against what a field is declared as."""

import math
from typing import Any

from services.documents import MAX_ID_BYTES, MAX_KEYWORD_BYTES, is_date
from services.errors import InvalidInput
from services.filters.tree import STATE, STATES, Within
from services.index_spec import FieldType
from services.moments import span

Kind = FieldType | None  # None: a field that every document has, `_id` or `_state`

_BOUNDS = ("gt", "gte", "lt", "lte")


def bad(where: str, what: str) -> InvalidInput:
    """The error for a part of a filter that is not of the form or of the wrong type."""
    return InvalidInput("bad_filter", f"{where}: {what}.", where=where)


def read_value(field: str, kind: Kind, value: Any, where: str) -> str | float | bool:
    """A value that a field of that kind may have, other than a date. Raises InvalidInput (`bad_filter`)."""
    match kind:
        case "keyword":
            return read_string(value, MAX_KEYWORD_BYTES, where)
        case "boolean":
            if not isinstance(value, bool):
                raise bad(where, f"`{field}` is declared as boolean; {shown(value)} is none")
            return value
        case "number":
            return _number(field, value, where)
    if field == STATE and value not in STATES:
        raise bad(where, f"a document's state is one of {', '.join(STATES)}")
    return read_string(value, MAX_ID_BYTES, where)


def read_string(value: Any, most_bytes: int, where: str) -> str:
    """A string of whole characters and bounded length. Raises InvalidInput (`bad_filter`)."""
    if not isinstance(value, str):
        raise bad(where, f"{shown(value)} is no string")
    try:
        length = len(value.encode())
    except UnicodeEncodeError:
        raise bad(where, "the string holds half of a surrogate pair, which is no character") from None
    if length > most_bytes:
        raise bad(where, f"a string may have {most_bytes:,} bytes here; this has {length:,}")
    return value


def read_range(field: str, kind: Kind, value: Any, where: str) -> Within:
    """A range of numbers or dates: an object with one or two of gt, gte, lt and lte.

    Raises InvalidInput (`bad_filter`, `contradictory_range`).
    """
    if not isinstance(value, dict) or not value or not value.keys() <= set(_BOUNDS):
        raise bad(where, f"a range is an object with one or two of {listed(_BOUNDS)}")
    for pair in (("gt", "gte"), ("lt", "lte")):
        if all(name in value for name in pair):
            raise bad(where, f"a range has either `{pair[0]}` or `{pair[1]}`")
    date = kind == "date"
    low = high = None
    for name, bound in value.items():
        first, last = read_span(field, kind, bound, f"{where}.{name}")
        match name:
            case "gte":
                low = first
            case "gt":
                low = last + 1 if date else math.nextafter(last, math.inf)
            case "lte":
                high = last
            case "lt":
                high = first - 1 if date else math.nextafter(first, -math.inf)
    if low == math.inf or high == -math.inf or (low is not None and high is not None and low > high):
        raise InvalidInput("contradictory_range", f"{where}: no value lies within this range.", where=where)
    return Within(field, low, high, date)


def read_span(field: str, kind: Kind, value: Any, where: str) -> tuple[float, float]:
    """A number twice, or the first and the last moment of a date. Raises InvalidInput (`bad_filter`)."""
    if kind != "date":
        number = _number(field, value, where)
        # OpenSearch puts -0.0 below 0.0
        return (-0.0, 0.0) if number == 0 else (number, number)
    if not isinstance(value, str) or not is_date(value):
        raise bad(
            where, f"`{field}` is declared as date; {shown(value)} is none (2024-02-29, 2024-02-29T10:00:00+01:00)"
        )
    return span(value)


def joined(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans of milliseconds in order, those that touch made one."""
    found: list[tuple[float, float]] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def listed(names: tuple[str, ...]) -> str:
    """Names for a message."""
    return ", ".join(f"`{name}`" for name in names)


def shown(value: Any) -> str:
    """A value for a message: short, without characters that a terminal obeys."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 10**40:  # (too long a number has no decimal form in Python)
        return "a number of more than 40 digits"
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _number(field: str, value: Any, where: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise bad(where, f"`{field}` is declared as number; {shown(value)} is none")
