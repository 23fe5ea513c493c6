"""Inverse document frequencies, and weight tables as files."""

import json
from pathlib import Path

import numpy as np
import pytest

from models.encoder import PieceTokeniser
from models.idf import (
    document_frequencies,
    inverse_document_frequency,
    passage_idf,
    read_weights,
    write_weights,
)
from services.encoders.manifest import WEIGHTS_ROOT
from services.errors import ConfigurationError, InvalidInput

PIECES = {"[PAD]": 0, "the": 1, "cat": 2, '"': 3, "zebra": 4, ".": 5}


def test_frequencies_count_each_passage_once() -> None:
    frequencies, passages = document_frequencies([[1, 1, 2], [1], [], [1, 5]], 6)
    assert passages == 4
    assert frequencies.tolist() == [0, 3, 1, 0, 0, 1]


def test_the_formula_matches_the_published_tables() -> None:
    idf = inverse_document_frequency(np.array([0, 3, 1, 0, 0, 1]), 4, PIECES, {0})
    assert idf[1] == pytest.approx(np.log(1 + (4 - 3 + 0.5) / (3 + 0.5)))
    assert idf[2] == pytest.approx(np.log(1 + (4 - 1 + 0.5) / (1 + 0.5)))
    assert idf[0] == 0.0


def test_unseen_pieces_get_no_weight_by_default() -> None:
    """With weight 1.0 (a known defect), an unseen quotation mark would outweigh "the"."""
    idf = inverse_document_frequency(np.array([0, 3, 1, 0, 0, 1]), 4, PIECES, {0})
    assert idf[PIECES['"']] == idf[PIECES["the"]] == idf[1:].min()
    # An unseen word gets the weight of the rarest word.
    assert idf[PIECES["zebra"]] == idf[PIECES["cat"]]


def test_a_piece_of_every_passage_keeps_a_positive_weight() -> None:
    idf = inverse_document_frequency(np.array([0, 4, 1, 1, 1, 1]), 4, PIECES, {0})
    assert 0 < idf[1] < 0.2
    assert np.isfinite(idf).all()


@pytest.mark.parametrize("rows", [[], [[], []], [[0], [0]]])
def test_an_empty_collection_is_refused(rows: list[list[int]]) -> None:
    frequencies, passages = document_frequencies(rows, 6)
    with pytest.raises(InvalidInput) as caught:
        inverse_document_frequency(frequencies, passages, PIECES, {0})
    assert caught.value.code == "empty_collection"


def test_rows_of_another_tokeniser_are_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        document_frequencies([[1], [6]], 6)
    assert caught.value.code == "wrong_tokeniser"


def test_texts_are_cut_like_in_workers() -> None:
    """Texts are not truncated, "[SEP]" is plain characters, and surrogate halves are accepted."""
    pieces = PieceTokeniser.load(WEIGHTS_ROOT / "standin" / "tokenizer.json")
    known = pieces.vocabulary()
    texts = ["weather " * 600 + "zebra", "[SEP] weather", "\ud800 cat", "cat"]
    idf = passage_idf(pieces, iter(texts), {known["[SEP]"]})
    assert idf.shape == (30522,)
    assert idf[known["zebra"]] == pytest.approx(np.log(1 + (4 - 1 + 0.5) / (1 + 0.5)))
    assert idf[known["cat"]] == idf[known["weather"]] == pytest.approx(np.log(2))
    assert idf[known["[SEP]"]] == 0.0


def test_tables_survive_writing_and_reading(tmp_path: Path) -> None:
    weights = np.array([0.0, 0.1, 1e-7, 3.3333333, 12.0, 0.0], np.float32)
    write_weights(tmp_path / "idf.json", weights, PIECES, {0})
    np.testing.assert_array_equal(read_weights(tmp_path / "idf.json", PIECES), weights)
    assert "[PAD]" not in json.loads((tmp_path / "idf.json").read_bytes())


@pytest.mark.parametrize("weight", [np.nan, np.inf, -0.5])
def test_broken_weights_are_not_written(tmp_path: Path, weight: float) -> None:
    with pytest.raises(InvalidInput):
        write_weights(tmp_path / "idf.json", np.array([0, weight, 0, 0, 0, 0], np.float32), PIECES)
    assert not (tmp_path / "idf.json").exists()


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"cat": NaN}', '{"cat": -1}', '{"cat": "1"}', '{"cat": true}', '{"gnu": 1}', b"\xff\xfe"],
)
def test_broken_tables_are_refused(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "query_weights.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigurationError) as caught:
        read_weights(path, PIECES)
    assert caught.value.code == "bad_query_table"
    with pytest.raises(ConfigurationError):
        read_weights(tmp_path / "missing.json", PIECES)
