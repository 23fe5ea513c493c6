"""Facets: validated, counted, and shown in one form.

Counts come from OpenSearch's aggregations over all matches or from the values of a list of candidates. Both sources
give the same counts for the same documents, and the counts of several indexes are added up. The error bound is that of
the terms aggregation: each shard returns 100 values more than are shown.
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
# Each shard returns this many more values than are shown. A value that is frequent over all shards but not on each is
# then counted on each; OpenSearch reports the remaining error bound.
_EXTRA_PER_SHARD = 100


@dataclass(frozen=True, slots=True)
class NamedRange:
    """A range as the user wrote it, and its meaning."""

    written: Mapping[str, Any]
    within: InRange


@dataclass(frozen=True, slots=True)
class CheckedFacet:
    """A facet that fits the index, with one of `terms`, `ranges` and `unit`."""

    field: str
    kind: FieldType
    ignore_own_filter: bool
    terms: int = 0
    ranges: tuple[NamedRange, ...] = ()
    unit: CalendarUnit | None = None


def parse_facets(
    facets: Mapping[str, Facet], fields: Mapping[str, FieldType], settings: Settings
) -> tuple[CheckedFacet, ...]:
    """Validate facets against the declaration of the index and the limits.

    Raises InvalidInput (`too_many_facets`, `bad_facet`, `undeclared_metadata`; for ranges `bad_filter` and
    `contradictory_range`).
    """
    if len(facets) > settings.max_facets:
        raise InvalidInput("too_many_facets", f"A search may have {settings.max_facets} facets at most.")
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


def _require_type(fits: bool, field: str, kind: FieldType, form: str, where: str) -> None:
    """Raise InvalidInput (`bad_facet`) unless the field's type fits the form of the facet."""
    if fits:
        return
    if kind == "text":
        raise _bad_facet(where, f"`{field}` is declared as text, whose values are not counted; declare a keyword")
    hint = {"date": "`ranges` and `dates`", "number": "`terms` and `ranges`"}.get(kind, "`terms`")
    raise _bad_facet(where, f"`{field}` is declared as {kind} and takes {hint}, not `{form}`")


def _bad_facet(where: str, detail: str) -> InvalidInput:
    return InvalidInput("bad_facet", f"{where}: {detail}.", where=where)


@dataclass(frozen=True, slots=True)
class FacetCounts:
    """The counts of one facet: by value, by the number of the range, or by the start of the calendar interval.

    `other`: the sum of the counts of unlisted values. `unlisted`: the highest count that an unlisted value may have.
    `short`: the largest shortfall of a listed value's count. Both bounds are 0 where everything was counted.
    """

    counts: Mapping[Any, int]
    other: int = 0
    unlisted: int = 0
    short: int = 0


def build_aggregation(facet: CheckedFacet, *, partly: bool = False) -> Clause:
    """Build the aggregation of one facet.

    `partly`: its counts will be added to other counts, so it lists more values than are shown.
    """
    if facet.ranges:
        # As filters, so that a range counts exactly the documents that a filter with that range finds.
        return {"filters": {"filters": [build_filter_clause(named.within) for named in facet.ranges]}}
    field = field_path(facet.field)
    if facet.unit:
        return {"date_histogram": {"field": field, "calendar_interval": facet.unit, "min_doc_count": 1}}
    more = facet.terms + _EXTRA_PER_SHARD
    return {"terms": {"field": field, "size": more if partly else facet.terms, "shard_size": more}}


def read_facet_counts(facet: CheckedFacet, answer: Mapping[str, Any]) -> FacetCounts:
    """Return the counts in the answer to `build_aggregation`."""
    buckets = answer["buckets"]
    counts = [int(bucket["doc_count"]) for bucket in buckets]
    if facet.ranges:
        return FacetCounts(dict(enumerate(counts)))
    if facet.unit:
        return FacetCounts({int(bucket["key"]): count for bucket, count in zip(buckets, counts, strict=True)})
    # 0.0 and -0.0 are two values in OpenSearch.
    by_value: Counter[Any] = Counter()
    for bucket, count in zip(buckets, counts, strict=True):
        by_value[_written_value(facet, bucket["key"])] += count
    other, short = int(answer["sum_other_doc_count"]), int(answer["doc_count_error_upper_bound"])
    return FacetCounts(by_value, other, (min(counts, default=0) if other else 0) + short, short)


def count_facet(facet: CheckedFacet, documents: Collection[FieldValues]) -> FacetCounts:
    """Return the counts of documents whose values are known."""
    values = [document[facet.field] for document in documents if facet.field in document]
    if facet.ranges:
        return FacetCounts(
            {n: sum(_any_within(listed, r.within) for listed in values) for n, r in enumerate(facet.ranges)}
        )
    if facet.unit:
        unit = facet.unit
        return FacetCounts(_count_distinct({calendar_interval(v, unit)[0] for v in listed} for listed in values))
    return FacetCounts(_count_distinct({_written_value(facet, v) for v in listed} for listed in values))


def _count_distinct(sets: Iterable[set[Any]]) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    for values in sets:
        counts.update(values)
    return counts


def _any_within(values: Iterable[Any], within: InRange) -> bool:
    low, high = within.low, within.high
    return any((low is None or low <= value) and (high is None or value <= high) for value in values)


def _written_value(facet: CheckedFacet, value: Any) -> Any:
    """Return a value as users write it: OpenSearch counts booleans as 0 and 1 and stores numbers as floats."""
    if facet.kind == "boolean":
        return bool(value)
    if facet.kind == "number" and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def facet_counts(facet: CheckedFacet, counted: Sequence[FacetCounts], max_values: int) -> dict[str, Any]:
    """Return the counts of one facet for the response, with the counts of several indexes added up.

    `max_values`: the highest number of calendar intervals. Raises InvalidInput (`facet_too_fine`).
    """
    sums: Counter[Any] = Counter()
    for each in counted:
        sums.update(each.counts)
    if facet.ranges:
        pairs = [{"range": named.written, "count": sums[n]} for n, named in enumerate(facet.ranges)]
        return {"buckets": pairs, "other": 0, "exact": True}
    if facet.unit:
        return _date_counts(facet, sums, max_values)
    frequent = _by_frequency(sums)
    listed, unlisted = frequent[: facet.terms], frequent[facet.terms :]
    shown = {
        "buckets": [{"value": value, "count": count} for value, count in listed],
        "other": sum(count for _, count in unlisted) + sum(each.other for each in counted),
    }
    bound = _error_bound(listed, unlisted, counted)
    return shown | ({"exact": True} if bound == 0 else {"exact": False, "error_bound": bound})


def _by_frequency(by_value: Mapping[Any, int]) -> list[tuple[Any, int]]:
    """Return values by descending count, equal counts in the order of their values, as OpenSearch lists them."""
    return sorted(by_value.items(), key=lambda pair: (-pair[1], pair[0]))


def _error_bound(
    listed: Sequence[tuple[Any, int]], unlisted: Sequence[tuple[Any, int]], counted: Sequence[FacetCounts]
) -> int:
    """Return the largest shortfall of the count of a listed value, or of a value that may belong in the list."""

    def short(value: Any) -> int:
        return sum(each.short if value in each.counts else each.unlisted for each in counted)

    lowest = listed[-1][1] if listed else 0
    bounds = [short(value) for value, _ in listed]
    bounds += [shortfall for value, count in unlisted if count + (shortfall := short(value)) > lowest]
    never_listed = sum(each.unlisted for each in counted)
    return max([*bounds, never_listed if never_listed > lowest else 0])


def _date_counts(facet: CheckedFacet, counts: Mapping[int, int], max_values: int) -> dict[str, Any]:
    """Return the counts of calendar intervals in the order of the calendar, without empty intervals."""
    unit = facet.unit
    assert unit is not None  # noqa: S101 (the caller has checked it)
    if len(counts) > max_values:
        raise InvalidInput(
            "facet_too_fine",
            f"facets.{facet.field}: there are {len(counts):,} {unit}s and {max_values:,} may be shown: use a longer "
            "unit or a filter with a range.",
        )
    buckets: list[dict[str, Any]] = []
    for start in sorted(counts):
        within = calendar_interval_range(start, unit)
        if buckets and buckets[-1]["range"] == within:
            buckets[-1]["count"] += counts[start]
        else:
            buckets.append({"range": within, "count": counts[start]})
    return {"buckets": buckets, "other": 0, "exact": True}
