"""A filter as a tree of conditions on the fields of a document.

A field with several values satisfies a condition when one of its values does. A filter says which documents may be
found and never how well they match; regular expressions and OpenSearch's own queries do not exist here.

Whether one document satisfies a filter, told from the document alone: as OpenSearch finds it, without asking.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.dates import date_bounds

ID, STATE = "_id", "_state"  # a declared name begins with a letter, so these are never a user's own
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
    """The part does not hold: no value of the field satisfies it, or there is none."""

    part: "Filter"


@dataclass(frozen=True, slots=True)
class OneOf:
    """A value is one of these."""

    field: str
    values: tuple[str | float | bool, ...]


@dataclass(frozen=True, slots=True)
class InRange:
    """One value lies between two bounds, both of them included; None: no bound.

    Of dates they are milliseconds since 1970.
    """

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
    """A value begins with this."""

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
    """The conditions in a filter."""
    match tree:
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from iter_conditions(part)
        case Not(part):
            yield from iter_conditions(part)
        case _:
            yield tree


def remove_field(tree: Filter | None, field: str) -> Filter | None:
    """The filter without what it says of that field alone, by itself or in its outermost `all`; None: nothing is left.

    What a shop does when it counts the values of a field of which one has been chosen: the others keep their counts.
    """
    if tree is None:
        return None
    parts = tree.parts if isinstance(tree, AllOf) else (tree,)
    kept = tuple(part for part in parts if any(one.field != field for one in iter_conditions(part)))
    return AllOf(kept) if len(kept) > 1 else kept[0] if kept else None


def satisfies_filter(tree: Filter, document_id: str, metadata: Mapping[str, Any]) -> bool:
    """Raises TypeError for what a document alone does not decide: words, which an analyser cuts, and states."""
    match tree:
        case AllOf(parts):
            return all(satisfies_filter(part, document_id, metadata) for part in parts)
        case AnyOf(parts):
            return any(satisfies_filter(part, document_id, metadata) for part in parts)
        case Not(part):
            return not satisfies_filter(part, document_id, metadata)
        case OneOf(field, wanted):
            return any(_as_stored(value) in wanted for value in _field_values(field, document_id, metadata))
        case InRange(field, low, high, date):
            here = [date_bounds(one)[0] if date else float(one) for one in _field_values(field, document_id, metadata)]
            return any((low is None or low <= one) and (high is None or one <= high) for one in here)
        case Exists(field):
            return bool(_field_values(field, document_id, metadata))
        case StartsWith(field, prefix):
            return any(one.startswith(prefix) for one in _field_values(field, document_id, metadata))
    raise TypeError(f"{type(tree).__name__} is not decided by a document alone")


def _as_stored(value: Any) -> Any:
    """Numbers are doubles."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _field_values(field: str, document_id: str, metadata: Mapping[str, Any]) -> list[Any]:
    if field == ID:
        return [document_id]
    value = metadata.get(field)
    values = value if isinstance(value, list) else [value]
    return [one for one in values if one is not None]
