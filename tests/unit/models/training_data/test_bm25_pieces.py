"""BM25 as vectors: the dot product is the score by the book."""

import math
from pathlib import Path

import numpy as np
import pytest

from models.training.pairs import Pair, PairSet
from models.training.teacher_vectors import SparseRows, SparseTeacherVectors, load_teacher_vectors
from models.training.teachers import K1, B, Bm25Teacher, PieceIdTokeniser
from services.encoders.manifest import WEIGHTS_ROOT
from services.errors import ConfigurationError, InvalidInput

TOKENIZER = WEIGHTS_ROOT / "standin" / "tokenizer.json"
PASSAGES = [
    "the wing lifts and the wing turns",
    "a wing",
    "nothing of the kind is said here, and at some length",
    "",
    "the flow of air around a body",
]


@pytest.fixture(scope="module")
def tokens() -> PieceIdTokeniser:
    return PieceIdTokeniser(TOKENIZER)


def by_the_book(tokens: PieceIdTokeniser, query: str, passage: str, k1: float, b: float) -> float:
    """The formula, term by term."""
    collection = tokens(PASSAGES)
    average = sum(map(len, collection)) / len(collection)
    (asked,), (read,) = tokens([query]), tokens([passage])
    score = 0.0
    for term in set(asked):
        df = sum(term in one for one in collection)
        if not df or term not in read:
            continue
        idf = math.log(1 + (len(collection) - df + 0.5) / (df + 0.5))
        times = read.count(term)
        score += idf * times / (times + k1 * (1 - b + b * len(read) / average))
    return score


@pytest.mark.parametrize(("k1", "b"), [(K1, B), (0.9, 0.4), (0.0, 0.0), (2.0, 1.0)])
def test_the_dot_product_is_the_score(tokens: PieceIdTokeniser, k1: float, b: float) -> None:
    teacher = Bm25Teacher(PASSAGES, tokens, k1=k1, b=b)
    queries = ["the wing", "wing wing flow", "quantum", "", "body of air"]
    passages = [*PASSAGES, "a passage that is new, with a wing"]
    vectors = SparseTeacherVectors("bm25", teacher.encode_queries(queries), teacher.encode_passages(passages))
    found = vectors.scores(np.arange(len(queries)), np.arange(len(passages)))
    wanted = [[by_the_book(tokens, query, passage, k1, b) for passage in passages] for query in queries]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_queries_are_ones(tokens: PieceIdTokeniser) -> None:
    found = Bm25Teacher(PASSAGES, tokens).encode_queries(["wing wing the"])
    assert isinstance(found, SparseRows)
    assert found.weights.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("passages", [[], ["", " "]])
def test_a_collection_of_nothing_scores_nothing(tokens: PieceIdTokeniser, passages: list[str]) -> None:
    teacher = Bm25Teacher(passages, tokens)
    vectors = SparseTeacherVectors("bm25", teacher.encode_queries(["wing"]), teacher.encode_passages(["wing", ""]))
    found = vectors.scores(np.arange(1), np.arange(2))
    assert found.shape == (1, 2)
    assert not found.any()


def test_the_fingerprint_follows_the_collection_and_the_parameters(tokens: PieceIdTokeniser) -> None:
    prints = {
        Bm25Teacher(PASSAGES, tokens).fingerprint,
        Bm25Teacher(PASSAGES[:4], tokens).fingerprint,
        Bm25Teacher(PASSAGES, tokens, k1=0.9).fingerprint,
        Bm25Teacher(PASSAGES, tokens, b=0.5).fingerprint,
    }
    assert len(prints) == 4
    assert Bm25Teacher(PASSAGES, tokens).fingerprint in prints


def test_vectors_are_stored_and_found_again(tokens: PieceIdTokeniser, tmp_path: Path) -> None:
    pairs = PairSet.of(Pair(f"wing {passage[:9]}", passage) for passage in PASSAGES if passage)
    teacher = Bm25Teacher(pairs.passages, tokens)
    made, loaded = (load_teacher_vectors(teacher, pairs, tmp_path, block=2) for _ in range(2))
    rows = np.arange(4)
    assert made.scores(rows, rows).tolist() == loaded.scores(rows, rows).tolist()
    assert made.scores(rows, rows).any()


def test_half_of_a_surrogate_is_a_text_too(tokens: PieceIdTokeniser) -> None:
    assert len(Bm25Teacher(PASSAGES, tokens).encode_passages(["wing \ud800", "b"])) == 2


@pytest.mark.parametrize(("k1", "b"), [(-1.0, 0.5), (float("nan"), 0.5), (1.0, 1.5), (1.0, -0.1)])
def test_impossible_parameters_are_refused(tokens: PieceIdTokeniser, k1: float, b: float) -> None:
    with pytest.raises(InvalidInput) as caught:
        Bm25Teacher(PASSAGES, tokens, k1=k1, b=b)
    assert caught.value.code == "bad_bm25"


def test_a_file_that_is_no_tokeniser_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigurationError) as caught:
        PieceIdTokeniser(tmp_path / "tokenizer.json")
    assert caught.value.code == "bad_tokenizer"
