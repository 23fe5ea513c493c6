"""Facets: counts of values, ranges and calendar intervals, of one index and of several."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_api.schemas.search_request import Facet
from query_api.search.facets import CheckedFacet, FacetCounts, count_facet, facet_counts, parse_facets
from services.errors import InvalidInput
from services.index_spec import FieldType
from services.opensearch.queries import FieldValues
from services.settings import Settings

FIELDS: dict[str, FieldType] = {"year": "number", "genre": "keyword", "printed": "date"}
DAY = 86_400_000
COUNTS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 9))


def facet(field: str, **form: Any) -> CheckedFacet:
    return parse_facets({field: Facet.model_validate(form)}, FIELDS, Settings())[0]


def count(facet: CheckedFacet, documents: list[FieldValues], max_values: int) -> dict[str, Any]:
    return facet_counts(facet, [count_facet(facet, documents)], max_values)


@given(st.lists(st.lists(st.sampled_from(["", "a", "b", "é"]), max_size=3), max_size=30), st.integers(1, 4))
def test_the_most_frequent_values_are_listed_and_the_rest_added_up(documents: list[list[str]], limit: int) -> None:
    values = [{"genre": genres} for genres in documents if genres]
    facets = count(facet("genre", terms=limit), values, 100)
    all_counts = count(facet("genre", terms=100), values, 100)
    expected = {genre: sum(genre in genres for genres in documents) for genre in ("", "a", "b", "é")}
    assert {bucket["value"]: bucket["count"] for bucket in all_counts["buckets"]} == {
        g: n for g, n in expected.items() if n
    }
    assert facets["buckets"] == all_counts["buckets"][:limit]
    assert facets["other"] == sum(expected.values()) - sum(bucket["count"] for bucket in facets["buckets"])


def test_numbers_are_shown_as_users_wrote_them() -> None:
    buckets = count(facet("year", terms=5), [{"year": [1990.0, 2.5]}, {"year": [-0.0]}, {"year": [1e300]}], 100)[
        "buckets"
    ]
    assert [bucket["value"] for bucket in buckets] == [0, 2.5, 1990, 1e300]
    assert isinstance(buckets[2]["value"], int)


def test_a_document_counts_once_in_each_calendar_interval() -> None:
    documents = [{"printed": [0, 5, 3 * DAY]}, {"printed": [DAY]}, {}]
    assert count(facet("printed", dates="day"), documents, 3)["buckets"] == [
        {"range": {"gte": "1970-01-01", "lt": "1970-01-02"}, "count": 1},
        {"range": {"gte": "1970-01-02", "lt": "1970-01-03"}, "count": 1},
        {"range": {"gte": "1970-01-04", "lt": "1970-01-05"}, "count": 1},
    ]
    with pytest.raises(InvalidInput, match="3 days and 2") as caught:
        count(facet("printed", dates="day"), documents, 2)
    assert caught.value.code == "facet_too_fine"


@given(st.lists(COUNTS, min_size=1, max_size=4), st.integers(1, 8), st.integers(0, 3))
def test_added_counts_of_several_indexes_lie_within_the_error_bound(
    indexes: list[dict[str, int]], limit: int, extra: int
) -> None:
    """Each index lists its most frequent values and adds up the rest, as OpenSearch does."""
    kept = limit + extra
    counted, truth = [], Counter[str]()
    for counts in indexes:
        truth.update(counts)
        listed = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        rest = sum(count for _, count in listed[kept:])
        counted.append(FacetCounts(dict(listed[:kept]), rest, listed[kept - 1][1] if rest else 0))
    shown = facet_counts(facet("genre", terms=limit), counted, 100)
    buckets = {bucket["value"]: bucket["count"] for bucket in shown["buckets"]}
    assert sum(buckets.values()) + shown["other"] == sum(truth.values())
    bound = shown.get("error_bound", 0)
    assert shown["exact"] == (bound == 0)
    assert all(count <= truth[value] <= count + bound for value, count in buckets.items())
    lowest = min(buckets.values(), default=0)
    assert all(count <= lowest + bound for value, count in truth.items() if value not in buckets)
    if shown["exact"]:
        assert sorted(buckets.values()) == sorted(sorted(truth.values(), reverse=True)[:limit])


def test_ranges_and_dates_of_several_indexes_are_added_up() -> None:
    ranges = facet("year", ranges=[{"lt": 5}, {"gte": 3}])
    shown = facet_counts(ranges, [FacetCounts({0: 2, 1: 1}), FacetCounts({0: 0, 1: 4})], 100)
    assert [bucket["count"] for bucket in shown["buckets"]] == [2, 5]
    days = [FacetCounts({0: 1, DAY: 2}), FacetCounts({DAY: 3})]
    assert [bucket["count"] for bucket in facet_counts(facet("printed", dates="day"), days, 2)["buckets"]] == [1, 5]
    with pytest.raises(InvalidInput) as caught:
        facet_counts(facet("printed", dates="day"), [*days, FacetCounts({9 * DAY: 1})], 2)
    assert caught.value.code == "facet_too_fine"
