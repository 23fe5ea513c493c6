"""Reopening: an exported encoder becomes a checkpoint that exports the same encoder."""

import json
from pathlib import Path

import numpy as np
import pytest

from models.export.export import ExportOptions, export_encoder
from models.export.reopen import reopen_checkpoint
from models.registry import load_encoder
from models.training.architecture import build_encoder
from models.training.recipe import EncoderRecipe
from services.encoders.manifest import resolve_model_directory
from services.errors import ConfigurationError
from tests.training.tiny_start import TEXTS, make_start


def vectors(directory: str | Path) -> list[tuple[list[int], list[float]]]:
    encoder = load_encoder(str(directory), threads=1)
    windows = [window for text in TEXTS for window in encoder.windows(text, 14, 2)]
    return [(found.ids.tolist(), found.weights.tolist()) for found in encoder.encode(windows)]


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_export_reopen_export_gives_the_same_vectors(tmp_path: Path, family: str) -> None:
    export_encoder(ExportOptions(str(make_start(tmp_path / "start", family)), tmp_path / "first", window=30, overlap=4))
    reopened = reopen_checkpoint(tmp_path / "first", tmp_path / "reopened")
    export_encoder(ExportOptions(str(reopened), tmp_path / "second", window=30, overlap=4))
    for (ids, weights), (other_ids, other_weights) in zip(
        vectors(tmp_path / "first"), vectors(tmp_path / "second"), strict=True
    ):
        assert ids == other_ids
        np.testing.assert_allclose(weights, other_weights, rtol=1e-2)


def test_an_exported_encoder_can_be_trained_further(tmp_path: Path) -> None:
    start = make_start(tmp_path / "start")
    export_encoder(ExportOptions(str(start), tmp_path / "first", window=30, overlap=4))
    reopened = reopen_checkpoint(tmp_path / "first", tmp_path / "reopened")
    encoder = build_encoder(reopened, EncoderRecipe(query_weighting="learned", regulariser="flops", passage_pieces=32))
    exported = load_encoder(str(tmp_path / "first"), threads=1)
    text = TEXTS[0]
    [vector] = exported.encode(exported.windows(text))
    trained = encoder.encode_document([text], convert_to_tensor=True).to_dense()[0].detach().numpy()
    # int8 and float32 activations differ by a few hundredths; the heaviest pieces are the same.
    np.testing.assert_allclose(trained[vector.ids], vector.weights, atol=0.12)
    heaviest = vector.ids[np.argsort(-vector.weights)[:5]].tolist()
    assert set(heaviest) <= set(np.argsort(-trained)[:10].tolist())


def test_only_graphs_of_our_export_reopen(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a standin") as caught:
        reopen_checkpoint(resolve_model_directory("standin"), tmp_path / "out")
    assert caught.value.code == "checkpoint_unsupported"


def test_a_changed_graph_is_refused(tmp_path: Path) -> None:
    export_encoder(ExportOptions(str(make_start(tmp_path / "start")), tmp_path / "first", window=30, overlap=4))
    model = tmp_path / "first" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    with pytest.raises(ConfigurationError) as caught:
        reopen_checkpoint(tmp_path / "first", tmp_path / "reopened")
    assert caught.value.code == "corrupt_model_file"
    assert not (tmp_path / "reopened").exists()
    assert json.loads((tmp_path / "first" / "manifest.json").read_bytes())["format"] == "sparsewell-encoder/1"
