"""Bodies of lists: the window of the second phase, and filters beside optional clauses."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from query_api.schemas.search_request import SearchRequest
from query_api.search.context import SearchContext
from query_api.search.page_state import PageState
from query_api.search.query_builder import split_phases
from services.encoders.query_table import QueryVector
from services.opensearch.queries import NOT_DELETED, add_filter
from services.settings import Settings


def window(request: dict[str, Any], size: int, page: PageState | None) -> int:
    context = SimpleNamespace(
        request=SearchRequest.model_validate({"query": "light heavy", "two_phase": {"threshold": 0.5}} | request),
        query=QueryVector((1, 2), (0.1, 1.0), 2),
        page=page,
        settings=Settings(),
    )
    return split_phases(cast(SearchContext, context), size).window


@pytest.mark.parametrize("request_members", [{"mode": "hybrid"}, {"mode": "sparse", "sort": [{"field": "year"}]}])
def test_a_fused_or_sorted_list_has_the_same_window_on_every_page(request_members: dict[str, Any]) -> None:
    first = window(request_members, 100, PageState(depth=100))
    assert first == window(request_members, 100, PageState(190, depth=100)) == window(request_members, 100, None) == 200


def test_the_window_covers_the_page_of_a_single_list() -> None:
    assert window({"mode": "sparse"}, 10, PageState(300)) > 310


def test_a_filtered_list_has_one_phase() -> None:
    """Heavy pieces would find too few of the filtered documents, and a second request would be necessary."""
    assert window({"mode": "sparse"}, 10, None) == 200
    assert window({"mode": "sparse", "filter": {"field": "year", "is": 1851}}, 10, None) == 0


def test_a_filter_requires_a_match_of_an_optional_clause() -> None:
    optional = {"bool": {"should": [{"term": {"a": 1}}]}}
    assert add_filter(optional, [NOT_DELETED]) == {
        "bool": {"should": [{"term": {"a": 1}}], "filter": [NOT_DELETED], "minimum_should_match": 1}
    }
    # Without optional clauses, a query that required a match of one would match nothing.
    assert add_filter(NOT_DELETED, [NOT_DELETED]) == {"bool": {"must": [NOT_DELETED], "filter": [NOT_DELETED]}}
