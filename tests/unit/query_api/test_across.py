"""What may be asked of several indexes, and how their lists are put together."""

import pytest

from query_api.schemas.search_response import AcrossRequest
from query_api.search.multi_index import SUPPORTED_MEMBERS, check_across
from services.errors import InvalidInput
from services.settings import Settings

SETTINGS = Settings(encoder="standin", max_indexes=3)


class Later(AcrossRequest):
    """A search as a later release knows it, with a member that nobody taught to searches of several indexes."""

    colour: str | None = None


def code_of(request: AcrossRequest) -> str:
    with pytest.raises(InvalidInput) as caught:
        check_across(request, SETTINGS)
    return caught.value.code


def test_a_member_that_is_not_known_here_is_refused_rather_than_ignored() -> None:
    check_across(Later(indexes=["a", "b"], query="x"), SETTINGS)
    check_across(Later(indexes=["a", "b"], query="x", colour=None), SETTINGS)
    assert code_of(Later(indexes=["a", "b"], query="x", colour="red")) == "not_across_indexes"


def test_every_member_of_a_request_is_known_or_was_left_out_on_purpose() -> None:
    """A new member of a search fails here: make it work for several indexes, or name it below."""
    refused = {"rerank", "feedback", "like", "unlike", "include_liked", "unit", "per_document"}
    assert AcrossRequest.model_fields.keys() - SUPPORTED_MEMBERS == refused


def test_how_many_and_each_once() -> None:
    assert code_of(AcrossRequest(indexes=["a", "b", "c", "d"], query="x")) == "too_many_indexes"
    assert code_of(AcrossRequest(indexes=["a", "a"], query="x")) == "repeated_index"
    assert code_of(AcrossRequest(indexes=["a", "b"], query=" ")) == "empty_query"
