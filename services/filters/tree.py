"""A filter as a tree of conditions on the fields of a document.

A field with several values satisfies a condition when one of its values does. A filter says which documents may be
found and never how well they match; regular expressions and OpenSearch's own queries do not exist here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

ID, STATE = "_id", "_state"  # a declared name begins with a letter, so these are never a user's own
STATES: Final = ("pending", "encoded", "dead")


@dataclass(frozen=True, slots=True)
class All:
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
class Within:
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
class Words:
    """All of these words occur in the field's values, taken together."""

    field: str
    text: str


Condition = OneOf | Within | Exists | StartsWith | Words
Filter = All | AnyOf | Not | Condition


def conditions(tree: Filter) -> Iterator[Condition]:
    """The conditions in a filter."""
    match tree:
        case All(parts) | AnyOf(parts):
            for part in parts:
                yield from conditions(part)
        case Not(part):
            yield from conditions(part)
        case _:
            yield tree


def without(tree: Filter | None, field: str) -> Filter | None:
    """The filter without what it says of that field alone, by itself or in its outermost `all`; None: nothing is left.

    What a shop does when it counts the values of a field of which one has been chosen: the others keep their counts.
    """
    if tree is None:
        return None
    parts = tree.parts if isinstance(tree, All) else (tree,)
    kept = tuple(part for part in parts if any(one.field != field for one in conditions(part)))
    return All(kept) if len(kept) > 1 else kept[0] if kept else None
