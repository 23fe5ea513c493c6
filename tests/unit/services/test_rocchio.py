"""Rocchio over sparse vectors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.encoders.query_table import QueryVector
from services.encoders.vectors import EMPTY_VECTOR, SparseVector
from services.query.expansion import QueryBlend, RocchioParameters, apply_rocchio, compute_centroid

IDS = st.integers(0, 40)
QUERIES = st.dictionaries(IDS, st.floats(0.05, 20), max_size=8)
VECTORS = st.lists(
    st.dictionaries(IDS, st.floats(0.01, 10), max_size=12).map(lambda w: SparseVector.of(list(w), list(w.values()))),
    max_size=5,
)
PARAMETERS = st.builds(
    RocchioParameters, st.floats(0, 100), st.floats(0, 100), st.floats(0, 100), st.integers(min_value=1, max_value=30)
)
MOST = 25


def query(weights: dict[int, float]) -> QueryBlend:
    return QueryBlend.of(QueryVector(tuple(weights), tuple(weights.values()), len(weights)))


def table(piece: int) -> float:
    """Every seventh piece is one that queries cannot have."""
    return float(piece % 7)


def vector(**weights: float) -> SparseVector:
    return SparseVector.of([int(name[1:]) for name in weights], list(weights.values()))


@given(QUERIES, PARAMETERS, VECTORS, VECTORS)
def test_never_negative_capped_and_explained(
    weights: dict[int, float], parameters: RocchioParameters, liked: list[SparseVector], unliked: list[SparseVector]
) -> None:
    blend = apply_rocchio(query(weights), parameters, table, MOST, liked=liked, unliked=unliked)
    by_id = blend.vector.by_id()
    assert all(weight > 0 for weight in by_id.values())
    assert len(by_id) <= MOST
    assert len(by_id.keys() - weights.keys()) <= parameters.pieces
    assert all(table(piece) > 0 for piece in by_id.keys() - weights.keys())
    for piece, weight in by_id.items():
        assert sum(blend.origins[piece].values()) == pytest.approx(weight, rel=1e-9, abs=1e-12)


@given(QUERIES, VECTORS, VECTORS)
def test_without_weight_nothing_changes(
    weights: dict[int, float], liked: list[SparseVector], unliked: list[SparseVector]
) -> None:
    same = RocchioParameters(alpha=1, beta=0, gamma=0)
    assert apply_rocchio(query(weights), same, table, MOST, liked=liked, unliked=unliked) == query(weights)


@given(QUERIES)
def test_without_documents_nothing_changes(weights: dict[int, float]) -> None:
    assert apply_rocchio(query(weights), RocchioParameters(), table, MOST) == query(weights)
    assert apply_rocchio(
        query(weights), RocchioParameters(), table, MOST, liked=[EMPTY_VECTOR], unliked=[EMPTY_VECTOR]
    ) == query(weights)


@given(QUERIES, PARAMETERS, VECTORS, VECTORS, st.randoms(use_true_random=False))
def test_the_order_of_documents_does_not_matter(
    weights: dict[int, float],
    parameters: RocchioParameters,
    liked: list[SparseVector],
    unliked: list[SparseVector],
    draw: object,
) -> None:
    ordered = apply_rocchio(query(weights), parameters, table, MOST, liked=liked, unliked=unliked)
    draw.shuffle(liked)  # type: ignore[attr-defined]
    draw.shuffle(unliked)  # type: ignore[attr-defined]
    assert apply_rocchio(query(weights), parameters, table, MOST, liked=liked, unliked=unliked) == ordered


def test_a_document_is_weighed_with_the_table_and_has_unit_length() -> None:
    # as queries: {1: 4, 2: 3} and {1: 3}, of lengths 5 and 3
    found = compute_centroid([vector(p1=4.0, p2=1.5, p7=9.0), vector(p1=3.0)], table)
    assert found == {1: pytest.approx((0.8 + 1.0) / 2), 2: pytest.approx(0.6 / 2)}
    assert compute_centroid([], table) == {}


def test_liked_pieces_weigh_beta_of_the_query_together() -> None:
    blend = apply_rocchio(
        query({1: 6.0, 2: 4.0}), RocchioParameters(beta=0.5), table, MOST, liked=[vector(p3=1.0, p4=2.0)]
    )
    added = {piece: given["like"] for piece, given in blend.origins.items() if "like" in given}
    assert set(added) == {3, 4}
    assert sum(added.values()) == pytest.approx(5.0)
    assert blend.vector.by_id()[1] == 6.0


def test_without_words_liked_pieces_weigh_what_they_would_typed() -> None:
    blend = apply_rocchio(query({}), RocchioParameters(beta=1.0), table, MOST, liked=[vector(p3=1.0, p4=2.0, p7=5.0)])
    assert set(blend.vector.ids) == {3, 4}
    assert blend.weight == pytest.approx(table(3) + table(4))


def test_what_is_unliked_takes_away_and_adds_nothing() -> None:
    blend = apply_rocchio(
        query({1: 6.0, 2: 4.0}), RocchioParameters(gamma=0.2), table, MOST, unliked=[vector(p2=1.0, p3=1.0)]
    )
    # 2.0 of weight are taken: 2 of 5 parts from piece 2, the others from a piece that is not there
    assert blend.vector.by_id() == {1: 6.0, 2: pytest.approx(3.2)}
    assert blend.origins[2] == {"query": 4.0, "unlike": pytest.approx(-0.8)}


def test_liked_and_unliked_alike_leave_nothing() -> None:
    same = [vector(p3=1.0, p4=2.0)]
    blend = apply_rocchio(query({}), RocchioParameters(beta=1.0, gamma=1.0), table, MOST, liked=same, unliked=same)
    assert blend.vector.ids == ()
