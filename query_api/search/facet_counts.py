"""Counts of facets in one form, from two sources: OpenSearch's aggregations over all that matches, and the values of a
list of candidates. Both give the same numbers for the same documents."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from query_api.search.facets import Counted
from services.calendar_units import shown, stretch
from services.errors import InvalidInput
from services.filters.tree import Within
from services.opensearch.field_values import Values
from services.opensearch.filter_clauses import Clause, clause, path

# Each shard gives this many more values than are shown, so that what is frequent over all shards and not on one of
# them is counted there too; OpenSearch says how far it may be off.
_MORE_PER_SHARD = 100


def aggregation(facet: Counted) -> Clause:
    """What OpenSearch is asked to count."""
    if facet.ranges:
        # as filters, so that a range counts exactly what a filter with that range finds
        return {"filters": {"filters": [clause(one.within) for one in facet.ranges]}}
    field = path(facet.field)
    if facet.unit:
        return {"date_histogram": {"field": field, "calendar_interval": facet.unit, "min_doc_count": 1}}
    return {"terms": {"field": field, "size": facet.terms, "shard_size": facet.terms + _MORE_PER_SHARD}}


def read_aggregation(facet: Counted, answer: Mapping[str, Any], most: int) -> dict[str, Any]:
    """The counts of one facet, `most` stretches of the calendar at most. Raises InvalidInput (`facet_too_fine`)."""
    buckets = answer["buckets"]
    counts = [int(bucket["doc_count"]) for bucket in buckets]
    if facet.ranges:
        return _of_ranges(facet, counts)
    if facet.unit:
        return _of_dates(
            facet, {int(bucket["key"]): count for bucket, count in zip(buckets, counts, strict=True)}, most
        )
    # (0.0 and -0.0 are two values to OpenSearch)
    by_value: Counter[Any] = Counter()
    for bucket, count in zip(buckets, counts, strict=True):
        by_value[_value(facet, bucket["key"])] += count
    return {
        "buckets": [{"value": value, "count": count} for value, count in _frequent(by_value)],
        "other": int(answer["sum_other_doc_count"]),
        "exact": answer["doc_count_error_upper_bound"] == 0,
    }


def counted(facet: Counted, documents: Sequence[Values], most: int) -> dict[str, Any]:
    """The counts of one facet over documents that are at hand. Raises InvalidInput (`facet_too_fine`)."""
    values = [one[facet.field] for one in documents if facet.field in one]
    if facet.ranges:
        return _of_ranges(facet, [sum(_any_within(one, r.within) for one in values) for r in facet.ranges])
    if facet.unit:
        unit = facet.unit
        return _of_dates(facet, _distinct({stretch(v, unit)[0] for v in one} for one in values), most)
    by_value = _distinct({_value(facet, v) for v in one} for one in values)
    frequent = _frequent(by_value)
    return {
        "buckets": [{"value": value, "count": count} for value, count in frequent[: facet.terms]],
        "other": sum(count for _, count in frequent[facet.terms :]),
        "exact": True,
    }


def _frequent(by_value: Mapping[Any, int]) -> list[tuple[Any, int]]:
    """The most frequent first, equal ones in the order of their values, as OpenSearch lists them."""
    return sorted(by_value.items(), key=lambda pair: (-pair[1], pair[0]))


def _distinct(sets: Iterable[set[Any]]) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for one in sets:
        found.update(one)
    return found


def _any_within(values: Iterable[Any], within: Within) -> bool:
    low, high = within.low, within.high
    return any((low is None or low <= value) and (high is None or value <= high) for value in values)


def _of_ranges(facet: Counted, counts: Iterable[int]) -> dict[str, Any]:
    pairs = zip(facet.ranges, counts, strict=True)
    return {"buckets": [{"range": one.written, "count": count} for one, count in pairs], "other": 0, "exact": True}


def _of_dates(facet: Counted, counts: Mapping[int, int], most: int) -> dict[str, Any]:
    """In the order of the calendar; stretches without documents are left out."""
    unit = facet.unit
    assert unit is not None  # noqa: S101 (asked before)
    if len(counts) > most:
        raise InvalidInput(
            "facet_too_fine",
            f"facets.{facet.field}: there are {len(counts):,} {unit}s and {most:,} may be shown; take a longer unit or "
            "a filter with a range.",
        )
    buckets = []
    for begun in sorted(counts):
        first, after = stretch(begun, unit)
        ends = {"gte": shown(first, unit), "lt": shown(after, unit)}
        written = {name: end for name, end in ends.items() if end is not None}
        buckets.append({"range": written, "count": counts[begun]})
    return {"buckets": buckets, "other": 0, "exact": True}


def _value(facet: Counted, value: Any) -> Any:
    """As users wrote it: booleans are counted as 0 and 1, numbers are stored as floats."""
    if facet.kind == "boolean":
        return bool(value)
    if facet.kind == "number" and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value
