"""A search request has the types of the OpenAPI document: no value is converted to another type."""

from typing import Any

import pytest
from pydantic import ValidationError

from query_api.schemas.search_request import SearchRequest


@pytest.mark.parametrize(
    "member",
    [
        {"size": "3"},
        {"size": True},
        {"offset": "0"},
        {"candidates": "100"},
        {"explain": "yes"},
        {"explain": 1},
        {"curation": "off"},
        {"include_liked": 0},
        {"did_you_mean": "yes"},
        {"prune": "0.2"},
        {"weights": {"sparse": "1"}},
        {"fusion": {"method": "rrf", "k": "60"}},
        {"two_phase": {"window": "200"}},
        {"passage": {"fragment": "true"}},
        {"highlight": {"characters": "60"}},
        {"feedback": {"documents": "3"}},
        {"context": {"turns": ["before"], "decay": "0.5"}},
        {"rerank": {"top": "20"}},
        {"rerank": {"feedback": {"documents": "1"}}},
        {"facets": {"genre": {"terms": "10"}}},
        {"facets": {"genre": {"terms": 3, "ignore_own_filter": "no"}}},
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused(member: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SearchRequest.model_validate({"query": "sea"} | member)


def test_integers_are_valid_numbers() -> None:
    members = {
        "query": "sea",
        "weights": {"sparse": 1, "lexical": 2},
        "prune": 0,
        "rerank": {"weight": 1, "feedback": {"documents": 2, "weight": 1}},
        "feedback": {"alpha": 2},
        "two_phase": {"threshold": 1},
    }
    assert SearchRequest.model_validate(members).model_dump(exclude_unset=True)["rerank"]["feedback"]["weight"] == 1
