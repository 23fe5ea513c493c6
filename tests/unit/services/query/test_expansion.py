"""Tests of query expansion: blends, Rocchio feedback, pruning, and conversations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.encoders.query_table import MAX_QUERY_WEIGHT, QueryVector
from services.encoders.vectors import EMPTY_VECTOR, SparseVector
from services.opensearch.queries import add_rescore, build_search_body, sparse_query
from services.query.expansion import (
    MAX_CONTEXT_WORDS,
    ConversationMemory,
    OriginWeights,
    QueryBlend,
    RocchioParameters,
    apply_rocchio,
    compute_centroid,
    context_pieces,
    context_words,
    distinct_words,
    heaviest_pieces,
    prune_query,
    split_query,
)

WEIGHTS = st.dictionaries(st.integers(0, 30), st.floats(1e-30, 1e30), max_size=12)
ANY_WEIGHTS = st.dictionaries(st.integers(0, 30), st.floats(-1e30, 1e30), max_size=12)
ORIGINS = st.lists(st.builds(OriginWeights, st.sampled_from(["like", "unlike", "context"]), ANY_WEIGHTS), max_size=4)


def query_vector(weights: dict[int, float]) -> QueryVector:
    return QueryVector(tuple(weights), tuple(weights.values()), len(weights))


@given(WEIGHTS, ORIGINS, st.integers(1, 20), st.floats(0, 100))
def test_weights_are_valid_boosts_and_the_sum_of_their_origins(
    weights: dict[int, float], shares: list[OriginWeights], most: int, factor: float
) -> None:
    blend = QueryBlend.of(query_vector(weights)).plus(shares, most, factor)
    by_id = blend.vector.by_id()
    assert len(by_id) == len(blend.vector.ids) <= most
    assert by_id.keys() == blend.origins.keys()
    for piece, weight in by_id.items():
        assert 0 < weight <= MAX_QUERY_WEIGHT
        assert sum(blend.origins[piece].values()) == pytest.approx(weight, rel=1e-9)


@given(WEIGHTS)
def test_adding_nothing_changes_nothing(weights: dict[int, float]) -> None:
    blend = QueryBlend.of(query_vector(weights))
    assert blend.plus([OriginWeights("like", {}), OriginWeights("unlike", {})], 1024) == blend
    assert blend.vector == query_vector(weights)


def test_query_pieces_come_first_and_the_heaviest_added_pieces_stay() -> None:
    added = OriginWeights("feedback", {5: 3.0, 6: 9.0, 7: 9.0, 1: 1.0})
    blend = QueryBlend.of(query_vector({2: 0.1, 1: 0.5})).plus([added], 4)
    assert blend.vector.by_id() == {2: 0.1, 1: 1.5, 6: 9.0, 7: 9.0}
    assert list(blend.vector.ids) == [2, 1, 6, 7]
    assert blend.origins[1] == {"query": 0.5, "feedback": 1.0}
    assert blend.origins[6] == {"feedback": 9.0}


def test_weights_never_become_negative() -> None:
    blend = QueryBlend.of(query_vector({1: 2.0, 2: 1.0, 3: 1.0})).plus(
        [OriginWeights("unlike", {1: -0.5, 2: -1.0, 3: -5.0, 4: -1.0})], 10
    )
    assert blend.vector.by_id() == {1: 1.5}
    assert blend.origins == {1: {"query": 2.0, "unlike": -0.5}}


def test_a_factor_scales_the_earlier_weights() -> None:
    first = QueryBlend.of(query_vector({1: 2.0})).plus([OriginWeights("like", {2: 1.0})], 10)
    second = first.plus([OriginWeights("feedback", {2: 1.0})], 10, 0.5)
    assert second.vector.by_id() == {1: 1.0, 2: 1.5}
    assert second.origins == {1: {"query": 1.0}, 2: {"like": 0.5, "feedback": 1.0}}
    assert second.weight == 2.5


def test_boosts_are_capped() -> None:
    blend = QueryBlend.of(query_vector({1: MAX_QUERY_WEIGHT})).plus(
        [OriginWeights("like", {1: MAX_QUERY_WEIGHT})], 10, 100.0
    )
    assert blend.vector.weights == (MAX_QUERY_WEIGHT,)


def test_the_heaviest_pieces() -> None:
    assert list(heaviest_pieces({3: 1.0, 2: 2.0, 1: 1.0}, 2).items()) == [(2, 2.0), (1, 1.0)]
    assert heaviest_pieces({}, 5) == {}


IDS = st.integers(0, 40)
QUERY_WEIGHTS = st.dictionaries(IDS, st.floats(0.05, 20), max_size=8)
VECTORS = st.lists(
    st.dictionaries(IDS, st.floats(0.01, 10), max_size=12).map(lambda w: SparseVector.of(list(w), list(w.values()))),
    max_size=5,
)
PARAMETERS = st.builds(
    RocchioParameters, st.floats(0, 100), st.floats(0, 100), st.floats(0, 100), st.integers(min_value=1, max_value=30)
)
MAX_PIECES = 25


def query_blend(weights: dict[int, float]) -> QueryBlend:
    return QueryBlend.of(QueryVector(tuple(weights), tuple(weights.values()), len(weights)))


def table(piece: int) -> float:
    """Return the weight of a piece in queries: 0 for every seventh piece."""
    return float(piece % 7)


def vector(**weights: float) -> SparseVector:
    return SparseVector.of([int(name[1:]) for name in weights], list(weights.values()))


@given(QUERY_WEIGHTS, PARAMETERS, VECTORS, VECTORS)
def test_rocchio_weights_are_positive_capped_and_explained(
    weights: dict[int, float], parameters: RocchioParameters, liked: list[SparseVector], unliked: list[SparseVector]
) -> None:
    blend = apply_rocchio(query_blend(weights), parameters, table, MAX_PIECES, liked=liked, unliked=unliked)
    by_id = blend.vector.by_id()
    assert all(weight > 0 for weight in by_id.values())
    assert len(by_id) <= MAX_PIECES
    assert len(by_id.keys() - weights.keys()) <= parameters.pieces
    assert all(table(piece) > 0 for piece in by_id.keys() - weights.keys())
    for piece, weight in by_id.items():
        assert sum(blend.origins[piece].values()) == pytest.approx(weight, rel=1e-9, abs=1e-12)


@given(QUERY_WEIGHTS, VECTORS, VECTORS)
def test_rocchio_without_weight_changes_nothing(
    weights: dict[int, float], liked: list[SparseVector], unliked: list[SparseVector]
) -> None:
    same = RocchioParameters(alpha=1, beta=0, gamma=0)
    assert apply_rocchio(query_blend(weights), same, table, MAX_PIECES, liked=liked, unliked=unliked) == query_blend(
        weights
    )


@given(QUERY_WEIGHTS)
def test_rocchio_without_documents_changes_nothing(weights: dict[int, float]) -> None:
    assert apply_rocchio(query_blend(weights), RocchioParameters(), table, MAX_PIECES) == query_blend(weights)
    assert apply_rocchio(
        query_blend(weights), RocchioParameters(), table, MAX_PIECES, liked=[EMPTY_VECTOR], unliked=[EMPTY_VECTOR]
    ) == query_blend(weights)


@given(QUERY_WEIGHTS, PARAMETERS, VECTORS, VECTORS, st.randoms(use_true_random=False))
def test_the_order_of_documents_does_not_matter(
    weights: dict[int, float],
    parameters: RocchioParameters,
    liked: list[SparseVector],
    unliked: list[SparseVector],
    draw: object,
) -> None:
    ordered = apply_rocchio(query_blend(weights), parameters, table, MAX_PIECES, liked=liked, unliked=unliked)
    draw.shuffle(liked)  # type: ignore[attr-defined]
    draw.shuffle(unliked)  # type: ignore[attr-defined]
    assert apply_rocchio(query_blend(weights), parameters, table, MAX_PIECES, liked=liked, unliked=unliked) == ordered


def test_a_document_is_weighted_by_the_table_and_has_unit_length() -> None:
    # Weighted as queries, the documents are {1: 4, 2: 3} and {1: 3}, of lengths 5 and 3.
    centroid = compute_centroid([vector(p1=4.0, p2=1.5, p7=9.0), vector(p1=3.0)], table)
    assert centroid == {1: pytest.approx((0.8 + 1.0) / 2), 2: pytest.approx(0.6 / 2)}
    assert compute_centroid([], table) == {}


def test_liked_pieces_weigh_beta_of_the_query_together() -> None:
    blend = apply_rocchio(
        query_blend({1: 6.0, 2: 4.0}), RocchioParameters(beta=0.5), table, MAX_PIECES, liked=[vector(p3=1.0, p4=2.0)]
    )
    added = {piece: given["like"] for piece, given in blend.origins.items() if "like" in given}
    assert set(added) == {3, 4}
    assert sum(added.values()) == pytest.approx(5.0)
    assert blend.vector.by_id()[1] == 6.0


def test_without_words_liked_pieces_have_their_query_weights() -> None:
    blend = apply_rocchio(
        query_blend({}), RocchioParameters(beta=1.0), table, MAX_PIECES, liked=[vector(p3=1.0, p4=2.0, p7=5.0)]
    )
    assert set(blend.vector.ids) == {3, 4}
    assert blend.weight == pytest.approx(table(3) + table(4))


def test_unliked_documents_subtract_weight_and_add_no_pieces() -> None:
    blend = apply_rocchio(
        query_blend({1: 6.0, 2: 4.0}), RocchioParameters(gamma=0.2), table, MAX_PIECES, unliked=[vector(p2=1.0, p3=1.0)]
    )
    # 2.0 is subtracted: 2/5 of it from piece 2, the rest from a piece that is not in the query.
    assert blend.vector.by_id() == {1: 6.0, 2: pytest.approx(3.2)}
    assert blend.origins[2] == {"query": 4.0, "unlike": pytest.approx(-0.8)}


def test_the_same_liked_and_unliked_documents_cancel_out() -> None:
    same = [vector(p3=1.0, p4=2.0)]
    blend = apply_rocchio(
        query_blend({}), RocchioParameters(beta=1.0, gamma=1.0), table, MAX_PIECES, liked=same, unliked=same
    )
    assert blend.vector.ids == ()


QUERIES = st.dictionaries(st.integers(0, 65535), st.floats(1e-6, 30), max_size=20).map(
    lambda weights: QueryVector(tuple(weights), tuple(weights.values()), len(weights))
)
THRESHOLDS = st.floats(0, 1)
QUERY = QueryVector((7, 3, 9, 1), (1.0, 10.0, 3.0, 2.9), 5)


def test_pieces_below_the_share_are_pruned_and_reported() -> None:
    assert prune_query(QUERY, 0.3) == QueryVector((3, 9), (10.0, 3.0), 5, ((7, 1.0), (1, 2.9)))
    assert prune_query(QUERY, 0.0) is QUERY
    assert prune_query(QUERY, 0.99).ids == (3,)


def test_an_empty_query_stays_empty() -> None:
    empty = QueryVector((), (), 3)
    assert prune_query(empty, 0.5) == empty
    assert split_query(empty, 0.5) == (empty, empty)


def test_pruning_twice_reports_all_pruned_pieces() -> None:
    twice = prune_query(prune_query(QUERY, 0.2), 0.3)
    assert twice.ids == (3, 9)
    assert dict(twice.pruned) == {7: 1.0, 1: 2.9}


@given(QUERIES, THRESHOLDS)
def test_head_and_tail_partition_the_query(query: QueryVector, threshold: float) -> None:
    head, tail = split_query(query, threshold)
    assert head.by_id() | tail.by_id() == query.by_id()
    assert not head.by_id().keys() & tail.by_id().keys()
    assert [i for i in query.ids if i in head.by_id()] == list(head.ids)
    assert [i for i in query.ids if i in tail.by_id()] == list(tail.ids)


@given(QUERIES, THRESHOLDS, THRESHOLDS)
def test_pruning_keeps_the_heaviest_piece_and_is_monotone(query: QueryVector, one: float, other: float) -> None:
    less, more = (prune_query(query, share) for share in sorted((one, other)))
    assert set(more.ids) <= set(less.ids)
    for left in (less, more):
        assert max(left.weights, default=0) == max(query.weights, default=0)
        assert left.by_id() | dict(left.pruned) == query.by_id()


@given(QUERIES, THRESHOLDS, st.floats(0.125, 8))
def test_pruning_does_not_depend_on_the_scale_of_the_weights(query: QueryVector, share: float, unit: float) -> None:
    least = share * max(query.weights, default=0.0)
    if any(weight == pytest.approx(least, rel=1e-9) for weight in query.weights):
        return  # the result depends on rounding
    scaled = QueryVector(query.ids, tuple(unit * weight for weight in query.weights), query.pieces)
    assert prune_query(scaled, share).ids == prune_query(query, share).ids


def test_the_second_phase_adds_the_scores_of_the_tail() -> None:
    head, tail = split_query(QUERY, 0.5)
    rescored = add_rescore(build_search_body(sparse_query(head), 10, False, 1.0), tail, 50)
    assert rescored["query"] == sparse_query(head)
    assert rescored["size"] == 10
    assert rescored["rescore"] == {
        "window_size": 50,
        "query": {"rescore_query": sparse_query(tail), "query_weight": 1, "rescore_query_weight": 1},
    }


MAX_WEIGHT = 10.0
TURN = st.dictionaries(st.integers(0, 30), st.floats(0.05, MAX_WEIGHT), max_size=10)
UNIT = st.floats(0, 1)
MEMORY = st.builds(ConversationMemory, UNIT, UNIT, st.floats(0, 10))


@given(TURN, st.lists(TURN, max_size=5), MEMORY, st.integers(1, 12))
def test_context_weighs_at_most_its_turn_and_adds_no_query_piece(
    now: dict[int, float], turns: list[dict[int, float]], memory: ConversationMemory, most: int
) -> None:
    share = context_pieces(now, turns, MAX_WEIGHT, memory, most)
    assert len(share.weights) <= most
    assert not share.weights.keys() & now.keys()
    for piece, weight in share.weights.items():
        assert 0 < weight <= max(turn[piece] for turn in turns if piece in turn) * (1 + 1e-12)


@given(TURN, st.lists(TURN, max_size=5))
def test_no_memory_adds_no_context(now: dict[int, float], turns: list[dict[int, float]]) -> None:
    assert context_pieces(now, turns, MAX_WEIGHT, ConversationMemory(share=0), 100).weights == {}
    assert context_pieces(now, [], MAX_WEIGHT, ConversationMemory(), 100).weights == {}


@given(TURN, st.lists(TURN, max_size=4), MEMORY)
def test_older_turns_never_weigh_more(
    now: dict[int, float], turns: list[dict[int, float]], memory: ConversationMemory
) -> None:
    fresh = context_pieces(now, turns, MAX_WEIGHT, memory, 1000).weights
    later = context_pieces(now, [*turns, {}], MAX_WEIGHT, memory, 1000).weights
    assert later.keys() <= fresh.keys()
    assert all(weight <= fresh[piece] for piece, weight in later.items())


def test_decay_and_rarity() -> None:
    turns = [{1: 10.0, 2: 5.0}, {3: 10.0, 4: 5.0, 9: 8.0}]
    share = context_pieces({9: 8.0}, turns, MAX_WEIGHT, ConversationMemory(share=0.5, decay=0.5, rarity=1.0), 10)
    assert share.origin == "context"
    assert share.weights == {3: 5.0, 1: 2.5, 4: 1.25, 2: 0.625}
    assert context_pieces({}, turns, MAX_WEIGHT, ConversationMemory(1.0, 0.0, 0.0), 10).weights == {
        3: 10.0,
        9: 8.0,
        4: 5.0,
    }


def test_negligible_weights_are_dropped() -> None:
    share = context_pieces({9: 10.0}, [{1: 10.0, 2: 0.9}], MAX_WEIGHT, ConversationMemory(0.5, 0.5, 0.0), 10)
    assert share.weights == {1: 5.0}
    assert context_words("now", ["rare common"], {"rare": 0.9, "common": 0.05}, ConversationMemory()).keys() == {"rare"}


def test_a_repeated_piece_has_its_largest_weight() -> None:
    assert context_pieces({}, [{1: 10.0}, {1: 10.0}], MAX_WEIGHT, ConversationMemory(0.5, 0.5, 0.0), 10).weights == {
        1: 5.0
    }


def test_words_of_the_query_are_not_added() -> None:
    relative = {"delete": 0.5, "a": 0.1, "file": 0.4, "on": 0.1, "windows": 0.6}
    carried = context_words(
        "And a File on macOS?", ["Delete a file on Windows"], relative, ConversationMemory(0.5, 0.5, 1.0)
    )
    assert carried == {"windows": pytest.approx(0.3), "delete": pytest.approx(0.25)}


def test_context_words_are_limited_and_unknown_words_ignored() -> None:
    turn = " ".join(f"w{n}" for n in range(60))
    known = {f"w{n}": n / 60 for n in range(1, 60)}
    carried = context_words("now", [turn], known, ConversationMemory())
    assert list(carried) == [f"w{n}" for n in range(59, 59 - MAX_CONTEXT_WORDS, -1)]
    assert context_words("now", ["strange"], {}, ConversationMemory()) == {}


@given(st.text(max_size=200))
def test_distinct_words_of_any_text(text: str) -> None:
    words = distinct_words(text)
    assert len(set(words)) == len(words)
    assert all(0 < len(word) <= 32 for word in words)
