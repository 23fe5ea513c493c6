"""A teacher that is an encoder of ours: the score is what the index would give, for long passages too."""

import numpy as np
import pytest

from models.registry import load_encoder
from models.training.teacher_vectors import SparseTeacherVectors
from models.training.teachers import SparseTeacher
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.encoders.vectors import merge_max
from services.errors import ConfigurationError

PASSAGES = ["The lift of a wing.", "", "heat " * 900 + "at the very end a shock wave"]
QUERIES = ["lift of wings", "", "shock wave", "half \ud800 of it"]


@pytest.mark.parametrize("name", ["standin"])
def test_scores_are_those_of_the_encoder_and_its_table(name: str) -> None:
    teacher = SparseTeacher(name, threads=1)
    vectors = SparseTeacherVectors("x", teacher.encode_queries(QUERIES), teacher.encode_passages(PASSAGES))
    found = vectors.scores(np.arange(len(QUERIES)), np.arange(len(PASSAGES)))
    encoder, table = load_encoder(name, threads=1), QueryTable.load(resolve_model_directory(name))
    for column, passage in enumerate(PASSAGES):
        document = merge_max(encoder.encode(encoder.windows(passage))).top(encoder.manifest.top_k)
        for row, query in enumerate(QUERIES[:3]):
            assert found[row, column] == pytest.approx(document.dot(table.encode(query, 100).by_id()), rel=1e-5)
    assert found[2, 2] > 0
    assert found[:, 1].tolist() == [0, 0, 0, 0]


def test_vectors_do_not_depend_on_how_texts_are_batched() -> None:
    teacher = SparseTeacher("standin")
    together = teacher.encode_passages(PASSAGES * 50)
    assert len(together) == 150
    alone = teacher.encode_passages(PASSAGES[2:])
    np.testing.assert_array_equal(together.take(np.array([149])).weights, alone.weights)


def test_an_encoder_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="no encoder"):
        SparseTeacher("nowhere")
