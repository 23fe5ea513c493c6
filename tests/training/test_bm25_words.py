"""BM25 over words, compared with the index of the bm25s library."""

import numpy as np
import pytest

from models.training.teacher_vectors import SparseTeacherVectors
from models.training.teachers import Bm25Teacher, WordTokeniser

bm25s = pytest.importorskip("bm25s", reason="the extra [train] is not installed")
Stemmer = pytest.importorskip("Stemmer", reason="the extra [train] is not installed")

WORDS = ["wing", "wings", "lift", "lifted", "flow", "flows", "flowing", "the", "of", "body", "bodies", "heat", "layers"]


def test_scores_are_those_of_bm25s() -> None:
    rng = np.random.default_rng(0)
    passages = [" ".join(rng.choice(WORDS, rng.integers(1, 30))) for _ in range(60)]
    queries = ["the flow of heat", "wings", "lifted bodies", "layer"]
    teacher = Bm25Teacher(passages, WordTokeniser())
    vectors = SparseTeacherVectors("bm25", teacher.encode_queries(queries), teacher.encode_passages(passages))
    found = vectors.scores(np.arange(len(queries)), np.arange(len(passages)))

    stemmer = Stemmer.Stemmer("english")
    index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    index.index(
        bm25s.tokenize(passages, stopwords="english", stemmer=stemmer, show_progress=False), show_progress=False
    )
    tokens = bm25s.tokenize(queries, stopwords="english", stemmer=stemmer, show_progress=False, return_ids=False)
    np.testing.assert_allclose(found, [index.get_scores(query) for query in tokens], rtol=1e-4, atol=1e-6)


def test_stop_words_and_single_letters_are_left_out() -> None:
    teacher = Bm25Teacher(["the of a wing", "x"], WordTokeniser())
    assert np.diff(teacher.encode_passages(["the of a wing", "x"]).indptr).tolist() == [1, 0]


def test_words_outside_the_collection_are_left_out() -> None:
    tokens = WordTokeniser()
    teacher = Bm25Teacher(["wing", "body"], tokens)
    tokens.learn(["flow"])
    assert np.diff(teacher.encode_queries(["wing flow", "flow", "wings"]).indptr).tolist() == [1, 0, 1]
