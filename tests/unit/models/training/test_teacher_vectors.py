"""Teachers' vectors: dot products of any rows, stored under names that identify texts and teacher."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training.pairs import Pair, PairSet
from models.training.teacher_vectors import (
    DenseTeacherVectors,
    EncodedTexts,
    SparseRows,
    SparseTeacherVectors,
    load_teacher_vectors,
)
from services.encoders.vectors import SparseVector
from services.errors import InvalidInput

PAIRS = PairSet.of([Pair("ab", "abc"), Pair("b", "bcd"), Pair("c", "e")])


def letters(texts: Sequence[str]) -> SparseRows:
    """Return vectors whose weights are the counts of the letters of each text."""
    return SparseRows.of_vectors(
        [SparseVector.of([ord(c) - 97 for c in sorted(set(t))], [t.count(c) for c in sorted(set(t))]) for t in texts]
    )


@dataclass
class Letters:
    fingerprint: str = "1"
    name: str = "letters"
    seen: list[str] = field(default_factory=list)

    def encode_queries(self, texts: Sequence[str]) -> EncodedTexts:
        self.seen += texts
        return letters(texts)

    def encode_passages(self, texts: Sequence[str]) -> EncodedTexts:
        return self.encode_queries(texts)


@dataclass
class Numbers:
    """A teacher with given dense vectors."""

    values: np.ndarray
    name: str = "numbers"
    fingerprint: str = "1"

    def encode_queries(self, texts: Sequence[str]) -> EncodedTexts:
        return self.values[: len(texts)]

    def encode_passages(self, texts: Sequence[str]) -> EncodedTexts:
        return self.values[: len(texts)]


rows_of_weights = st.lists(st.dictionaries(st.integers(0, 9), st.floats(0.125, 8, width=16), max_size=6), min_size=1)


@given(rows_of_weights, rows_of_weights, st.data())
def test_sparse_scores_are_dot_products(
    queries: list[dict[int, float]], passages: list[dict[int, float]], data
) -> None:  # type: ignore[no-untyped-def]
    def packed(rows: list[dict[int, float]]) -> SparseRows:
        return SparseRows.of_vectors([SparseVector.of(list(row), list(row.values())) for row in rows])

    def matrix(rows: list[dict[int, float]]) -> np.ndarray:
        return np.array([[row.get(column, 0.0) for column in range(10)] for row in rows], dtype=np.float32)

    query_rows = data.draw(st.lists(st.integers(0, len(queries) - 1), max_size=5))
    passage_rows = data.draw(st.lists(st.integers(0, len(passages) - 1), max_size=5))
    vectors = SparseTeacherVectors("x", packed(queries), packed(passages))
    found = vectors.scores(np.array(query_rows, dtype=np.int32), np.array(passage_rows, dtype=np.int32))
    stored = SparseTeacherVectors("x", packed(queries), packed(passages))
    assert found.dtype == np.float32
    assert found.shape == (len(query_rows), len(passage_rows))
    assert stored.passages_count == len(passages)
    # Stored weights are truncated to nine bits: they are at most 0.4 % too low.
    wanted = matrix(queries)[np.array(query_rows, dtype=int)] @ matrix(passages)[np.array(passage_rows, dtype=int)].T
    np.testing.assert_allclose(found, wanted.reshape(found.shape), rtol=0.01)


def test_dense_scores_are_float32_products_of_float16_rows() -> None:
    rng = np.random.default_rng(0)
    queries, passages = (rng.standard_normal((n, 8)).astype(np.float16) for n in (4, 6))
    vectors = DenseTeacherVectors("x", queries, passages)
    found = vectors.scores(np.array([3, 1], dtype=np.int32), np.array([5, 0, 5, -1], dtype=np.int32))
    assert (found.dtype, found.shape, vectors.passages_count) == (np.float32, (2, 4), 6)
    wanted = queries[[3, 1]].astype(np.float32) @ passages[[5, 0, 5, 5]].astype(np.float32).T
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_rows_are_taken_in_any_order() -> None:
    taken = letters(["ab", "", "ccc"]).take(np.array([2, 1, 2]))
    assert taken.indptr.tolist() == [0, 1, 1, 2]
    assert taken.ids.tolist() == [2, 2]
    assert taken.weights.tolist() == [3, 3]


def test_a_row_without_a_passage_is_scored_in_both_forms() -> None:
    assert SparseTeacherVectors("x", letters(["a"]), letters(["a", "b"])).scores(
        np.array([0]), np.array([-1, 0])
    ).tolist() == [[0, 1]]


def test_vectors_are_encoded_once_for_the_same_texts_and_teacher(tmp_path: Path) -> None:
    teacher = Letters()
    first = load_teacher_vectors(teacher, PAIRS, tmp_path, block=2)
    assert sorted(teacher.seen) == sorted(PAIRS.queries + PAIRS.passages)
    assert first.scores(np.arange(3), np.arange(3)).tolist() == [[2, 1, 0], [1, 1, 0], [1, 1, 0]]
    again = Letters()
    found = load_teacher_vectors(again, PAIRS, tmp_path, block=2)
    assert not again.seen
    assert found.scores(np.arange(3), np.arange(3)).tolist() == first.scores(np.arange(3), np.arange(3)).tolist()


@pytest.mark.parametrize(
    ("teacher", "pairs"),
    [
        (Letters(fingerprint="2"), PAIRS),
        (Letters(), PairSet.of([Pair("ab", "abc"), Pair("b", "bcd"), Pair("c", "x")])),
        (Letters(), PairSet.of([Pair("b", "bcd"), Pair("ab", "abc"), Pair("c", "e")])),
    ],
)
def test_another_teacher_or_corpus_is_encoded_anew(tmp_path: Path, teacher: Letters, pairs: PairSet) -> None:
    load_teacher_vectors(Letters(), PAIRS, tmp_path)
    load_teacher_vectors(teacher, pairs, tmp_path)
    assert set(pairs.passages) <= set(teacher.seen)


def test_progress_is_reported_by_side(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    load_teacher_vectors(
        Letters(), PAIRS, tmp_path, lambda side, rows, total: told.append((side, rows, total)), block=2
    )
    assert told[:2] == [("queries", 2, 3), ("queries", 3, 3)]
    assert told[-1] == ("passages", 3, 3)


def test_dense_vectors_are_kept_as_float16(tmp_path: Path) -> None:
    values = np.eye(3, dtype=np.float16)
    found = load_teacher_vectors(Numbers(values), PAIRS, tmp_path)
    assert isinstance(found, DenseTeacherVectors)
    assert found.passages.dtype == np.float16
    np.testing.assert_array_equal(found.scores(np.arange(3), np.arange(3)), np.eye(3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_vectors_that_are_not_finite_are_refused_and_not_kept(tmp_path: Path, bad: float) -> None:
    values = np.eye(3, dtype=np.float16)
    values[1, 0] = bad
    with pytest.raises(InvalidInput) as caught:
        load_teacher_vectors(Numbers(values), PAIRS, tmp_path)
    assert caught.value.code == "not_finite_scores"
    assert not list(tmp_path.rglob("*.npy"))


def test_a_teacher_that_loses_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="2 rows for 3 texts"):
        load_teacher_vectors(Numbers(np.eye(2, dtype=np.float16)), PAIRS, tmp_path)
