"""Commands `sparsewell encoders verify` and `show` on the model directory of a decoder."""

import shutil
from pathlib import Path

import pytest

from cli.encoder_inspection import weigh_document
from models.decoder.checkpoint import load_checkpoint
from models.verification import verify_directory
from services.encoders.query_table import QueryTable
from services.errors import ConfigurationError
from tests.unit.services.encoders.model_directories import restate


def test_a_decoder_is_verified_like_any_encoder(directory: Path, tmp_path: Path) -> None:
    verdict = verify_directory(directory)
    assert verdict.problems == []
    assert verdict.table is not None
    assert verdict.table.reachable > 0.9
    assert verdict.words > 0

    mine = Path(shutil.copytree(directory, tmp_path / "mine"))
    weights = mine / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    (problem,) = verify_directory(mine).problems
    assert problem.code == "corrupt_model_file"


@pytest.mark.parametrize(
    ("members", "said"),
    [({"vocabulary": 500}, "500"), ({"max_pieces": 130}, "windows of 127 pieces, and the manifest says 128")],
)
def test_a_manifest_with_more_than_the_decoder_has_is_refused(
    directory: Path, tmp_path: Path, members: dict[str, int], said: str
) -> None:
    mine = Path(shutil.copytree(directory, tmp_path / "mine"))
    restate(mine, **members)
    (problem,) = verify_directory(mine).problems
    assert problem.code == "bad_model"
    assert said in problem.detail


def test_adapters_beside_the_weights_are_refused(directory: Path, tmp_path: Path) -> None:
    """transformers would add the adapters to weights whose checksums are right."""
    mine = Path(shutil.copytree(directory, tmp_path / "mine"))
    (mine / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}')
    (problem,) = verify_directory(mine).problems
    assert problem.code == "bad_model"
    assert "adapters" in problem.detail
    with pytest.raises(ConfigurationError, match="Merge them") as caught:
        load_checkpoint(str(mine))
    assert caught.value.code == "bad_checkpoint"


def test_its_pieces_are_shown_as_words(directory: Path) -> None:
    table = QueryTable.load(directory)
    weights, score = weigh_document(directory, table, "Readers return books to the library.", "library")
    assert weights
    assert score is not None
    assert not any("Ġ" in piece for piece, _ in weights)
