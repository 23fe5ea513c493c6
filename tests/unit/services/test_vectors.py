"""Vectors as Lucene keeps them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.encoders.vectors import (
    EMPTY_VECTOR,
    SMALLEST_WEIGHT,
    PackedVector,
    SparseVector,
    merge_max,
    truncate_weights,
)
from services.errors import InvalidInput

WEIGHT = st.floats(min_value=2.0**-100, max_value=2.0**100, width=32)
VECTOR = st.dictionaries(st.integers(0, 65535), WEIGHT, max_size=60).map(
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
    # 0.1 is 0x3DCCCCCD; the low 15 bits cleared give 0x3DCC8000
    assert truncate_weights([0.1]).view(np.uint32)[0] == 0x3DCC8000
    assert truncate_weights([1.0, 2.5]).tolist() == [1.0, 2.5]


@given(VECTOR)
def test_packing_loses_nothing(vector: SparseVector) -> None:
    again = SparseVector.unpack(vector.pack())
    assert again.ids.tolist() == vector.ids.tolist()
    assert again.weights.tolist() == vector.weights.tolist()


@given(VECTOR, st.dictionaries(st.integers(0, 65535), st.floats(0, 100), max_size=20))
def test_a_packed_vector_scores_as_the_unpacked_one_does(vector: SparseVector, query: dict[int, float]) -> None:
    query |= dict.fromkeys(vector.ids[::2].tolist(), 0.5)
    assert PackedVector(vector.pack()).dot(query) == vector.dot(query)


@pytest.mark.parametrize("text", ["%%%", "AAA", "AAAAAAA=", "AAAAAAAA"])
def test_unpacking_refuses_what_packing_never_wrote(text: str) -> None:
    if text == "AAAAAAAA":  # six bytes: a piece and a half
        with pytest.raises(InvalidInput, match="four bytes a piece"):
            SparseVector.unpack(text)
        return
    with pytest.raises(InvalidInput):
        SparseVector.unpack(text)
    with pytest.raises(InvalidInput):
        PackedVector(text).dot({1: 1.0})


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1.0])
def test_a_weight_that_opensearch_refuses_is_refused_here(weight: float) -> None:
    with pytest.raises(InvalidInput) as caught:
        SparseVector.of([1], [weight])
    assert caught.value.code == "bad_vector"


@pytest.mark.parametrize("ids", [[-1], [65536], [3, 3]])
def test_ids_are_distinct_and_fit_two_bytes(ids: list[int]) -> None:
    with pytest.raises(InvalidInput):
        SparseVector.of(ids, [1.0] * len(ids))


def test_weights_too_small_to_store_are_left_out() -> None:
    vector = SparseVector.of([1, 2, 3], [0.0, SMALLEST_WEIGHT, SMALLEST_WEIGHT / 2])
    assert vector.ids.tolist() == [2]


def test_features_are_named_by_id() -> None:
    assert SparseVector.of([1012, 7], [0.5, 2.0]).features() == {"7": 2.0, "1012": 0.5}


def test_top_keeps_the_heaviest_and_of_equals_the_lower_id() -> None:
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
