"""Tests of sparse and dense vectors as OpenSearch stores them."""

import base64
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.encoders.vectors import (
    EMPTY_VECTOR,
    MAX_VOCABULARY,
    SMALLEST_WEIGHT,
    PackedVector,
    SparseVector,
    StoredDenseVectors,
    apply_dense_feedback,
    merge_max,
    merge_neighbouring_windows,
    pack_dense_vectors,
    truncate_weights,
    window_row_dtype,
)
from services.errors import InvalidInput

WEIGHT = st.floats(min_value=2.0**-100, max_value=2.0**100, width=32)
# Ids of two bytes, and of four.
IDS = st.one_of(st.integers(0, 65_535), st.integers(0, MAX_VOCABULARY - 1))
VECTOR = st.dictionaries(IDS, WEIGHT, max_size=60).map(
    lambda pieces: SparseVector.of(list(pieces), list(pieces.values()))
)


@given(WEIGHT)
def test_truncation_keeps_nine_significant_bits(weight: float) -> None:
    kept = float(truncate_weights([weight])[0])
    assert 0 <= weight - kept <= weight / 256
    mantissa, _ = math.frexp(kept)
    assert (mantissa * 512).is_integer()


@given(WEIGHT)
def test_truncation_is_a_projection(weight: float) -> None:
    once = truncate_weights([weight])
    assert truncate_weights(once) == once


def test_truncation_of_known_weights() -> None:
    # 0.1 is 0x3DCCCCCD. Without the low 15 bits it is 0x3DCC8000.
    assert truncate_weights([0.1]).view(np.uint32)[0] == 0x3DCC8000
    assert truncate_weights([1.0, 2.5]).tolist() == [1.0, 2.5]


@given(VECTOR)
def test_packing_loses_nothing(vector: SparseVector) -> None:
    again = SparseVector.unpack(vector.pack())
    assert again.ids.tolist() == vector.ids.tolist()
    assert again.weights.tolist() == vector.weights.tolist()


@given(VECTOR, st.dictionaries(IDS, st.floats(0, 100), max_size=20))
def test_a_packed_vector_scores_like_the_unpacked_one(vector: SparseVector, query: dict[int, float]) -> None:
    query |= dict.fromkeys(vector.ids[::2].tolist(), 0.5)
    assert PackedVector(vector.pack()).dot(query) == vector.dot(query)


def test_only_large_ids_take_four_bytes() -> None:
    assert SparseVector.of([0, 65_535], [1.0, 2.0]).pack() == "AAD//wB/AIA="
    wide = SparseVector.of([0, 65_536], [1.0, 2.0]).pack()
    assert wide == "~AAAAAAAAAQAAfwCA"
    assert SparseVector.unpack(wide).ids.tolist() == [0, 65_536]
    for text in ("~AAAAAAAA~", "~AAAA"):
        with pytest.raises(InvalidInput, match="6 bytes a piece"):
            SparseVector.unpack(text)


@pytest.mark.parametrize("text", ["%%%", "AAA", "AAAAAAA=", "AAAAAAAA"])
def test_unpacking_refuses_invalid_vectors(text: str) -> None:
    if text == "AAAAAAAA":  # six bytes are one and a half pieces
        with pytest.raises(InvalidInput, match="4 bytes a piece"):
            SparseVector.unpack(text)
        return
    with pytest.raises(InvalidInput):
        SparseVector.unpack(text)
    with pytest.raises(InvalidInput):
        PackedVector(text).dot({1: 1.0})


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1.0])
def test_weights_that_opensearch_refuses_are_refused(weight: float) -> None:
    with pytest.raises(InvalidInput) as caught:
        SparseVector.of([1], [weight])
    assert caught.value.code == "bad_vector"


@pytest.mark.parametrize("ids", [[-1], [MAX_VOCABULARY], [3, 3]])
def test_ids_are_distinct_and_pieces_of_a_vocabulary(ids: list[int]) -> None:
    with pytest.raises(InvalidInput):
        SparseVector.of(ids, [1.0] * len(ids))


def test_weights_too_small_to_store_are_dropped() -> None:
    vector = SparseVector.of([1, 2, 3], [0.0, SMALLEST_WEIGHT, SMALLEST_WEIGHT / 2])
    assert vector.ids.tolist() == [2]


def test_features_are_named_by_id() -> None:
    assert SparseVector.of([1012, 7], [0.5, 2.0]).features() == {"7": 2.0, "1012": 0.5}


def test_top_keeps_the_heaviest_pieces_and_breaks_ties_by_id() -> None:
    vector = SparseVector.of([1, 2, 3, 4], [1.0, 3.0, 1.0, 2.0])
    assert vector.top(3).ids.tolist() == [1, 2, 4]
    assert vector.top(9) is vector


@given(st.lists(VECTOR, max_size=5))
def test_merging_takes_the_largest_weight_of_each_piece(vectors: list[SparseVector]) -> None:
    expected: dict[int, float] = {}
    for vector in vectors:
        for i, weight in zip(vector.ids.tolist(), vector.weights.tolist(), strict=True):
            expected[i] = max(weight, expected.get(i, 0.0))
    merged = merge_max(vectors)
    assert dict(zip(merged.ids.tolist(), merged.weights.tolist(), strict=True)) == expected
    assert merged.ids.tolist() == sorted(expected)


def test_merging_nothing_gives_the_empty_vector() -> None:
    assert merge_max([]) is EMPTY_VECTOR


def test_dot_is_the_sum_over_shared_pieces() -> None:
    assert SparseVector.of([1, 2, 9], [0.5, 2.0, 4.0]).dot({2: 3.0, 9: 0.25, 10: 7.0}) == 7.0


def units(count: int, width: int = 384, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def test_a_packed_window_has_its_width_plus_four_bytes() -> None:
    assert window_row_dtype(384).itemsize == 388
    assert len(base64.b64decode(pack_dense_vectors(units(3)))) == 3 * 388


def test_rounding_moves_a_dot_product_by_less_than_a_hundredth() -> None:
    vectors, queries = units(50), units(20, seed=1)
    stored = StoredDenseVectors.read({"a": pack_dense_vectors(vectors)}, 384)
    assert np.abs(stored.rows @ queries.T - vectors @ queries.T).max() < 0.01
    assert np.abs(stored.rows - vectors).max() <= np.abs(vectors).max() / 127


def test_each_document_is_scored_by_its_best_window() -> None:
    vectors = units(6)
    stored = StoredDenseVectors.read(
        {
            "a": pack_dense_vectors(vectors[:1]),
            "none": "",
            "b": pack_dense_vectors(vectors[1:5]),
            "c": pack_dense_vectors(vectors[5:]),
        },
        384,
    )
    query = units(1, seed=2)[0]
    similar = vectors @ query
    found = stored.scores(query)
    assert list(found) == ["a", "b", "c"]
    for name, rows in {"a": similar[:1], "b": similar[1:5], "c": similar[5:]}.items():
        assert found[name] == pytest.approx(rows.max(), abs=0.01)
    best = stored.best_windows(query, ["c", "gone", "b"])
    assert np.allclose(best, vectors[[5, 1 + int(similar[1:5].argmax())]], atol=0.01)


def test_doc_values_without_base64_padding_are_read() -> None:
    text = pack_dense_vectors(units(1, 6))
    assert text.endswith("=")
    assert StoredDenseVectors.read({"a": text.rstrip("=")}, 6).rows.shape == (1, 6)


def test_no_documents() -> None:
    stored = StoredDenseVectors.read({}, 8)
    assert stored.scores(np.ones(8, np.float32)) == {}
    assert stored.best_windows(np.ones(8, np.float32), ["a"]).shape == (0, 8)


def test_zero_vectors_stay_zero() -> None:
    assert StoredDenseVectors.read({"a": pack_dense_vectors(np.zeros((2, 4)))}, 4).rows.tolist() == [[0] * 4] * 2
    assert pack_dense_vectors(np.zeros((0, 4))) == ""


@pytest.mark.parametrize("bad", [np.ones(4), np.full((1, 4), np.nan), np.full((1, 4), np.inf), np.ones((1, 0))])
def test_vectors_that_cannot_be_stored_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match="bad_vector"):
        pack_dense_vectors(bad)


@pytest.mark.parametrize("bad", ["ä", "abc", "AAAA", pack_dense_vectors(units(1, 5))])
def test_invalid_packed_vectors_are_refused(bad: str) -> None:
    with pytest.raises(InvalidInput, match="bad_vector"):
        StoredDenseVectors.read({"a": bad}, 4)


def test_windows_of_a_very_long_document_are_merged() -> None:
    vectors = units(10, 4)
    assert merge_neighbouring_windows(vectors, 10) is vectors
    found = merge_neighbouring_windows(vectors, 4)
    assert found.shape == (4, 4)
    first = vectors[:3].mean(axis=0)
    np.testing.assert_allclose(found[0], first / np.linalg.norm(first), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_feedback_moves_the_query_towards_the_documents() -> None:
    query, documents = units(1)[0], units(3, seed=3)
    nearer = apply_dense_feedback(query, documents, 0.5)
    assert (documents @ nearer).mean() > (documents @ query).mean()
    assert np.linalg.norm(nearer) == pytest.approx(1, abs=1e-5)
    assert apply_dense_feedback(query, documents[:0], 0.5) is query
    np.testing.assert_allclose(apply_dense_feedback(query, documents, 0.0), query, rtol=1e-5)
    opposite = apply_dense_feedback(query, -query[None, :], 0.5)
    assert np.isfinite(opposite).all()
