"""Facets: how many of the documents that were found have which value, asked for and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from query_api.search.selection_form import Facet
from services.calendar_units import Unit
from services.errors import InvalidInput
from services.filters.reading import kind_of
from services.filters.tree import Within
from services.filters.values import read_range
from services.index_spec import FieldType
from services.settings import Settings

MAX_RANGES = 50


@dataclass(frozen=True, slots=True)
class NamedRange:
    """A range as the user wrote it, and what it means."""

    written: Mapping[str, Any]
    within: Within


@dataclass(frozen=True, slots=True)
class Counted:
    """A facet that fits the index: one of `terms`, `ranges` and `unit`."""

    field: str
    kind: FieldType
    ignore_own_filter: bool
    terms: int = 0
    ranges: tuple[NamedRange, ...] = ()
    unit: Unit | None = None


def checked_facets(
    facets: Mapping[str, Facet], fields: Mapping[str, FieldType], settings: Settings
) -> tuple[Counted, ...]:
    """The facets, held against the index and the limits.

    Raises InvalidInput (`too_many_facets`, `bad_facet`, `undeclared_metadata`, and of ranges `bad_filter` and
    `contradictory_range`).
    """
    if len(facets) > settings.max_facets:
        raise InvalidInput("too_many_facets", f"A search may count {settings.max_facets} facets.")
    return tuple(_checked(field, facet, fields, settings) for field, facet in facets.items())


def _checked(field: str, facet: Facet, fields: Mapping[str, FieldType], settings: Settings) -> Counted:
    kind = kind_of(field, fields, "facets")
    where = f"facets.{field}"
    if facet.terms is not None:
        _takes(kind in ("keyword", "number", "boolean"), field, kind, "terms", where)
        if facet.terms > settings.max_facet_values:
            raise _bad(where, f"`terms` may be {settings.max_facet_values} at most")
        return Counted(field, kind, facet.ignore_own_filter, terms=facet.terms)
    if facet.dates is not None:
        _takes(kind == "date", field, kind, "dates", where)
        return Counted(field, kind, facet.ignore_own_filter, unit=facet.dates)
    _takes(kind in ("number", "date"), field, kind, "ranges", where)
    if not isinstance(facet.ranges, list) or not 1 <= len(facet.ranges) <= MAX_RANGES:
        raise _bad(where, f"`ranges` is a list of 1 to {MAX_RANGES} ranges")
    ranges = [
        NamedRange(written, read_range(field, kind, written, f"{where}.ranges[{n}]"))
        for n, written in enumerate(facet.ranges)
    ]
    return Counted(field, kind, facet.ignore_own_filter, ranges=tuple(ranges))


def _takes(fits: bool, field: str, kind: FieldType, what: str, where: str) -> None:
    if fits:
        return
    if kind == "text":
        raise _bad(where, f"`{field}` is declared as text, whose values are not counted; declare a keyword")
    hint = {"date": "`ranges` and `dates`", "number": "`terms` and `ranges`"}.get(kind, "`terms`")
    raise _bad(where, f"`{field}` is declared as {kind} and takes {hint}, not `{what}`")


def _bad(where: str, what: str) -> InvalidInput:
    return InvalidInput("bad_facet", f"{where}: {what}.", where=where)
