"""Targets of a teacher ensemble, BM25 as vectors, and a sparse encoder as a teacher."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from models.registry import load_encoder
from models.training.pairs import Pair, PairSet
from models.training.teacher_vectors import DenseTeacherVectors, SparseRows, SparseTeacherVectors, load_teacher_vectors
from models.training.teachers import (
    K1,
    B,
    Bm25Teacher,
    SparseTeacher,
    TeacherEnsemble,
    ensemble_targets,
    scale_scores,
)
from services.encoders.manifest import WEIGHTS_ROOT, resolve_model_directory
from services.encoders.query_table import QueryTable
from services.encoders.vectors import merge_max
from services.errors import ConfigurationError, InvalidInput
from tests.unit.models.training.piece_tokens import PieceTokens

NAN, INF = float("nan"), float("inf")


def test_scaled_rows_range_from_0_to_1() -> None:
    found = scale_scores(np.array([[1.0, 2.0, 5.0], [-3.0, -1.0, -2.0]]))
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 0.25, 1], [0, 1, 0.5]]


def test_a_row_of_ties_scales_to_zero() -> None:
    assert scale_scores(np.array([[0.7, 0.7], [0.0, 0.0]])).tolist() == [[0, 0], [0, 0]]


def test_scores_that_are_not_finite_are_no_candidates() -> None:
    found = scale_scores(np.array([[NAN, 1.0, 3.0, INF, -INF], [NAN, NAN, NAN, NAN, 4.0]]))
    assert found.tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]


def test_columns_left_out_set_no_bound() -> None:
    scores, out = np.array([[100.0, 1.0, 3.0, 2.0]]), np.array([[True, False, False, False]])
    assert scale_scores(scores, out).tolist() == [[0, 0, 1, 0.5]]
    assert scale_scores(scores, np.ones((1, 4), dtype=bool)).tolist() == [[0, 0, 0, 0]]


def test_largest_numbers_do_not_overflow() -> None:
    most = np.finfo(np.float32).max
    assert scale_scores(np.array([[-most, most, 0.0]], dtype=np.float32)).tolist() == [[0, 1, 0.5]]


def test_an_empty_batch() -> None:
    assert scale_scores(np.empty((0, 3))).shape == (0, 3)
    assert scale_scores(np.empty((2, 0))).shape == (2, 0)


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2), elements=st.floats(width=32)))
def test_scaling_stays_within_0_and_1_and_keeps_the_order(scores: np.ndarray) -> None:
    found = scale_scores(scores)
    assert np.isfinite(found).all()
    assert ((found >= 0) & (found <= 1)).all()
    for row, given_row in zip(found, scores, strict=True):
        finite = np.isfinite(given_row)
        order = np.argsort(given_row[finite], kind="stable")
        assert (np.diff(row[finite][order]) >= 0).all()


def test_the_weighted_sum_times_the_scale() -> None:
    dense, bm25 = np.array([[0.2, 0.6, 0.4]]), np.array([[10.0, 0.0, 20.0]])
    found = ensemble_targets([dense, bm25], [0.5, 0.25], 20.0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[20 * 0.25 * 0.5, 20 * 0.5, 20 * (0.25 + 0.25)]], rtol=1e-6)


def test_a_teacher_with_ties_leaves_the_ranking_to_the_others() -> None:
    dense, silent = np.array([[0.0, 1.0]]), np.array([[0.0, 0.0]])
    assert ensemble_targets([dense, silent], [0.5, 0.5], 10.0).tolist() == [[0, 5]]


@pytest.mark.parametrize(
    ("matrices", "weights", "scale"),
    [
        ([], [], 1.0),
        ([np.zeros((1, 2))], [1.0, 1.0], 1.0),
        ([np.zeros((1, 2)), np.zeros((2, 1))], [1.0, 1.0], 1.0),
        ([np.zeros(2)], [1.0], 1.0),
        ([np.zeros((1, 2))], [0.0], 1.0),
        ([np.zeros((1, 2))], [-1.0], 1.0),
        ([np.zeros((1, 2))], [NAN], 1.0),
        ([np.zeros((1, 2))], [1.0], 0.0),
        ([np.zeros((1, 2))], [1.0], NAN),
    ],
)
def test_invalid_ensembles_are_refused(matrices: list[np.ndarray], weights: list[float], scale: float) -> None:
    with pytest.raises(InvalidInput) as caught:
        ensemble_targets(matrices, weights, scale)
    assert caught.value.code == "bad_ensemble"


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(InvalidInput, match="one shape"):
        ensemble_targets([np.zeros((1, 2))], [1.0], 1.0, np.zeros((1, 3), dtype=bool))


def test_an_ensemble_skips_teachers_of_weight_0() -> None:
    vectors = DenseTeacherVectors("one", np.eye(3, dtype=np.float16), np.eye(3, dtype=np.float16))
    found = TeacherEnsemble([vectors, None], [1.0, 0.0], 2.0).targets(np.array([1]), np.array([0, 1, 1]))  # type: ignore[list-item]
    assert found.tolist() == [[0, 2, 2]]


TOKENIZER = WEIGHTS_ROOT / "standin" / "tokenizer.json"
PASSAGES = [
    "the wing lifts and the wing turns",
    "a wing",
    "nothing of the kind is said here, and at some length",
    "",
    "the flow of air around a body",
]


@pytest.fixture(scope="module")
def tokens() -> PieceTokens:
    return PieceTokens(TOKENIZER)


def by_the_book(tokens: PieceTokens, query: str, passage: str, k1: float, b: float) -> float:
    """Compute BM25 by its formula, term by term."""
    collection = tokens(PASSAGES)
    average = sum(map(len, collection)) / len(collection)
    (query_terms,), (read,) = tokens([query]), tokens([passage])
    score = 0.0
    for term in set(query_terms):
        df = sum(term in one for one in collection)
        if not df or term not in read:
            continue
        idf = math.log(1 + (len(collection) - df + 0.5) / (df + 0.5))
        times = read.count(term)
        score += idf * times / (times + k1 * (1 - b + b * len(read) / average))
    return score


@pytest.mark.parametrize(("k1", "b"), [(K1, B), (0.9, 0.4), (0.0, 0.0), (2.0, 1.0)])
def test_bm25_scores_are_dot_products(tokens: PieceTokens, k1: float, b: float) -> None:
    teacher = Bm25Teacher(PASSAGES, tokens, k1=k1, b=b)
    queries = ["the wing", "wing wing flow", "quantum", "", "body of air"]
    passages = [*PASSAGES, "a passage that is new, with a wing"]
    vectors = SparseTeacherVectors("bm25", teacher.encode_queries(queries), teacher.encode_passages(passages))
    found = vectors.scores(np.arange(len(queries)), np.arange(len(passages)))
    wanted = [[by_the_book(tokens, query, passage, k1, b) for passage in passages] for query in queries]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_bm25_query_weights_are_ones(tokens: PieceTokens) -> None:
    found = Bm25Teacher(PASSAGES, tokens).encode_queries(["wing wing the"])
    assert isinstance(found, SparseRows)
    assert found.weights.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("passages", [[], ["", " "]])
def test_bm25_of_an_empty_collection_scores_zero(tokens: PieceTokens, passages: list[str]) -> None:
    teacher = Bm25Teacher(passages, tokens)
    vectors = SparseTeacherVectors("bm25", teacher.encode_queries(["wing"]), teacher.encode_passages(["wing", ""]))
    found = vectors.scores(np.arange(1), np.arange(2))
    assert found.shape == (1, 2)
    assert not found.any()


def test_bm25_fingerprint_depends_on_collection_and_parameters(tokens: PieceTokens) -> None:
    prints = {
        Bm25Teacher(PASSAGES, tokens).fingerprint,
        Bm25Teacher(PASSAGES[:4], tokens).fingerprint,
        Bm25Teacher(PASSAGES, tokens, k1=0.9).fingerprint,
        Bm25Teacher(PASSAGES, tokens, b=0.5).fingerprint,
    }
    assert len(prints) == 4
    assert Bm25Teacher(PASSAGES, tokens).fingerprint in prints


def test_bm25_vectors_are_stored_and_found_again(tokens: PieceTokens, tmp_path: Path) -> None:
    pairs = PairSet.of(Pair(f"wing {passage[:9]}", passage) for passage in PASSAGES if passage)
    teacher = Bm25Teacher(pairs.passages, tokens)
    made, loaded = (load_teacher_vectors(teacher, pairs, tmp_path, block=2) for _ in range(2))
    rows = np.arange(4)
    assert made.scores(rows, rows).tolist() == loaded.scores(rows, rows).tolist()
    assert made.scores(rows, rows).any()


@pytest.mark.parametrize(("k1", "b"), [(-1.0, 0.5), (float("nan"), 0.5), (1.0, 1.5), (1.0, -0.1)])
def test_invalid_bm25_parameters_are_refused(tokens: PieceTokens, k1: float, b: float) -> None:
    with pytest.raises(InvalidInput) as caught:
        Bm25Teacher(PASSAGES, tokens, k1=k1, b=b)
    assert caught.value.code == "bad_bm25"


LONG_PASSAGES = ["The lift of a wing.", "", "heat " * 900 + "at the very end a shock wave"]
QUERIES = ["lift of wings", "", "shock wave", "half \ud800 of it"]


@pytest.mark.parametrize("name", ["standin"])
def test_scores_are_those_of_the_encoder_and_its_table(name: str) -> None:
    teacher = SparseTeacher(name, threads=1)
    vectors = SparseTeacherVectors("x", teacher.encode_queries(QUERIES), teacher.encode_passages(LONG_PASSAGES))
    found = vectors.scores(np.arange(len(QUERIES)), np.arange(len(LONG_PASSAGES)))
    encoder, table = load_encoder(name, threads=1), QueryTable.load(resolve_model_directory(name))
    for column, passage in enumerate(LONG_PASSAGES):
        document = merge_max(encoder.encode(encoder.windows(passage))).top(encoder.manifest.top_k)
        for row, query in enumerate(QUERIES[:3]):
            assert found[row, column] == pytest.approx(document.dot(table.encode(query, 100).by_id()), rel=1e-5)
    assert found[2, 2] > 0
    assert found[:, 1].tolist() == [0, 0, 0, 0]


def test_vectors_do_not_depend_on_batches() -> None:
    teacher = SparseTeacher("standin")
    together = teacher.encode_passages(LONG_PASSAGES * 50)
    assert len(together) == 150
    alone = teacher.encode_passages(LONG_PASSAGES[2:])
    np.testing.assert_array_equal(together.take(np.array([149])).weights, alone.weights)


def test_a_missing_encoder_is_named() -> None:
    with pytest.raises(ConfigurationError, match="no encoder"):
        SparseTeacher("nowhere")
