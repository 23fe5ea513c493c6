"""What is sorted and counted of a request: read, held against the index, and worked out on values at hand."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from query_api.schemas.search_request import Facet, SearchRequest, SortKey
from query_api.search.facets import CheckedFacet, Tally, facet_counts, parse_facets, tally_documents
from query_api.search.sorting import SortField, build_sort, parse_sort, sort_documents
from query_api.search.validation import EVERYTHING, SearchAddress, is_scored, parse_selection, read_short
from services.errors import InvalidInput
from services.index_spec import FieldType, IndexSpec
from services.opensearch.queries import NOT_DELETED, FieldValues, add_filter
from services.settings import Settings

FIELDS: dict[str, FieldType] = {
    "year": "number", "genre": "keyword", "blurb": "text", "printed": "date", "lent": "boolean",
}  # fmt: skip
SPEC = IndexSpec(fields=FIELDS)
DAY = 86_400_000


def asked(**members: Any) -> SearchRequest:
    return SearchRequest.model_validate({"query": "sea"} | members)


def keys(*texts: str) -> tuple[SortField, ...]:
    read = read_short(None, texts, ())["sort"]
    return parse_sort([SortKey.model_validate(one) for one in read], FIELDS, scored=True)


def facet(field: str, **how: Any) -> CheckedFacet:
    return parse_facets({field: Facet.model_validate(how)}, FIELDS, Settings())[0]


def counted(of: CheckedFacet, documents: list[FieldValues], most: int) -> dict[str, Any]:
    return facet_counts(of, [tally_documents(of, documents)], most)


def test_a_plain_request_selects_nothing() -> None:
    assert parse_selection(asked(), SPEC, Settings()) is EVERYTHING
    assert parse_selection(asked(fields=["title", "metadata.year"]), SPEC, Settings()) is EVERYTHING


@pytest.mark.parametrize(
    ("members", "among", "here", "scored"),
    [
        ({"mode": "hybrid"}, "candidates", True, True),
        ({"mode": "hybrid", "sort": [{"field": "year"}]}, "candidates", True, True),
        ({"mode": "hybrid", "sort": [{"field": "year"}], "among": "matches"}, "matches", False, False),
        ({"mode": "hybrid", "facets": {}, "among": "matches"}, "matches", True, True),
        ({"mode": "sparse"}, "candidates", False, True),
        ({"mode": "sparse", "sort": [{"field": "year"}]}, "candidates", True, True),
        ({"mode": "sparse", "sort": [{"field": "year"}], "among": "matches"}, "matches", False, True),
        ({"mode": "sparse", "facets": {}}, "candidates", False, True),
        ({"mode": "lexical"}, "matches", False, True),
        ({"mode": "lexical", "sort": [{"field": "year"}]}, "matches", False, True),
        ({"mode": "lexical", "sort": [{"field": "year"}], "among": "candidates"}, "candidates", True, True),
        ({"query": " ", "facets": {}, "among": "candidates"}, "matches", False, False),
        ({"query": "", "like": ["b1"], "facets": {}, "mode": "sparse"}, "candidates", False, True),
    ],
)
def test_what_is_sorted_and_counted(members: dict[str, Any], among: str, here: bool, scored: bool) -> None:
    request = asked(**members)
    assert (request.chosen_among, request.is_ranked_here, is_scored(request)) == (among, here, scored)


def test_values_are_read_beside_candidates_only() -> None:
    members: dict[str, Any] = {"sort": [{"field": "year"}, {"field": "_score"}], "facets": {"genre": {"terms": 3}}}
    assert parse_selection(asked(**members), SPEC, Settings()).columns == {"year": "number", "genre": "keyword"}
    assert parse_selection(asked(**members, mode="lexical"), SPEC, Settings()).columns == {}


def test_the_order_that_the_engine_is_asked_for() -> None:
    assert build_sort(keys("year:desc", "genre"), scored=True) == [
        {"metadata.year": {"order": "desc", "missing": "_last"}},
        {"metadata.genre": {"order": "asc", "missing": "_last"}},
        {"_score": "desc"},
        {"_seq_no": "asc"},
    ]
    assert build_sort(keys("_score:asc"), scored=True) == [{"_score": "asc"}, {"_seq_no": "asc"}]
    assert build_sort((), scored=False) == [{"ingested_at": "desc"}, {"_seq_no": "asc"}]


def test_missing_values_come_last_and_equal_ones_by_score() -> None:
    found = [("a", 5.0), ("b", 4.0), ("c", 3.0), ("d", 2.0), ("e", 1.0)]
    values: dict[str, dict[str, list[Any]]] = {
        "a": {}, "b": {"year": [1.0]}, "c": {"year": [2.0, 0.0], "lent": [True]}, "d": {"year": [1.0]},
        "e": {"lent": [False, True]},
    }  # fmt: skip
    assert "".join(name for name, _ in sort_documents(found, keys("year"), values)) == "cbdae"
    assert "".join(name for name, _ in sort_documents(found, keys("year:desc"), values)) == "cbdae"
    assert "".join(name for name, _ in sort_documents(found, keys("lent", "year"), values)) == "ecbda"
    assert "".join(name for name, _ in sort_documents(found, keys("_score:asc"), values)) == "edcba"
    assert "".join(name for name, _ in sort_documents(found, keys("year", "_score:asc"), values)) == "cdbea"
    assert sort_documents(found, (), values) == found


@given(st.lists(st.lists(st.sampled_from(["", "a", "b", "é"]), max_size=3), max_size=30), st.integers(1, 4))
def test_the_most_frequent_values(documents: list[list[str]], most: int) -> None:
    values = [{"genre": one} for one in documents if one]
    facets = counted(facet("genre", terms=most), values, 100)
    every = counted(facet("genre", terms=100), values, 100)
    naive = {genre: sum(genre in one for one in documents) for genre in ("", "a", "b", "é")}
    assert {bucket["value"]: bucket["count"] for bucket in every["buckets"]} == {g: n for g, n in naive.items() if n}
    assert facets["buckets"] == every["buckets"][:most]
    assert facets["other"] == sum(naive.values()) - sum(bucket["count"] for bucket in facets["buckets"])


def test_numbers_are_shown_as_they_were_written() -> None:
    buckets = counted(facet("year", terms=5), [{"year": [1990.0, 2.5]}, {"year": [-0.0]}, {"year": [1e300]}], 100)[
        "buckets"
    ]
    assert [bucket["value"] for bucket in buckets] == [0, 2.5, 1990, 1e300]
    assert isinstance(buckets[2]["value"], int)


def test_dates_are_counted_once_a_stretch_and_not_beyond_the_limit() -> None:
    documents = [{"printed": [0, 5, 3 * DAY]}, {"printed": [DAY]}, {}]
    assert counted(facet("printed", dates="day"), documents, 3)["buckets"] == [
        {"range": {"gte": "1970-01-01", "lt": "1970-01-02"}, "count": 1},
        {"range": {"gte": "1970-01-02", "lt": "1970-01-03"}, "count": 1},
        {"range": {"gte": "1970-01-04", "lt": "1970-01-05"}, "count": 1},
    ]
    with pytest.raises(InvalidInput, match="3 days and 2") as caught:
        counted(facet("printed", dates="day"), documents, 2)
    assert caught.value.code == "facet_too_fine"


def test_addresses() -> None:
    said = SearchAddress.model_validate(
        {"q": "sea", "sort": ["year:desc"], "facet": ["genre", "printed:month", "year:5"]}
    )
    assert said.request() == asked(
        sort=[{"field": "year", "order": "desc"}],
        facets={"genre": {"terms": 10}, "printed": {"dates": "month"}, "year": {"terms": 5}},
    )
    assert SearchAddress().request() == SearchRequest()


def test_an_address_is_taken_whole_or_refused() -> None:
    with pytest.raises(InvalidInput, match="named twice") as caught:
        SearchAddress(facet=["printed:month", "genre", "printed:year"]).request()
    assert caught.value.code == "bad_facet"
    with pytest.raises(ValidationError, match="mod"):
        SearchAddress.model_validate({"q": "sea", "mod": "sparse"})


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=30))
def test_garbage_in_an_address_is_refused_or_read(sort: str, one: str, written: str) -> None:
    try:
        SearchRequest.model_validate(read_short(written, [sort], [one]))
    except InvalidInput as error:
        assert error.code in ("bad_sort", "bad_facet", "bad_filter")


def test_a_filter_demands_that_one_of_optional_clauses_matches() -> None:
    optional = {"bool": {"should": [{"term": {"a": 1}}]}}
    assert add_filter(optional, [NOT_DELETED]) == {
        "bool": {"should": [{"term": {"a": 1}}], "filter": [NOT_DELETED], "minimum_should_match": 1}
    }
    # what has no optional clause would match nothing if one were demanded
    assert add_filter(NOT_DELETED, [NOT_DELETED]) == {"bool": {"must": [NOT_DELETED], "filter": [NOT_DELETED]}}


def test_the_order_of_many_is_that_of_their_keys() -> None:
    chance = random.Random(3)
    found = [(f"d{n}", float(100 - n)) for n in range(100)]
    values = {name: {"year": [float(chance.randrange(4))], "genre": [chance.choice("abc")]} for name, _ in found}
    by_hand = sorted(found, key=lambda one: (values[one[0]]["genre"][0], -values[one[0]]["year"][0], -one[1]))
    assert sort_documents(found, keys("genre", "year:desc"), values) == by_hand


COUNTS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 9))


@given(st.lists(COUNTS, min_size=1, max_size=4), st.integers(1, 8), st.integers(0, 3))
def test_counts_of_several_indexes_are_added_up_and_say_how_low_they_may_be(
    indexes: list[dict[str, int]], most: int, more: int
) -> None:
    """Each index lists its most frequent values and adds up the rest, as an engine does."""
    kept = most + more
    tallies, truth = [], Counter[str]()
    for counts in indexes:
        truth.update(counts)
        listed = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        left = sum(count for _, count in listed[kept:])
        tallies.append(Tally(dict(listed[:kept]), left, listed[kept - 1][1] if left else 0))
    found = facet_counts(facet("genre", terms=most), tallies, 100)
    buckets = {bucket["value"]: bucket["count"] for bucket in found["buckets"]}
    assert sum(buckets.values()) + found["other"] == sum(truth.values())
    bound = found.get("error_bound", 0)
    assert found["exact"] == (bound == 0)
    assert all(count <= truth[value] <= count + bound for value, count in buckets.items())
    least = min(buckets.values(), default=0)
    assert all(count <= least + bound for value, count in truth.items() if value not in buckets)
    if found["exact"]:
        assert sorted(buckets.values()) == sorted(sorted(truth.values(), reverse=True)[:most])


def test_ranges_and_dates_of_several_indexes_are_added_up() -> None:
    ranges = facet("year", ranges=[{"lt": 5}, {"gte": 3}])
    found = facet_counts(ranges, [Tally({0: 2, 1: 1}), Tally({0: 0, 1: 4})], 100)
    assert [bucket["count"] for bucket in found["buckets"]] == [2, 5]
    days = [Tally({0: 1, DAY: 2}), Tally({DAY: 3})]
    assert [one["count"] for one in facet_counts(facet("printed", dates="day"), days, 2)["buckets"]] == [1, 5]
    with pytest.raises(InvalidInput) as fine:
        facet_counts(facet("printed", dates="day"), [*days, Tally({9 * DAY: 1})], 2)
    assert fine.value.code == "facet_too_fine"
