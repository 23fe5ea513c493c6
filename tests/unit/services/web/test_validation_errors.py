"""Validation errors are worded for a reader of JSON, and name the branch of a union that was meant."""

import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from query_api.schemas.admin import CurationRequest, KeyRequest
from query_api.schemas.resources import RetryRequest
from query_api.schemas.search_request import SearchRequest
from services.errors import SparsewellError
from services.index_spec import IndexSpec
from services.web.validation_errors import describe_errors

# Names of Python and pydantic that are no words of JSON.
PYTHON = re.compile(
    r"\b(None|True|False|tuple|dict|bool|str|int|dictionary)\b|literal\[|function-|Input should|Value error|pydantic"
    r"|instance of|validator"
)
VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0.5, "", "x", [], [None], ["x"], {}, {"x": 1}, "x" * 5000]
)
OBJECTS = st.dictionaries(st.sampled_from(["window", "method", "text", "synonyms"]), VALUES)
MODELS = (SearchRequest, IndexSpec, KeyRequest, CurationRequest, RetryRequest)


def described(model: type[BaseModel], body: Any, *, known: bool = True) -> list[dict[str, str]]:
    with pytest.raises(ValidationError) as error:
        model.model_validate_json(orjson.dumps(body))
    return describe_errors(error.value.errors(), *([body] if known else []))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("body", "where", "message"),
    [
        ({"fusion": "x"}, "fusion", 'must be "min_max", "z_score" or "rrf"'),
        ({"fusion": {"method": "rrf", "k": 0}}, "fusion.k", "must be at least 1"),
        ({"fusion": {"method": "x"}}, "fusion.method", 'must be "min_max", "z_score" or "rrf"'),
        ({"two_phase": {"window": 0}}, "two_phase.window", "must be at least 1"),
        ({"two_phase": "yes"}, "two_phase", "must be true or false or an object"),
        ({"two_phase": None}, "two_phase", "must be true or false or an object"),
        ({"like": [7]}, "like.0", "must be a string or an object"),
        ({"like": ["a", {"txt": "a"}]}, "like.1.text", "is missing"),
        ({"size": "a"}, "size", "must be a whole number"),
        ({"size": 0}, "size", "must be at least 1"),
        ({"more": 1}, "more", "is unknown"),
        ({"facets": {"a": {}}}, "facets.a", "a facet has one of `terms`, `ranges` and `dates`"),
        ({"context": {"turns": []}}, "context.turns", "must have at least 1 item"),
        ({"prune": 2}, "prune", "must be less than 1.0"),
    ],
)
def test_the_place_and_the_message(body: Any, where: str, message: str, known: bool) -> None:
    assert {"where": where, "message": message} in described(SearchRequest, body, known=known)


def test_the_name_of_a_member_may_be_that_of_a_type() -> None:
    found = described(SearchRequest, {"facets": {"int": {"terms": 0}}})
    assert found == [{"where": "facets.int.terms", "message": "must be at least 1"}]


@given(st.sampled_from(MODELS), st.data())
def test_no_message_has_words_of_python(model: type[BaseModel], data: st.DataObject) -> None:
    members = st.sampled_from(sorted(model.model_fields))
    body = data.draw(st.dictionaries(members, VALUES | OBJECTS))
    try:
        model.model_validate_json(orjson.dumps(body))
    except ValidationError as error:
        entries = describe_errors(error.errors(), body)
        assert entries
        for entry in entries:
            assert not PYTHON.search(entry["message"]), entry
            assert not re.search(r"[\[(]", entry["where"]), entry
    except SparsewellError:
        pass
