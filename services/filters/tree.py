"""The filter tree: conditions on the fields of a document, joined by all, any and not.

A field with several values satisfies a condition when one of its values does. A filter selects documents and never
changes scores; regular expressions and OpenSearch queries are not part of it. `satisfies_filter` evaluates a tree on a
document in memory with the same result as OpenSearch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.dates import date_bounds

ID, STATE = "_id", "_state"  # declared names begin with a letter, so these cannot clash with them
STATES: Final = ("pending", "encoded", "dead")


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold: no value of the field satisfies it, or there is no value."""

    part: "Filter"


@dataclass(frozen=True, slots=True)
class OneOf:
    """A value equals one of these."""

    field: str
    values: tuple[str | float | bool, ...]


@dataclass(frozen=True, slots=True)
class InRange:
    """A value lies between two inclusive bounds; None: no bound. Dates are milliseconds since 1970."""

    field: str
    low: float | None
    high: float | None
    date: bool = False


@dataclass(frozen=True, slots=True)
class Exists:
    """The field has a value."""

    field: str


@dataclass(frozen=True, slots=True)
class StartsWith:
    """A value begins with the prefix."""

    field: str
    prefix: str


@dataclass(frozen=True, slots=True)
class MatchesWords:
    """All of these words occur in the field's values, taken together."""

    field: str
    text: str


Condition = OneOf | InRange | Exists | StartsWith | MatchesWords
Filter = AllOf | AnyOf | Not | Condition


def iter_conditions(tree: Filter) -> Iterator[Condition]:
    """Yield the conditions of a filter."""
    match tree:
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from iter_conditions(part)
        case Not(part):
            yield from iter_conditions(part)
        case _:
            yield tree


def remove_field(tree: Filter | None, field: str) -> Filter | None:
    """Return the filter without conditions on that field alone, or None if nothing is left.

    Removes the whole filter or parts of the outermost `all`. Facets use this: when a value of a field is selected, the
    other values of that field keep their counts.
    """
    if tree is None:
        return None
    parts = tree.parts if isinstance(tree, AllOf) else (tree,)
    kept = tuple(part for part in parts if any(condition.field != field for condition in iter_conditions(part)))
    return AllOf(kept) if len(kept) > 1 else kept[0] if kept else None


def satisfies_filter(tree: Filter, document_id: str, metadata: Mapping[str, Any]) -> bool:
    """Return whether a document satisfies a filter, without asking OpenSearch.

    Raises TypeError for conditions that the document alone does not decide: words (an analyser splits them) and states.
    """
    match tree:
        case AllOf(parts):
            return all(satisfies_filter(part, document_id, metadata) for part in parts)
        case AnyOf(parts):
            return any(satisfies_filter(part, document_id, metadata) for part in parts)
        case Not(part):
            return not satisfies_filter(part, document_id, metadata)
        case OneOf(field, allowed):
            return any(_as_stored(value) in allowed for value in _field_values(field, document_id, metadata))
        case InRange(field, low, high, date):
            stored = _field_values(field, document_id, metadata)
            values = [date_bounds(value)[0] if date else float(value) for value in stored]
            return any((low is None or low <= value) and (high is None or value <= high) for value in values)
        case Exists(field):
            return bool(_field_values(field, document_id, metadata))
        case StartsWith(field, prefix):
            return any(value.startswith(prefix) for value in _field_values(field, document_id, metadata))
    raise TypeError(f"{type(tree).__name__} cannot be decided from the document alone")


def _as_stored(value: Any) -> Any:
    """Return a value in the form of the index, where numbers are doubles."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _field_values(field: str, document_id: str, metadata: Mapping[str, Any]) -> list[Any]:
    if field == ID:
        return [document_id]
    value = metadata.get(field)
    values = value if isinstance(value, list) else [value]
    return [entry for entry in values if entry is not None]
