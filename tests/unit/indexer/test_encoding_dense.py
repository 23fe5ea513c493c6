"""Dense vectors of documents: all documents in one run; a failure affects only one document."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from indexer.encoding import encode_dense_vectors
from models.dense import DenseModel, DenseVectors, load_dense_encoder
from models.encoder import TextWindow
from services.encoders.catalogue import STANDIN_NAME, list_dense_encoders
from services.encoders.manifest import WindowSettings
from services.encoders.vectors import StoredDenseVectors
from services.errors import InvalidInput
from services.opensearch.stored_document import StoredDocument
from services.settings import Settings

KNOWN = list_dense_encoders(Settings())[STANDIN_NAME]


@pytest.fixture(scope="module")
def model() -> DenseModel:
    return load_dense_encoder(KNOWN, Path("unused"))


def stored(*texts: str) -> list[StoredDocument]:
    return [StoredDocument(str(i), 0, {"text": text, "state": "pending"}) for i, text in enumerate(texts)]


def test_every_window_of_every_document(model: DenseModel) -> None:
    outcomes = encode_dense_vectors(model, KNOWN.identity, stored("pause the program", "wing " * 200))
    vectors = StoredDenseVectors.read({str(i): one.packed for i, one in enumerate(outcomes)}, model.width)
    assert not any(one.error for one in outcomes)
    assert np.diff(vectors.starts).tolist() == [1, len(model.windows("wing " * 200, KNOWN.identity.window))]
    scores = vectors.scores(model.encode_queries(["the program"])[0])
    assert scores["0"] > scores["1"]


def test_the_title_counts(model: DenseModel) -> None:
    (plain,) = encode_dense_vectors(model, KNOWN.identity, stored("text"))
    (titled,) = encode_dense_vectors(
        model, KNOWN.identity, [StoredDocument("a", 0, {"text": "text", "title": "wings"})]
    )
    assert plain.packed != titled.packed


class Fails:
    """A dense encoder that raises an error for windows with a certain piece."""

    def __init__(self, model: DenseModel, word: str, error: Exception) -> None:
        self._model, self._error = model, error
        self.name, self.fingerprint, self.width = model.name, model.fingerprint, model.width
        (window,) = model.windows(word, KNOWN.identity.window)
        (self._piece,) = window.piece_ids

    def encode_queries(self, texts: Sequence[str]) -> DenseVectors:
        return self._model.encode_queries(texts)

    def encode_passages(self, texts: Sequence[str]) -> DenseVectors:
        return self._model.encode_passages(texts)

    def windows(self, text: str, window: WindowSettings) -> list[TextWindow]:
        return self._model.windows(text, window)

    def encode_windows(self, windows: Sequence[TextWindow]) -> DenseVectors:
        if any(self._piece in window.piece_ids for window in windows):
            raise self._error
        return self._model.encode_windows(windows)


@pytest.mark.parametrize(
    ("error", "code"),
    [(InvalidInput("not_finite_scores", "x"), "not_finite_scores"), (ValueError(), "encoding_failed")],
)
def test_only_the_document_at_fault_goes_without(model: DenseModel, error: Exception, code: str) -> None:
    failing = Fails(model, "poison", error)
    found = encode_dense_vectors(failing, KNOWN.identity, stored("one", "a poison in it", "three"))
    assert [bool(one.packed) for one in found] == [True, False, True]
    assert [one.error for one in found] == ["", code, ""]
    assert encode_dense_vectors(failing, KNOWN.identity, []) == []
