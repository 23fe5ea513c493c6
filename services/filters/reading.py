"""From JSON as users write it to a filter that fits the index.

{"all": [
    {"field": "year", "range": {"gte": 1990, "lt": 2000}},
    {"not": {"field": "genre", "is": "poem"}},
    {"field": "lang", "any_of": ["en", "de"]},
    {"field": "isbn", "exists": true}
]}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.documents import MAX_KEYWORD_BYTES
from services.errors import InvalidInput
from services.filters.tree import ID, STATE, All, AnyOf, Exists, Filter, Not, OneOf, StartsWith, Within, Words
from services.filters.values import Kind, bad, joined, listed, read_range, read_span, read_string, read_value, shown
from services.index_spec import FieldType

MAX_WORDS_CHARACTERS = 200  # each word of `match` is a clause, of which OpenSearch takes 1,024 in a search

_OPERATORS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "keyword": ("is", "any_of", "prefix", "exists"),
    "text": ("match", "exists"),
    "number": ("is", "any_of", "range", "exists"),
    "date": ("is", "any_of", "range", "exists"),
    "boolean": ("is", "any_of", "exists"),
    None: ("is", "any_of"),
}
_EVERY_OPERATOR: Final = ("is", "any_of", "range", "prefix", "match", "exists")


@dataclass(frozen=True, slots=True)
class FilterLimits:
    """How large a filter may be."""

    depth: int
    conditions: int
    values: int


def read_filter(value: Any, fields: Mapping[str, FieldType], limits: FilterLimits, where: str = "filter") -> Filter:
    """The filter that a decoded JSON value says; `where` it stands in the request.

    Raises InvalidInput: `bad_filter` for what is not of the form above or of the wrong type, `undeclared_metadata`,
    `contradictory_range`, `filter_too_large`. Its member `where` says which part.
    """
    return _Reader(fields, limits).read(value, where, 1)


def kind_of(field: Any, fields: Mapping[str, FieldType], where: str) -> FieldType:
    """What a field is declared as. Raises InvalidInput (`undeclared_metadata`, `bad_filter`)."""
    if not isinstance(field, str):
        raise bad(where, f"a field is named by a string, not by {shown(field)}")
    kind = fields.get(field)
    if kind is None:
        known = ", ".join(sorted(fields)) or "none"
        bare = field.removeprefix("metadata.")
        hint = f"; write {bare!r}, without `metadata.`" if bare in fields else ""
        raise InvalidInput(
            "undeclared_metadata",
            f"{where}: the index declares no metadata field {shown(field)} (declared: {known}){hint}.",
            where=where,
        )
    return kind


class _Reader:
    """Reads one filter and counts what it has read."""

    def __init__(self, fields: Mapping[str, FieldType], limits: FilterLimits) -> None:
        self._fields = fields
        self._limits = limits
        self._conditions = 0
        self._values = 0

    def read(self, value: Any, where: str, depth: int) -> Filter:
        if depth > self._limits.depth:
            raise _too_large(where, f"a filter may be nested {self._limits.depth} levels deep", "MAX_FILTER_DEPTH")
        if not isinstance(value, dict):
            raise bad(where, "a filter is an object: {field, …}, {all: […]}, {any: […]} or {not: …}")
        if "field" in value:
            return self._condition(value, where)
        if len(value) != 1 or (key := next(iter(value))) not in ("all", "any", "not"):
            raise bad(where, "a filter has a `field` with one operator, or else one of `all`, `any` and `not` alone")
        if key == "not":
            return Not(self.read(value[key], f"{where}.not", depth + 1))
        parts = _list(value[key], f"{where}.{key}")
        read = tuple(self.read(part, f"{where}.{key}[{n}]", depth + 1) for n, part in enumerate(parts))
        return All(read) if key == "all" else AnyOf(read)

    def _condition(self, value: dict[str, Any], where: str) -> Filter:
        field, operators = value["field"], [name for name in value if name != "field"]
        kind = None if field in (ID, STATE) else kind_of(field, self._fields, where)
        if len(operators) != 1 or operators[0] not in _EVERY_OPERATOR:
            raise bad(where, f"beside `field` there is one of {listed(_EVERY_OPERATOR)}")
        operator = operators[0]
        if operator not in _OPERATORS[kind]:
            declared = f"`{field}` is declared as {kind} and" if kind else f"`{field}`"
            raise bad(where, f"{declared} takes {listed(_OPERATORS[kind])}, not `{operator}`")
        self._count(1, where)
        return self._operator(field, kind, operator, value[operator], f"{where}.{operator}")

    def _operator(self, field: str, kind: Kind, operator: str, value: Any, where: str) -> Filter:
        match operator:
            case "is":
                return self._one_of(field, kind, [value], [where])
            case "any_of":
                return self._any_of(field, kind, _list(value, where), where)
            case "range":
                return read_range(field, kind, value, where)
            case "prefix":
                if value == "":
                    raise bad(where, "`prefix` needs a character; `exists` finds documents with any value")
                return StartsWith(field, read_string(value, MAX_KEYWORD_BYTES, where))
            case "match":
                text = read_string(value, 4 * MAX_WORDS_CHARACTERS, where)
                if not text.strip() or len(text) > MAX_WORDS_CHARACTERS:
                    raise bad(where, f"`match` takes words of 1 to {MAX_WORDS_CHARACTERS} characters together")
                return Words(field, text)
        if not isinstance(value, bool):
            raise bad(where, "`exists` is true or false")
        return Exists(field) if value else Not(Exists(field))

    def _any_of(self, field: str, kind: Kind, values: list[Any], where: str) -> Filter:
        self._values += len(values)
        if self._values > self._limits.values:
            said = f"a filter may list {self._limits.values:,} values in all; here are {len(values):,} of them"
            raise _too_large(where, said, "MAX_FILTER_VALUES")
        return self._one_of(field, kind, values, [f"{where}[{n}]" for n in range(len(values))])

    def _one_of(self, field: str, kind: Kind, values: list[Any], places: list[str]) -> Filter:
        placed = zip(values, places, strict=True)
        if kind != "date":
            return OneOf(field, tuple(dict.fromkeys(read_value(field, kind, one, place) for one, place in placed)))
        # a date is a span of time, and each span is a clause of its own
        spans = joined([read_span(field, kind, one, place) for one, place in placed])
        self._count(len(spans) - 1, places[0])
        found = tuple(Within(field, first, last, date=True) for first, last in spans)
        return found[0] if len(found) == 1 else AnyOf(found)

    def _count(self, more: int, where: str) -> None:
        self._conditions += more
        if self._conditions > self._limits.conditions:
            said = f"a filter may have {self._limits.conditions} conditions; each date of a list is one"
            raise _too_large(where, said, "MAX_FILTER_CONDITIONS")


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise bad(where, "this is a list of one entry at least")
    return value


def _too_large(where: str, what: str, setting: str) -> InvalidInput:
    return InvalidInput("filter_too_large", f"{where}: {what} (SPARSEWELL_{setting}).", where=where)
