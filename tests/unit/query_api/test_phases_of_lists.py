"""The window of a list's second phase."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from query_api.schemas.search_request import SearchRequest
from query_api.search.context import SearchContext
from query_api.search.page_state import PageState
from query_api.search.query_builder import split_phases
from services.encoders.query_table import QueryVector
from services.settings import Settings


def window(request: dict[str, Any], size: int, page: PageState | None) -> int:
    context = SimpleNamespace(
        request=SearchRequest.model_validate({"query": "light heavy", "two_phase": {"threshold": 0.5}} | request),
        query=QueryVector((1, 2), (0.1, 1.0), 2),
        page=page,
        settings=Settings(),
    )
    return split_phases(cast(SearchContext, context), size).window


@pytest.mark.parametrize("by", [{"mode": "hybrid"}, {"mode": "sparse", "sort": [{"field": "year"}]}])
def test_a_list_that_is_fused_or_sorted_is_the_same_for_every_page(by: dict[str, Any]) -> None:
    first = window(by, 100, PageState(depth=100))
    assert first == window(by, 100, PageState(190, depth=100)) == window(by, 100, None) == 200


def test_a_page_of_one_list_lies_within_the_window() -> None:
    assert window({"mode": "sparse"}, 10, PageState(300)) > 310


def test_a_list_under_a_filter_is_made_in_one_phase() -> None:
    """Of the few documents that a filter leaves heavy pieces find too few, and the list would be asked for twice."""
    assert window({"mode": "sparse"}, 10, None) == 200
    assert window({"mode": "sparse", "filter": {"field": "year", "is": 1851}}, 10, None) == 0
