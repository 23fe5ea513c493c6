"""`sparsewell encoders verify` and `show` on the model directory of a decoder."""

import shutil
from pathlib import Path

from cli.registry.facts import document_weights
from models.verification import verify
from services.query_table import QueryTable


def test_a_decoder_is_verified_like_any_encoder(directory: Path, tmp_path: Path) -> None:
    verdict = verify(directory)
    assert verdict.problems == []
    assert verdict.table is not None
    assert verdict.table.reachable > 0.9
    assert verdict.words > 0

    mine = Path(shutil.copytree(directory, tmp_path / "mine"))
    weights = mine / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    (problem,) = verify(mine).problems
    assert problem.code == "corrupt_model_file"


def test_its_pieces_are_shown_as_words(directory: Path) -> None:
    table = QueryTable.load(directory)
    weights, score = document_weights(directory, table, "Readers return books to the library.", "library")
    assert weights
    assert score is not None
    assert not any("Ġ" in piece for piece, _ in weights)
