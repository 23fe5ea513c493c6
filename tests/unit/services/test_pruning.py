"""Query pruning, and the two parts of a query that two phases are made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.encoders.query_table import QueryVector
from services.opensearch.queries import add_rescore, build_search_body, sparse_query
from services.query.expansion import prune_query, split_query

QUERIES = st.dictionaries(st.integers(0, 65535), st.floats(1e-6, 30), max_size=20).map(
    lambda weights: QueryVector(tuple(weights), tuple(weights.values()), len(weights))
)
SHARES = st.floats(0, 1)
QUERY = QueryVector((7, 3, 9, 1), (1.0, 10.0, 3.0, 2.9), 5)


def test_pieces_below_the_share_are_left_out_and_named() -> None:
    assert prune_query(QUERY, 0.3) == QueryVector((3, 9), (10.0, 3.0), 5, ((7, 1.0), (1, 2.9)))
    assert prune_query(QUERY, 0.0) is QUERY
    assert prune_query(QUERY, 0.99).ids == (3,)


def test_an_empty_query_stays_empty() -> None:
    empty = QueryVector((), (), 3)
    assert prune_query(empty, 0.5) == empty
    assert split_query(empty, 0.5) == (empty, empty)


def test_pruning_twice_names_all_that_is_gone() -> None:
    twice = prune_query(prune_query(QUERY, 0.2), 0.3)
    assert twice.ids == (3, 9)
    assert dict(twice.pruned) == {7: 1.0, 1: 2.9}


@given(QUERIES, SHARES)
def test_the_parts_make_the_whole(query: QueryVector, threshold: float) -> None:
    head, tail = split_query(query, threshold)
    assert head.by_id() | tail.by_id() == query.by_id()
    assert not head.by_id().keys() & tail.by_id().keys()
    assert [i for i in query.ids if i in head.by_id()] == list(head.ids)
    assert [i for i in query.ids if i in tail.by_id()] == list(tail.ids)


@given(QUERIES, SHARES, SHARES)
def test_the_heaviest_stays_and_more_pruning_never_keeps_more(query: QueryVector, one: float, other: float) -> None:
    less, more = (prune_query(query, share) for share in sorted((one, other)))
    assert set(more.ids) <= set(less.ids)
    for left in (less, more):
        assert max(left.weights, default=0) == max(query.weights, default=0)
        assert left.by_id() | dict(left.pruned) == query.by_id()


@given(QUERIES, SHARES, st.floats(0.125, 8))
def test_the_unit_of_the_weights_plays_no_part(query: QueryVector, share: float, unit: float) -> None:
    least = share * max(query.weights, default=0.0)
    if any(weight == pytest.approx(least, rel=1e-9) for weight in query.weights):
        return  # rounding decides
    scaled = QueryVector(query.ids, tuple(unit * weight for weight in query.weights), query.pieces)
    assert prune_query(scaled, share).ids == prune_query(query, share).ids


def test_a_second_phase_adds_exactly_the_scores_of_the_tail() -> None:
    head, tail = split_query(QUERY, 0.5)
    found = add_rescore(build_search_body(sparse_query(head), 10, False, 1.0), tail, 50)
    assert found["query"] == sparse_query(head)
    assert found["size"] == 10
    assert found["rescore"] == {
        "window_size": 50,
        "query": {"rescore_query": sparse_query(tail), "query_weight": 1, "rescore_query_weight": 1},
    }
