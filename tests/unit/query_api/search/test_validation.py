"""Validation of a search request: its selection, and the short forms of an address."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from query_api.schemas.search_request import SearchRequest
from query_api.search.validation import EVERYTHING, SearchParameters, is_scored, parse_selection, read_short
from services.errors import InvalidInput
from services.index_spec import IndexSpec
from services.settings import Settings

SPEC = IndexSpec(
    fields={"year": "number", "genre": "keyword", "blurb": "text", "printed": "date", "lent": "boolean"},
)


def search(**members: Any) -> SearchRequest:
    return SearchRequest.model_validate({"query": "sea"} | members)


def test_a_plain_request_selects_nothing() -> None:
    assert parse_selection(search(), SPEC, Settings()) is EVERYTHING
    assert parse_selection(search(fields=["title", "metadata.year"]), SPEC, Settings()) is EVERYTHING


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
def test_the_documents_that_are_sorted_and_counted(
    members: dict[str, Any], among: str, here: bool, scored: bool
) -> None:
    request = search(**members)
    assert (request.chosen_among, request.is_ranked_by_api, is_scored(request)) == (among, here, scored)


def test_candidates_bring_the_values_to_sort_and_count_by() -> None:
    members: dict[str, Any] = {"sort": [{"field": "year"}, {"field": "_score"}], "facets": {"genre": {"terms": 3}}}
    assert parse_selection(search(**members), SPEC, Settings()).columns == {"year": "number", "genre": "keyword"}
    assert parse_selection(search(**members, mode="lexical"), SPEC, Settings()).columns == {}


def test_an_address_is_read_as_a_request() -> None:
    address = SearchParameters.model_validate(
        {"q": "sea", "sort": ["year:desc"], "facet": ["genre", "printed:month", "year:5"]}
    )
    assert address.request() == search(
        sort=[{"field": "year", "order": "desc"}],
        facets={"genre": {"terms": 10}, "printed": {"dates": "month"}, "year": {"terms": 5}},
    )
    assert SearchParameters().request() == SearchRequest()


def test_an_address_with_an_error_is_refused() -> None:
    with pytest.raises(InvalidInput, match="named twice") as caught:
        SearchParameters(facet=["printed:month", "genre", "printed:year"]).request()
    assert caught.value.code == "bad_facet"
    with pytest.raises(ValidationError, match="mod"):
        SearchParameters.model_validate({"q": "sea", "mod": "sparse"})


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=30))
def test_arbitrary_text_in_an_address_is_read_or_refused(sort: str, facet: str, written: str) -> None:
    try:
        SearchRequest.model_validate(read_short(written, [sort], [facet]))
    except InvalidInput as error:
        assert error.code in ("bad_sort", "bad_facet", "bad_filter")
