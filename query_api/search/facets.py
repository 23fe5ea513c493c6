"""Facets: how many of the documents that were found have which value, asked for and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from query_api.search.filter_form import RangesJson
from services.calendar_units import Unit
from services.errors import InvalidInput
from services.filters.reading import kind_of
from services.filters.tree import Within
from services.filters.values import read_range
from services.index_spec import FieldType
from services.settings import Settings

MAX_RANGES = 50


class Facet(BaseModel):
    """What to count of one field: its values, ranges that you name, or stretches of the calendar."""

    model_config = ConfigDict(extra="forbid")

    terms: int | None = Field(None, ge=1, description="keyword, number, boolean: so many of the most frequent values")
    ranges: RangesJson | None = Field(None, description="number, date: how many have a value in each range")
    dates: Unit | None = Field(None, description="date: how many in each stretch of the calendar, UTC")
    ignore_own_filter: bool = Field(
        False,
        description="count as if the filter did not restrict this field, so that a shop can show what else there is",
    )

    @model_validator(mode="after")
    def _one(self) -> "Facet":
        if sum(given is not None for given in (self.terms, self.ranges, self.dates)) != 1:
            raise ValueError("a facet has one of `terms`, `ranges` and `dates`")
        return self


@dataclass(frozen=True, slots=True)
class NamedRange:
    """A range as the user wrote it, and what it means."""

    written: Mapping[str, Any]
    within: Within


@dataclass(frozen=True, slots=True)
class Counted:
    """A checked facet: one of `terms`, `ranges` and `unit`."""

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
    where = f"facets.{field[:80]}"
    kind = kind_of(field, fields, where)
    counted = Counted(field, kind, facet.ignore_own_filter)
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
