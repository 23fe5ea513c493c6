"""Rights of principals: indexes, scopes and the form of key filters."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.access.principals import EVERYBODY, INDEX_PATTERN, NOBODY, Principal, check_key_filter
from services.errors import Forbidden, InvalidInput, Unauthorized


def test_index_rights_are_names_or_prefixes() -> None:
    who = Principal("k", frozenset({"search"}), ("books", "logs-*"))
    assert [name for name in ("books", "books2", "logs-", "logs-a", "log", "*") if who.may(name)] == [
        "books", "logs-", "logs-a",
    ]  # fmt: skip
    with pytest.raises(Forbidden, match="index_forbidden"):
        who.demand_index("other")
    EVERYBODY.demand_index("other")
    assert not NOBODY.may("books")


@given(st.from_regex(r"[a-z0-9*_,.%/-]{1,20}", fullmatch=True))
def test_a_pattern_has_a_star_only_at_the_end(text: str) -> None:
    plain = text.removesuffix("*")
    fits = text == "*" or re.fullmatch(r"[a-z0-9][a-z0-9_-]*", plain) is not None
    assert bool(INDEX_PATTERN.fullmatch(text)) == fits


def test_only_admin_includes_the_other_scopes() -> None:
    for scope in ("search", "ingest", "admin"):
        Principal("k", frozenset({"admin"})).demand_scope({scope})
    with pytest.raises(Forbidden) as refused:
        Principal("k", frozenset({"search", "ingest"})).demand_scope({"admin"})
    assert refused.value.extra == {"scopes": ["admin"]}
    with pytest.raises(Unauthorized, match="no_credentials"):
        NOBODY.demand_scope({"search"})


@pytest.mark.parametrize(
    "value",
    [
        {"field": "tenant", "is": "a"},
        {"field": "_id", "any_of": ["1", "2"]},
        {"all": [{"field": "year", "range": {"gte": 1990}}, {"not": {"any": [{"field": "x", "exists": True}]}}]},
    ],
)
def test_a_key_filter_is_decided_by_the_document_alone(value: object) -> None:
    check_key_filter(value, ["search"])
    for scopes in (["search", "ingest"], ["admin"], ["ingest"]):
        with pytest.raises(InvalidInput, match="bad_key_filter"):
            check_key_filter(value, scopes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        None, 1, "x", [], {}, {"field": "a"}, {"field": 1, "is": 2}, {"field": "a", "is": 1, "any_of": [1]},
        {"field": "a", "match": "word"}, {"field": "_state", "is": "dead"}, {"all": []}, {"all": {}}, {"or": [1]},
        {"not": {"field": "a", "match": "word"}}, {"any": [{"all": [{"field": "_state", "is": "dead"}]}]},
        {"field": "a", "script": "x"}, {"all": [{"field": "a", "is": 1}], "any": []},
        {"field": "a", "is": 10**30}, {"field": "a", "any_of": ["\ud800"]}, {"not": {"field": "a", "is": [10**20]}},
    ],
)  # fmt: skip
def test_other_key_filters_are_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="bad_key_filter"):
        check_key_filter(value, ["search"])
    deep: object = {"field": "a", "is": 1}
    for _ in range(8):
        deep = {"not": deep}
    with pytest.raises(InvalidInput, match="bad_key_filter"):
        check_key_filter(deep, ["search"])
