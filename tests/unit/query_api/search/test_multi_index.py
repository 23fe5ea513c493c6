"""Validation of a search over several indexes."""

import pytest

from query_api.schemas.search_request import MultiIndexRequest
from query_api.search.multi_index import SUPPORTED_MEMBERS, check_multi_index
from services.errors import InvalidInput
from services.settings import Settings

SETTINGS = Settings(encoder="standin", max_indexes=3)


class Later(MultiIndexRequest):
    """A search of a later release, with a member that searches of several indexes do not support."""

    colour: str | None = None


def code_of(request: MultiIndexRequest) -> str:
    with pytest.raises(InvalidInput) as caught:
        check_multi_index(request, SETTINGS)
    return caught.value.code


def test_an_unsupported_member_is_refused_unless_it_has_its_default() -> None:
    check_multi_index(Later(indexes=["a", "b"], query="x"), SETTINGS)
    check_multi_index(Later(indexes=["a", "b"], query="x", colour=None), SETTINGS)
    assert code_of(Later(indexes=["a", "b"], query="x", colour="red")) == "not_across_indexes"


def test_every_member_is_supported_or_left_out_on_purpose() -> None:
    """If a new member of a search makes the test fail, support it for several indexes or add it below."""
    refused = {"rerank", "feedback", "like", "unlike", "include_liked", "unit", "per_document"}
    assert MultiIndexRequest.model_fields.keys() - SUPPORTED_MEMBERS == refused


def test_the_number_of_indexes_is_limited_and_none_is_repeated() -> None:
    assert code_of(MultiIndexRequest(indexes=["a", "b", "c", "d"], query="x")) == "too_many_indexes"
    assert code_of(MultiIndexRequest(indexes=["a", "a"], query="x")) == "repeated_index"
    assert code_of(MultiIndexRequest(indexes=["a", "b"], query=" ")) == "empty_query"
