"""Dense vectors as they are stored: what rounding costs, what is refused, and the best window of a document."""

import base64

import numpy as np
import pytest

from services.encoders.vectors import (
    StoredDenseVectors,
    apply_dense_feedback,
    merge_neighbouring_windows,
    pack_dense_vectors,
    window_row_dtype,
)
from services.errors import InvalidInput


def units(count: int, width: int = 384, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def test_a_window_takes_its_width_and_four_bytes() -> None:
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


def test_what_opensearch_gives_has_no_padding() -> None:
    text = pack_dense_vectors(units(1, 6))
    assert text.endswith("=")
    assert StoredDenseVectors.read({"a": text.rstrip("=")}, 6).rows.shape == (1, 6)


def test_no_documents() -> None:
    stored = StoredDenseVectors.read({}, 8)
    assert stored.scores(np.ones(8, np.float32)) == {}
    assert stored.best_windows(np.ones(8, np.float32), ["a"]).shape == (0, 8)


def test_vectors_of_nothing_stay_nothing() -> None:
    assert StoredDenseVectors.read({"a": pack_dense_vectors(np.zeros((2, 4)))}, 4).rows.tolist() == [[0] * 4] * 2
    assert pack_dense_vectors(np.zeros((0, 4))) == ""


@pytest.mark.parametrize("bad", [np.ones(4), np.full((1, 4), np.nan), np.full((1, 4), np.inf), np.ones((1, 0))])
def test_what_cannot_be_stored_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match="bad_vector"):
        pack_dense_vectors(bad)


@pytest.mark.parametrize("bad", ["ä", "abc", "AAAA", pack_dense_vectors(units(1, 5))])
def test_what_was_never_packed_is_refused(bad: str) -> None:
    with pytest.raises(InvalidInput, match="bad_vector"):
        StoredDenseVectors.read({"a": bad}, 4)


def test_neighbours_of_a_very_long_document_share_a_row() -> None:
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
