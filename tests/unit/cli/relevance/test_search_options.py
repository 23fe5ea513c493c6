"""Searches, thresholds and declarations as options of an evaluation."""

import pytest

from cli.relevance.search_options import (
    parse_modes,
    parse_searches,
    parse_spec,
    parse_thresholds,
    parse_weights,
)
from services.errors import InvalidInput


def test_modes_and_weights_are_parsed() -> None:
    assert parse_modes("sparse, hybrid,sparse") == ["sparse", "hybrid"]
    assert parse_weights(".7,.3") == {"sparse": 0.7, "lexical": 0.3}
    assert parse_weights("1,0") == {"sparse": 1.0, "lexical": 0.0}


@pytest.mark.parametrize("text", ["", "dense", "sparse,bm25"])
def test_unknown_modes_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="sparse, lexical, hybrid"):
        parse_modes(text)


@pytest.mark.parametrize("text", ["", "1", "a,b", "0,0", "-1,2", "nan,1", "inf,1", "1,2,3"])
def test_bad_weights_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="two numbers"):
        parse_weights(text)


def test_searches_are_modes_and_named_requests() -> None:
    more = ['reranked={"rerank": {"model": "table"}}', 'wide={"mode": "sparse", "prune": 0}']
    assert parse_searches(["sparse", "hybrid"], {"sparse": 1.0, "lexical": 0.0}, more) == {
        "sparse": {"mode": "sparse"},
        "hybrid": {"mode": "hybrid", "weights": {"sparse": 1.0, "lexical": 0.0}},
        "reranked": {"mode": "hybrid", "rerank": {"model": "table"}},
        "wide": {"mode": "sparse", "prune": 0},
    }


@pytest.mark.parametrize(
    "text", ["", "x", "={}", "sparse={}", "x=[]", "x={", 'x={"size": 3}', 'x={"query": "a"}', "x=nan"]
)
def test_bad_searches_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_searches(["sparse"], None, [text])
    assert caught.value.code == "bad_search"


def test_thresholds_name_a_search_and_a_measure() -> None:
    assert parse_thresholds(["sparse:ndcg@10=.45", "a:b:map=1"], {"sparse", "a:b"}) == [
        ("sparse", "ndcg@10", 0.45),
        ("a:b", "map", 1.0),
    ]


@pytest.mark.parametrize(
    "text", ["", "sparse", "sparse:ndcg@10", "sparse:p@5=.1", "other:map=.1", "sparse:map=nan", "sparse:map=2"]
)
def test_bad_thresholds_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_thresholds([text], {"sparse"})
    assert caught.value.code == "bad_threshold"


def test_a_declaration_is_an_object() -> None:
    assert parse_spec('{"windows": "nested"}') == {"windows": "nested"}
    with pytest.raises(InvalidInput, match="bad_spec"):
        parse_spec("nested")
