"""Targets: scaled within a query's candidates, weighted, summed, times a scale; what cannot be scaled says nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from models.training.teacher_vectors import DenseTeacherVectors
from models.training.teachers import TeacherEnsemble, ensemble_targets, scale_scores
from services.errors import InvalidInput

NAN, INF = float("nan"), float("inf")


def test_each_row_goes_from_0_to_1() -> None:
    found = scale_scores(np.array([[1.0, 2.0, 5.0], [-3.0, -1.0, -2.0]]))
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 0.25, 1], [0, 1, 0.5]]


def test_a_row_of_ties_says_nothing() -> None:
    assert scale_scores(np.array([[0.7, 0.7], [0.0, 0.0]])).tolist() == [[0, 0], [0, 0]]


def test_what_is_not_finite_is_no_candidate() -> None:
    found = scale_scores(np.array([[NAN, 1.0, 3.0, INF, -INF], [NAN, NAN, NAN, NAN, 4.0]]))
    assert found.tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]


def test_what_is_left_out_sets_no_bound() -> None:
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


def test_a_teacher_without_an_opinion_leaves_it_to_the_others() -> None:
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
def test_what_is_no_ensemble_is_refused(matrices: list[np.ndarray], weights: list[float], scale: float) -> None:
    with pytest.raises(InvalidInput) as caught:
        ensemble_targets(matrices, weights, scale)
    assert caught.value.code == "bad_ensemble"


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(InvalidInput, match="one shape"):
        ensemble_targets([np.zeros((1, 2))], [1.0], 1.0, np.zeros((1, 3), dtype=bool))


def test_an_ensemble_scores_rows_and_asks_no_teacher_of_weight_0() -> None:
    vectors = DenseTeacherVectors("one", np.eye(3, dtype=np.float16), np.eye(3, dtype=np.float16))
    found = TeacherEnsemble([vectors, None], [1.0, 0.0], 2.0).targets(np.array([1]), np.array([0, 1, 1]))  # type: ignore[list-item]
    assert found.tolist() == [[0, 2, 2]]
