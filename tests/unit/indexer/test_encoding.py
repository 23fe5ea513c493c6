"""Windows, runs and the isolation of a failure, with the stand-in encoder."""

from collections.abc import Sequence

import pytest

from indexer.encoding import (
    EncodedDocument,
    EncodingFailure,
    WindowedDocument,
    cut_windows,
    encode_run,
    group_into_runs,
)
from models.encoder import Encoder, TextWindow
from models.registry import load_encoder
from services.encoders.manifest import Manifest, WindowSettings
from services.encoders.vectors import SparseVector
from services.errors import BackendUnavailable, InvalidInput
from services.opensearch.stored_document import StoredDocument

WINDOW = WindowSettings(pieces=16, overlap=4)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("standin")


class FailsAt:
    """An encoder that raises an error for windows with a certain piece."""

    def __init__(self, encoder: Encoder, word: str, error: Exception) -> None:
        self._encoder, self._error = encoder, error
        (window,) = encoder.windows(word)
        (self._piece,) = window.piece_ids
        self.runs = 0

    @property
    def manifest(self) -> Manifest:
        return self._encoder.manifest

    @property
    def fingerprint(self) -> str:
        return self._encoder.fingerprint

    def windows(self, text: str, pieces: int | None = None, overlap: int | None = None) -> list[TextWindow]:
        return self._encoder.windows(text, pieces, overlap)

    def encode(self, windows: Sequence[TextWindow]) -> list[SparseVector]:
        self.runs += 1
        if any(self._piece in window.piece_ids for window in windows):
            raise self._error
        return self._encoder.encode(windows)

    def piece(self, piece_id: int) -> str:
        return self._encoder.piece(piece_id)

    def token(self, piece_id: int) -> str:
        return self._encoder.token(piece_id)


def cuts(encoder: Encoder, *texts: str) -> list[WindowedDocument]:
    found = [
        cut_windows(encoder, WINDOW, StoredDocument(str(i), 0, {"text": text, "state": "pending"}))
        for i, text in enumerate(texts)
    ]
    assert all(isinstance(one, WindowedDocument) for one in found)
    return [one for one in found if isinstance(one, WindowedDocument)]


def test_each_document_gets_the_vectors_of_its_own_windows(encoder: Encoder) -> None:
    long = "one two three four five six seven eight nine ten " * 5
    group = cuts(encoder, "apple", long, "pear")
    outcomes = encode_run(encoder, group)
    for one, outcome in zip(group, outcomes, strict=True):
        assert isinstance(outcome, EncodedDocument)
        assert outcome.stored is one.stored
        assert [(w.start, w.end) for w in outcome.windows] == [(w.start, w.end) for w in one.windows]
        alone = encoder.encode(one.windows)
        assert [w.vector.pack() for w in outcome.windows] == [vector.pack() for vector in alone]
    assert len(outcomes[1].windows) > 3  # type: ignore[union-attr]


def test_the_title_is_encoded_before_the_text(encoder: Encoder) -> None:
    stored = StoredDocument("a", 0, {"title": "A title", "text": "and words", "state": "pending"})
    found = cut_windows(encoder, WINDOW, stored)
    assert isinstance(found, WindowedDocument)
    assert (found.windows[0].start, found.windows[0].end) == (0, len("A title\nand words"))


def test_one_failure_does_not_touch_its_neighbours(encoder: Encoder) -> None:
    failing = FailsAt(encoder, "poison", RuntimeError("broken"))
    outcomes = encode_run(failing, cuts(encoder, "apple", "some poison here", "pear"))
    assert [type(outcome) for outcome in outcomes] == [EncodedDocument, EncodingFailure, EncodedDocument]
    assert failing.runs == 4  # one common run, then one for each document
    failed = outcomes[1]
    assert isinstance(failed, EncodingFailure)
    assert (failed.code, failed.reason, failed.final) == ("encoding_failed", "RuntimeError: broken", False)


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (InvalidInput("not_finite_weights", "NaN"), True),
        (BackendUnavailable("busy", "later"), False),
        (MemoryError(), False),
    ],
)
def test_whether_another_attempt_makes_sense(encoder: Encoder, error: Exception, final: bool) -> None:
    (failed,) = encode_run(FailsAt(encoder, "poison", error), cuts(encoder, "poison"))
    assert isinstance(failed, EncodingFailure)
    assert failed.final is final


def test_windows_that_do_not_fit_the_model_are_the_documents_failure(encoder: Encoder) -> None:
    found = cut_windows(
        encoder, WindowSettings(pieces=8000, overlap=0), StoredDocument("a", 0, {"text": "x", "state": "pending"})
    )
    assert isinstance(found, EncodingFailure)
    assert (found.code, found.final) == ("bad_window", True)


def test_runs_are_bounded_and_longest_first(encoder: Encoder) -> None:
    texts = ["word " * n for n in (1, 9, 3, 60, 5, 2)]
    groups = list(group_into_runs(cuts(encoder, *texts), max_windows=4))
    assert [[one.stored.id for one in group] for group in groups] == [["3"], ["1", "4", "2", "5"], ["0"]]
    assert len(groups[0][0].windows) > 4  # more windows than a run may have, so it is alone


def test_no_documents_are_no_run() -> None:
    assert list(group_into_runs([])) == []


class GivesTooMuch(FailsAt):
    """An encoder that gives windows with a certain piece a weight for every piece of the vocabulary."""

    def encode(self, windows: Sequence[TextWindow]) -> list[SparseVector]:
        vectors = self._encoder.encode(windows)
        everything = SparseVector.of(range(30_000), [1.0] * 30_000)
        return [
            everything if self._piece in window.piece_ids else vector
            for window, vector in zip(windows, vectors, strict=True)
        ]


def test_a_vector_with_more_weights_than_its_encoder_ever_gives_fails_alone(encoder: Encoder) -> None:
    group = cuts(encoder, "one two", "poison", "three")
    outcomes = encode_run(GivesTooMuch(encoder, "poison", ValueError()), group)
    assert [isinstance(one, EncodedDocument) for one in outcomes] == [True, False, True]
    failed = outcomes[1]
    assert isinstance(failed, EncodingFailure)
    assert (failed.code, failed.final) == ("too_many_weights", True)
    assert "30,000" in failed.reason
