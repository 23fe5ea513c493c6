"""Ranking a whole collection: against plain sorting, in blocks, with either form of vectors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training import mining
from models.training.mining import VectorCandidates
from models.training.teacher_vectors import DenseTeacherVectors, SparseRows, SparseTeacherVectors


def dense(seed: int, queries: int, passages: int) -> DenseTeacherVectors:
    rng = np.random.default_rng(seed)
    return DenseTeacherVectors("x", *(rng.standard_normal((n, 6)).astype(np.float16) for n in (queries, passages)))


def sparse(seed: int, queries: int, passages: int) -> SparseTeacherVectors:
    rng = np.random.default_rng(seed)

    def rows(count: int) -> SparseRows:
        lengths = rng.integers(0, 5, count)
        ids = [np.sort(rng.choice(12, length, replace=False)) for length in lengths]
        weights = rng.uniform(0.1, 2, int(lengths.sum()))
        flat = np.concatenate([*ids, np.empty(0, int)])
        return SparseRows.of(lengths, flat.astype(np.int32), weights.astype(np.float32))

    return SparseTeacherVectors("x", rows(queries), rows(passages))


@given(st.integers(0, 100), st.integers(1, 40), st.integers(1, 12))
def test_dense_lists_are_those_of_plain_sorting(seed: int, passages: int, depth: int) -> None:
    vectors = dense(seed, 5, passages)
    rows = np.array([4, 0, 4])
    found = VectorCandidates(vectors, "f").best(rows, depth)
    assert (found.dtype, found.shape) == (np.int32, (3, depth))
    scores = vectors.scores(rows, np.arange(passages))
    for row, line in zip(found, scores, strict=True):
        listed = row[row >= 0]
        assert listed.size == min(depth, passages)
        np.testing.assert_array_equal(line[listed], np.sort(line)[::-1][: listed.size])
        assert (row[listed.size :] == -1).all()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = dense(1, 5, 40)
    rows = np.arange(5)
    whole = VectorCandidates(vectors, "f").best(rows, 7)
    monkeypatch.setattr(mining, "BLOCK_SCORES", 5 * 9)
    np.testing.assert_array_equal(VectorCandidates(vectors, "f").best(rows, 7), whole)


@given(st.integers(0, 100), st.integers(0, 40), st.integers(1, 12))
def test_sparse_lists_hold_what_shares_a_piece(seed: int, passages: int, depth: int) -> None:
    vectors = sparse(seed, 5, passages)
    rows = np.array([4, 0])
    found = VectorCandidates(vectors, "f").best(rows, depth)
    scores = vectors.scores(rows, np.arange(passages))
    for row, line in zip(found, scores, strict=True):
        listed = row[row >= 0]
        assert listed.size == min(depth, int((line > 0).sum()))
        np.testing.assert_allclose(line[listed], np.sort(line)[::-1][: listed.size], rtol=1e-6)


def test_pieces_that_no_passage_has_find_nothing() -> None:
    one = SparseRows.of(np.array([1]), np.array([9], dtype=np.int32), np.ones(1, dtype=np.float32))
    none = SparseRows.of(np.array([0]), np.empty(0, np.int32), np.empty(0, np.float32))
    assert VectorCandidates(SparseTeacherVectors("x", one, none), "f").best(np.array([0]), 2).tolist() == [[-1, -1]]
