"""Queries put together from several origins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.encoders.query_table import MAX_QUERY_WEIGHT, QueryVector
from services.query.expansion import OriginWeights, QueryBlend, heaviest_pieces

WEIGHTS = st.dictionaries(st.integers(0, 30), st.floats(1e-30, 1e30), max_size=12)
ANY_WEIGHTS = st.dictionaries(st.integers(0, 30), st.floats(-1e30, 1e30), max_size=12)
SHARES = st.lists(st.builds(OriginWeights, st.sampled_from(["like", "unlike", "context"]), ANY_WEIGHTS), max_size=4)


def query(weights: dict[int, float]) -> QueryVector:
    return QueryVector(tuple(weights), tuple(weights.values()), len(weights))


@given(WEIGHTS, SHARES, st.integers(1, 20), st.floats(0, 100))
def test_weights_can_be_searched_with_and_are_explained(
    weights: dict[int, float], shares: list[OriginWeights], most: int, factor: float
) -> None:
    blend = QueryBlend.of(query(weights)).plus(shares, most, factor)
    by_id = blend.vector.by_id()
    assert len(by_id) == len(blend.vector.ids) <= most
    assert by_id.keys() == blend.origins.keys()
    for piece, weight in by_id.items():
        assert 0 < weight <= MAX_QUERY_WEIGHT
        assert sum(blend.origins[piece].values()) == pytest.approx(weight, rel=1e-9)


@given(WEIGHTS)
def test_nothing_added_is_nothing_changed(weights: dict[int, float]) -> None:
    blend = QueryBlend.of(query(weights))
    assert blend.plus([OriginWeights("like", {}), OriginWeights("unlike", {})], 1024) == blend
    assert blend.vector == query(weights)


def test_own_pieces_come_before_new_ones_and_the_heaviest_new_ones_stay() -> None:
    added = OriginWeights("feedback", {5: 3.0, 6: 9.0, 7: 9.0, 1: 1.0})
    blend = QueryBlend.of(query({2: 0.1, 1: 0.5})).plus([added], 4)
    assert blend.vector.by_id() == {2: 0.1, 1: 1.5, 6: 9.0, 7: 9.0}
    assert list(blend.vector.ids) == [2, 1, 6, 7]
    assert blend.origins[1] == {"query": 0.5, "feedback": 1.0}
    assert blend.origins[6] == {"feedback": 9.0}


def test_what_is_taken_away_ends_at_nothing() -> None:
    blend = QueryBlend.of(query({1: 2.0, 2: 1.0, 3: 1.0})).plus(
        [OriginWeights("unlike", {1: -0.5, 2: -1.0, 3: -5.0, 4: -1.0})], 10
    )
    assert blend.vector.by_id() == {1: 1.5}
    assert blend.origins == {1: {"query": 2.0, "unlike": -0.5}}


def test_a_factor_is_of_what_was_there() -> None:
    first = QueryBlend.of(query({1: 2.0})).plus([OriginWeights("like", {2: 1.0})], 10)
    second = first.plus([OriginWeights("feedback", {2: 1.0})], 10, 0.5)
    assert second.vector.by_id() == {1: 1.0, 2: 1.5}
    assert second.origins == {1: {"query": 1.0}, 2: {"like": 0.5, "feedback": 1.0}}
    assert second.weight == 2.5


def test_no_boost_is_infinite() -> None:
    blend = QueryBlend.of(query({1: MAX_QUERY_WEIGHT})).plus([OriginWeights("like", {1: MAX_QUERY_WEIGHT})], 10, 100.0)
    assert blend.vector.weights == (MAX_QUERY_WEIGHT,)


def test_the_heaviest_pieces() -> None:
    assert list(heaviest_pieces({3: 1.0, 2: 2.0, 1: 1.0}, 2).items()) == [(2, 2.0), (1, 1.0)]
    assert heaviest_pieces({}, 5) == {}
