"""Facets: how many of the documents that were found have which value, asked for and checked.

Counts of facets in one form, from two sources: OpenSearch's aggregations over all that matches, and the values of a
list of candidates. Both give the same numbers for the same documents, and those of several indexes are added up.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from query_api.schemas.search_request import Facet
from services.dates import CalendarUnit, calendar_interval, calendar_interval_range
from services.errors import InvalidInput
from services.filters.parsing import declared_field_type, parse_range
from services.filters.tree import InRange
from services.index_spec import FieldType
from services.opensearch.queries import Clause, FieldValues, build_filter_clause, field_path
from services.settings import Settings

MAX_RANGES = 50


@dataclass(frozen=True, slots=True)
class NamedRange:
    """A range as the user wrote it, and what it means."""

    written: Mapping[str, Any]
    within: InRange


@dataclass(frozen=True, slots=True)
class CheckedFacet:
    """A facet that fits the index: one of `terms`, `ranges` and `unit`."""

    field: str
    kind: FieldType
    ignore_own_filter: bool
    terms: int = 0
    ranges: tuple[NamedRange, ...] = ()
    unit: CalendarUnit | None = None


def parse_facets(
    facets: Mapping[str, Facet], fields: Mapping[str, FieldType], settings: Settings
) -> tuple[CheckedFacet, ...]:
    """The facets, held against the index and the limits.

    Raises InvalidInput (`too_many_facets`, `bad_facet`, `undeclared_metadata`, and of ranges `bad_filter` and
    `contradictory_range`).
    """
    if len(facets) > settings.max_facets:
        raise InvalidInput("too_many_facets", f"A search may count {settings.max_facets} facets.")
    return tuple(_parse_facet(field, facet, fields, settings) for field, facet in facets.items())


def _parse_facet(field: str, facet: Facet, fields: Mapping[str, FieldType], settings: Settings) -> CheckedFacet:
    kind = declared_field_type(field, fields, "facets")
    where = f"facets.{field}"
    if facet.terms is not None:
        _require_type(kind in ("keyword", "number", "boolean"), field, kind, "terms", where)
        if facet.terms > settings.max_facet_values:
            raise _bad_facet(where, f"`terms` may be {settings.max_facet_values} at most")
        return CheckedFacet(field, kind, facet.ignore_own_filter, terms=facet.terms)
    if facet.dates is not None:
        _require_type(kind == "date", field, kind, "dates", where)
        return CheckedFacet(field, kind, facet.ignore_own_filter, unit=facet.dates)
    _require_type(kind in ("number", "date"), field, kind, "ranges", where)
    if not isinstance(facet.ranges, list) or not 1 <= len(facet.ranges) <= MAX_RANGES:
        raise _bad_facet(where, f"`ranges` is a list of 1 to {MAX_RANGES} ranges")
    ranges = [
        NamedRange(written, parse_range(field, kind, written, f"{where}.ranges[{n}]"))
        for n, written in enumerate(facet.ranges)
    ]
    return CheckedFacet(field, kind, facet.ignore_own_filter, ranges=tuple(ranges))


def _require_type(fits: bool, field: str, kind: FieldType, what: str, where: str) -> None:
    if fits:
        return
    if kind == "text":
        raise _bad_facet(where, f"`{field}` is declared as text, whose values are not counted; declare a keyword")
    hint = {"date": "`ranges` and `dates`", "number": "`terms` and `ranges`"}.get(kind, "`terms`")
    raise _bad_facet(where, f"`{field}` is declared as {kind} and takes {hint}, not `{what}`")


def _bad_facet(where: str, what: str) -> InvalidInput:
    return InvalidInput("bad_facet", f"{where}: {what}.", where=where)


# Each shard gives this many more values than are shown, so that what is frequent over all shards and not on one of
# them is counted there too; OpenSearch says how far it may be off.
_EXTRA_PER_SHARD = 100


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted of one facet: by value, by the number of the range, or by the beginning of the stretch.

    `other`: counts of values that are not listed, added up. `unlisted`: how many documents such a value may have at
    most, `short`: by how many the count of a listed one may be too low; both 0 where everything was counted.
    """

    counts: Mapping[Any, int]
    other: int = 0
    unlisted: int = 0
    short: int = 0


def build_aggregation(facet: CheckedFacet, *, partly: bool = False) -> Clause:
    """What OpenSearch is asked to count; `partly`: it will be added to other counts, and lists more than are shown."""
    if facet.ranges:
        # as filters, so that a range counts exactly what a filter with that range finds
        return {"filters": {"filters": [build_filter_clause(one.within) for one in facet.ranges]}}
    field = field_path(facet.field)
    if facet.unit:
        return {"date_histogram": {"field": field, "calendar_interval": facet.unit, "min_doc_count": 1}}
    more = facet.terms + _EXTRA_PER_SHARD
    return {"terms": {"field": field, "size": more if partly else facet.terms, "shard_size": more}}


def read_tally(facet: CheckedFacet, answer: Mapping[str, Any]) -> Tally:
    """The counts in an answer to `aggregation`."""
    buckets = answer["buckets"]
    counts = [int(bucket["doc_count"]) for bucket in buckets]
    if facet.ranges:
        return Tally(dict(enumerate(counts)))
    if facet.unit:
        return Tally({int(bucket["key"]): count for bucket, count in zip(buckets, counts, strict=True)})
    # (0.0 and -0.0 are two values to OpenSearch)
    by_value: Counter[Any] = Counter()
    for bucket, count in zip(buckets, counts, strict=True):
        by_value[_written_value(facet, bucket["key"])] += count
    other, short = int(answer["sum_other_doc_count"]), int(answer["doc_count_error_upper_bound"])
    return Tally(by_value, other, (min(counts, default=0) if other else 0) + short, short)


def tally_documents(facet: CheckedFacet, documents: Collection[FieldValues]) -> Tally:
    """The counts of documents that are at hand."""
    values = [one[facet.field] for one in documents if facet.field in one]
    if facet.ranges:
        return Tally({n: sum(_any_within(one, r.within) for one in values) for n, r in enumerate(facet.ranges)})
    if facet.unit:
        unit = facet.unit
        return Tally(_count_distinct({calendar_interval(v, unit)[0] for v in one} for one in values))
    return Tally(_count_distinct({_written_value(facet, v) for v in one} for one in values))


def facet_counts(facet: CheckedFacet, tallies: Sequence[Tally], most: int) -> dict[str, Any]:
    """The counts of one facet, those of several indexes added up; `most` stretches of the calendar at most.

    Raises InvalidInput (`facet_too_fine`).
    """
    sums: Counter[Any] = Counter()
    for one in tallies:
        sums.update(one.counts)
    if facet.ranges:
        pairs = [{"range": one.written, "count": sums[n]} for n, one in enumerate(facet.ranges)]
        return {"buckets": pairs, "other": 0, "exact": True}
    if facet.unit:
        return _date_counts(facet, sums, most)
    frequent = _by_frequency(sums)
    listed, left = frequent[: facet.terms], frequent[facet.terms :]
    shown = {
        "buckets": [{"value": value, "count": count} for value, count in listed],
        "other": sum(count for _, count in left) + sum(one.other for one in tallies),
    }
    bound = _error_bound(listed, left, tallies)
    return shown | ({"exact": True} if bound == 0 else {"exact": False, "error_bound": bound})


def _error_bound(listed: Sequence[tuple[Any, int]], left: Sequence[tuple[Any, int]], tallies: Sequence[Tally]) -> int:
    """By how much a count may be too low: of a value that is listed, or of one that may belong there instead."""

    def short(value: Any) -> int:
        return sum(one.short if value in one.counts else one.unlisted for one in tallies)

    least = listed[-1][1] if listed else 0
    bounds = [short(value) for value, _ in listed]
    bounds += [by for value, count in left if count + (by := short(value)) > least]
    unseen = sum(one.unlisted for one in tallies)
    return max([*bounds, unseen if unseen > least else 0])


def _by_frequency(by_value: Mapping[Any, int]) -> list[tuple[Any, int]]:
    """The most frequent first, equal ones in the order of their values, as OpenSearch lists them."""
    return sorted(by_value.items(), key=lambda pair: (-pair[1], pair[0]))


def _count_distinct(sets: Iterable[set[Any]]) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for one in sets:
        found.update(one)
    return found


def _any_within(values: Iterable[Any], within: InRange) -> bool:
    low, high = within.low, within.high
    return any((low is None or low <= value) and (high is None or value <= high) for value in values)


def _date_counts(facet: CheckedFacet, counts: Mapping[int, int], most: int) -> dict[str, Any]:
    """In the order of the calendar; stretches without documents are left out."""
    unit = facet.unit
    assert unit is not None  # noqa: S101 (asked before)
    if len(counts) > most:
        raise InvalidInput(
            "facet_too_fine",
            f"facets.{facet.field}: there are {len(counts):,} {unit}s and {most:,} may be shown; take a longer unit or "
            "a filter with a range.",
        )
    buckets: list[dict[str, Any]] = []
    for begun in sorted(counts):
        within = calendar_interval_range(begun, unit)
        if buckets and buckets[-1]["range"] == within:
            buckets[-1]["count"] += counts[begun]
        else:
            buckets.append({"range": within, "count": counts[begun]})
    return {"buckets": buckets, "other": 0, "exact": True}


def _written_value(facet: CheckedFacet, value: Any) -> Any:
    """As users wrote it: booleans are counted as 0 and 1, numbers are stored as floats."""
    if facet.kind == "boolean":
        return bool(value)
    if facet.kind == "number" and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value
