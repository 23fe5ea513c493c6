"""Parsing of filters: from the JSON of a request to a tree that fits the declared fields of an index.

{"all": [
    {"field": "year", "range": {"gte": 1990, "lt": 2000}},
    {"not": {"field": "genre", "is": "poem"}},
    {"field": "lang", "any_of": ["en", "de"]},
    {"field": "isbn", "exists": true}
]}

`parse_filter` checks form, types and limits, and words the errors. The types (`FilterForm`, `Range`) only describe
the JSON in the OpenAPI document and validate nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Required, Union

from pydantic import ConfigDict, Field, PlainValidator, with_config
from typing_extensions import TypedDict

from services.dates import date_bounds
from services.documents.document import MAX_ID_BYTES, MAX_KEYWORD_BYTES, is_date
from services.errors import InvalidInput
from services.filters.tree import (
    ID,
    STATE,
    STATES,
    AllOf,
    AnyOf,
    Exists,
    Filter,
    InRange,
    MatchesWords,
    Not,
    OneOf,
    StartsWith,
)
from services.index_spec import FieldType

_NO_EXTRA_MEMBERS = ConfigDict(extra="forbid")

_BOUNDS = ("gt", "gte", "lt", "lte")

MAX_MATCH_CHARACTERS = 200  # each word of `match` is a clause, and OpenSearch allows 1,024 clauses in a search

ValueType = FieldType | None  # None: a built-in field, `_id` or `_state`

_OPERATORS_BY_TYPE: Final[Mapping[ValueType, tuple[str, ...]]] = {
    "keyword": ("is", "any_of", "prefix", "exists"),
    "text": ("match", "exists"),
    "number": ("is", "any_of", "range", "exists"),
    "date": ("is", "any_of", "range", "exists"),
    "boolean": ("is", "any_of", "exists"),
    None: ("is", "any_of"),
}
_ALL_OPERATORS: Final = ("is", "any_of", "range", "prefix", "match", "exists")
_Bound = float | str


@with_config(_NO_EXTRA_MEMBERS)
class Range(TypedDict, total=False):
    """A lower bound, an upper bound or both, as numbers or dates. A date without a time is the whole day."""

    gt: _Bound
    gte: _Bound
    lt: _Bound
    lte: _Bound


_Condition = TypedDict(
    "_Condition",
    {
        "field": Required[Annotated[str, Field(description="a declared metadata field, `_id` or `_state`")]],
        "is": Annotated[str | float | bool, Field(description="has this value")],
        "any_of": Annotated[list[str | float | bool], Field(min_length=1, description="has one of these values")],
        "range": Annotated[Range, Field(description="number, date: has a value between the bounds")],
        "prefix": Annotated[str, Field(min_length=1, description="keyword: has a value with this prefix")],
        "match": Annotated[str, Field(min_length=1, description="text: all of these words occur")],
        "exists": Annotated[bool, Field(description="has a value, or (false) has none")],
    },
    total=False,
)


@with_config(ConfigDict(extra="forbid", json_schema_extra={"minProperties": 2, "maxProperties": 2}))
class FilterCondition(_Condition, total=False):
    """A field and one operator. For a field with several values, one matching value is enough."""


@with_config(_NO_EXTRA_MEMBERS)
class FilterAll(TypedDict):
    """Every part holds."""

    all: Annotated[list["FilterForm"], Field(min_length=1)]


@with_config(_NO_EXTRA_MEMBERS)
class FilterAny(TypedDict):
    """At least one part holds."""

    any: Annotated[list["FilterForm"], Field(min_length=1)]


_Not = TypedDict("_Not", {"not": "FilterForm"})


@with_config(_NO_EXTRA_MEMBERS)
class FilterNot(_Not):
    """The part does not hold; documents without the field match too."""


FilterForm = Union[FilterCondition, FilterAll, FilterAny, FilterNot]  # noqa: UP007 (holds a forward reference)


def _return_unchanged(value: Any) -> Any:
    return value


OneFilterJson = Annotated[Any, PlainValidator(_return_unchanged, json_schema_input_type=FilterForm)]
FilterJson = Annotated[Any, PlainValidator(_return_unchanged, json_schema_input_type=FilterForm | None)]
RangesJson = Annotated[list[Any], PlainValidator(_return_unchanged, json_schema_input_type=list[Range])]


@dataclass(frozen=True, slots=True)
class FilterLimits:
    """Limits on the size of a filter."""

    depth: int
    conditions: int
    values: int


def parse_filter(value: Any, fields: Mapping[str, FieldType], limits: FilterLimits, where: str = "filter") -> Filter:
    """Return the filter in a decoded JSON value; `where` is its place in the request.

    Raises InvalidInput: `bad_filter` for a wrong form or type, `undeclared_metadata`, `contradictory_range`,
    `filter_too_large`. Its member `where` names the part.
    """
    return _Reader(fields, limits).read(value, where, 1)


class _Reader:
    """The parser of one filter, which counts its conditions and values."""

    def __init__(self, fields: Mapping[str, FieldType], limits: FilterLimits) -> None:
        self._fields = fields
        self._limits = limits
        self._conditions = 0
        self._values = 0

    def read(self, value: Any, where: str, depth: int) -> Filter:
        if depth > self._limits.depth:
            raise _filter_too_large(
                where, f"a filter may be nested at most {self._limits.depth} levels deep", "MAX_FILTER_DEPTH"
            )
        if not isinstance(value, dict):
            raise bad_filter(where, "a filter must be an object: {field, …}, {all: […]}, {any: […]} or {not: …}")
        if "field" in value:
            return self._condition(value, where)
        if len(value) != 1 or (key := next(iter(value))) not in ("all", "any", "not"):
            raise bad_filter(where, "a filter must have a `field` and one operator, or only `all`, `any` or `not`")
        if key == "not":
            return Not(self.read(value[key], f"{where}.not", depth + 1))
        parts = _require_list(value[key], f"{where}.{key}")
        read = tuple(self.read(part, f"{where}.{key}[{n}]", depth + 1) for n, part in enumerate(parts))
        return AllOf(read) if key == "all" else AnyOf(read)

    def _condition(self, value: dict[str, Any], where: str) -> Filter:
        field, operators = value["field"], [name for name in value if name != "field"]
        kind = None if field in (ID, STATE) else declared_field_type(field, self._fields, where)
        if len(operators) != 1 or operators[0] not in _ALL_OPERATORS:
            raise bad_filter(where, f"`field` needs exactly one of {join_names(_ALL_OPERATORS)}")
        operator = operators[0]
        if operator not in _OPERATORS_BY_TYPE[kind]:
            declared = f"`{field}` is declared as {kind} and" if kind else f"`{field}`"
            raise bad_filter(where, f"{declared} takes {join_names(_OPERATORS_BY_TYPE[kind])}, not `{operator}`")
        self._count(1, where)
        return self._operator(field, kind, operator, value[operator], f"{where}.{operator}")

    def _operator(self, field: str, kind: ValueType, operator: str, value: Any, where: str) -> Filter:
        match operator:
            case "is":
                return self._one_of(field, kind, [value], [where])
            case "any_of":
                return self._any_of(field, kind, _require_list(value, where), where)
            case "range":
                return parse_range(field, kind, value, where)
            case "prefix":
                if value == "":
                    raise bad_filter(where, "`prefix` must not be empty; `exists` finds documents with any value")
                return StartsWith(field, parse_string(value, MAX_KEYWORD_BYTES, where))
            case "match":
                text = parse_string(value, 4 * MAX_MATCH_CHARACTERS, where)
                if not text.strip() or len(text) > MAX_MATCH_CHARACTERS:
                    raise bad_filter(where, f"`match` must be 1 to {MAX_MATCH_CHARACTERS} characters of words")
                return MatchesWords(field, text)
        if not isinstance(value, bool):
            raise bad_filter(where, "`exists` must be true or false")
        return Exists(field) if value else Not(Exists(field))

    def _any_of(self, field: str, kind: ValueType, values: list[Any], where: str) -> Filter:
        self._values += len(values)
        if self._values > self._limits.values:
            reason = f"a filter may list at most {self._limits.values:,} values; this list has {len(values):,} of them"
            raise _filter_too_large(where, reason, "MAX_FILTER_VALUES")
        return self._one_of(field, kind, values, [f"{where}[{n}]" for n in range(len(values))])

    def _one_of(self, field: str, kind: ValueType, values: list[Any], places: list[str]) -> Filter:
        placed = zip(values, places, strict=True)
        if kind != "date":
            return OneOf(field, tuple(dict.fromkeys(parse_value(field, kind, value, place) for value, place in placed)))
        # A date is a span of time, and each span is a separate clause.
        spans = merge_intervals([parse_bounds(field, kind, value, place) for value, place in placed])
        self._count(len(spans) - 1, places[0])
        ranges = tuple(InRange(field, first, last, date=True) for first, last in spans)
        return ranges[0] if len(ranges) == 1 else AnyOf(ranges)

    def _count(self, more: int, where: str) -> None:
        self._conditions += more
        if self._conditions > self._limits.conditions:
            reason = (
                f"a filter may have at most {self._limits.conditions} conditions; each date of a list counts as one"
            )
            raise _filter_too_large(where, reason, "MAX_FILTER_CONDITIONS")


def declared_field_type(field: Any, fields: Mapping[str, FieldType], where: str) -> FieldType:
    """Return the declared type of a field. Raises InvalidInput (`undeclared_metadata`, `bad_filter`)."""
    if not isinstance(field, str):
        raise bad_filter(where, f"`field` must be a string, not {abbreviate_value(field)}")
    kind = fields.get(field)
    if kind is None:
        known = ", ".join(sorted(fields)) or "none"
        bare = field.removeprefix("metadata.")
        hint = f"; write {bare!r}, without `metadata.`" if bare in fields else ""
        raise InvalidInput(
            "undeclared_metadata",
            f"{where}: the index declares no metadata field {abbreviate_value(field)} (declared: {known}){hint}.",
            where=where,
        )
    return kind


def parse_value(field: str, kind: ValueType, value: Any, where: str) -> str | float | bool:
    """Return a value that a field of that type can have, other than a date. Raises InvalidInput (`bad_filter`)."""
    match kind:
        case "keyword":
            return parse_string(value, MAX_KEYWORD_BYTES, where)
        case "boolean":
            if not isinstance(value, bool):
                raise bad_filter(where, f"`{field}` is declared as boolean; {abbreviate_value(value)} is not a boolean")
            return value
        case "number":
            return _parse_number(field, value, where)
    if field == STATE and value not in STATES:
        raise bad_filter(where, f"`{STATE}` must be one of {', '.join(STATES)}")
    return parse_string(value, MAX_ID_BYTES, where)


def parse_string(value: Any, max_bytes: int, where: str) -> str:
    """Return a string of valid Unicode and bounded length. Raises InvalidInput (`bad_filter`)."""
    if not isinstance(value, str):
        raise bad_filter(where, f"{abbreviate_value(value)} is not a string")
    try:
        length = len(value.encode())
    except UnicodeEncodeError:
        raise bad_filter(where, "the string contains half of a surrogate pair, which is not a character") from None
    if length > max_bytes:
        raise bad_filter(where, f"the string has {length:,} bytes; the limit is {max_bytes:,}")
    return value


def parse_range(field: str, kind: ValueType, value: Any, where: str) -> InRange:
    """Return a range of numbers or dates from an object with one or two of gt, gte, lt and lte.

    Raises InvalidInput (`bad_filter`, `contradictory_range`).
    """
    if not isinstance(value, dict) or not value or not value.keys() <= set(_BOUNDS):
        raise bad_filter(where, f"a range must be an object with one or two of {join_names(_BOUNDS)}")
    for pair in (("gt", "gte"), ("lt", "lte")):
        if all(name in value for name in pair):
            raise bad_filter(where, f"a range must not have both `{pair[0]}` and `{pair[1]}`")
    is_date_range = kind == "date"
    low = high = None
    for name, bound in value.items():
        first, last = parse_bounds(field, kind, bound, f"{where}.{name}")
        match name:
            case "gte":
                low = first
            case "gt":
                low = last + 1 if is_date_range else math.nextafter(last, math.inf)
            case "lte":
                high = last
            case "lt":
                high = first - 1 if is_date_range else math.nextafter(first, -math.inf)
    if low == math.inf or high == -math.inf or (low is not None and high is not None and low > high):
        raise InvalidInput("contradictory_range", f"{where}: no value lies within this range.", where=where)
    return InRange(field, low, high, is_date_range)


def parse_bounds(field: str, kind: ValueType, value: Any, where: str) -> tuple[float, float]:
    """Return a number twice, or the first and the last millisecond of a date. Raises InvalidInput (`bad_filter`)."""
    if kind != "date":
        number = _parse_number(field, value, where)
        # OpenSearch sorts -0.0 below 0.0.
        return (-0.0, 0.0) if number == 0 else (number, number)
    if not isinstance(value, str) or not is_date(value):
        raise bad_filter(
            where,
            f"`{field}` is declared as date; {abbreviate_value(value)} is not a date "
            "(write 2024-02-29 or 2024-02-29T10:00:00+01:00)",
        )
    return date_bounds(value)


def _parse_number(field: str, value: Any, where: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise bad_filter(where, f"`{field}` is declared as number; {abbreviate_value(value)} is not a finite number")


def merge_intervals(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return spans of milliseconds in order, with adjacent and overlapping ones merged."""
    merged: list[tuple[float, float]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def bad_filter(where: str, what: str) -> InvalidInput:
    """Return the error for a part of a filter with a wrong form or type."""
    return InvalidInput("bad_filter", f"{where}: {what}.", where=where)


def _filter_too_large(where: str, what: str, setting: str) -> InvalidInput:
    return InvalidInput("filter_too_large", f"{where}: {what} (SPARSEWELL_{setting}).", where=where)


def _require_list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise bad_filter(where, "this must be a list with one or more entries")
    return value


def join_names(names: tuple[str, ...]) -> str:
    """Return names in backticks, separated by commas, for a message."""
    return ", ".join(f"`{name}`" for name in names)


def abbreviate_value(value: Any) -> str:
    """Return a short form of a value for a message, without control characters that a terminal would obey."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 10**40:  # Python refuses the decimal form of very long integers
        return "a number of more than 40 digits"
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
