"""Checkpoints: the export equals the training, and no good checkpoint is lost."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SparseEncoder

from models.export.checkpoint import load_checkpoint
from models.export.export import ExportOptions, export_encoder
from models.export.onnx_graph import RowVectors, build_graph, make_graph_encoder
from models.export.parity import TorchReference
from models.registry import load_encoder
from models.training.architecture import build_encoder, save_checkpoint
from models.training.pipeline import publish_encoder
from models.training.recipe import RECIPE_FILE, EncoderRecipe
from services.encoders.query_table import QueryTable
from services.encoders.vectors import PackedVector, SparseVector
from services.errors import ConfigurationError, InvalidInput
from tests.training.tiny_start import EXCLUDED, PIECES, TEXTS, make_start


def dense(found: RowVectors) -> np.ndarray:
    whole = np.zeros((len(found[0]), len(PIECES)), np.float32)
    np.put_along_axis(whole, found[0].astype(np.int64), found[1], axis=1)
    return whole


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("activation", ["log1p_relu", "log1p_log1p_relu"])
@pytest.mark.parametrize("expansion", [True, False])
def test_the_exported_graph_gives_the_vectors_of_training(
    tmp_path: Path, family: str, activation: str, expansion: bool
) -> None:
    recipe = EncoderRecipe(activation=activation, expansion=expansion, passage_pieces=40)
    encoder = build_encoder(make_start(tmp_path / "start", family), recipe, device="cpu")
    save_checkpoint(encoder, tmp_path / "checkpoint")
    wanted = encoder.encode_document(TEXTS, convert_to_sparse_tensor=False).numpy()
    assert (wanted > 0).sum() > (50 if expansion else 3)

    rows = [encoder.preprocess([text], task="document")["input_ids"][0].tolist() for text in TEXTS]
    form = {"top_k": len(PIECES), "excluded": EXCLUDED, "activation": activation, "expansion": expansion}
    graph = build_graph(load_checkpoint(tmp_path / "checkpoint"), precision="fp32", **form)
    np.testing.assert_allclose(dense(make_graph_encoder(graph)(rows)), wanted, atol=1e-4)
    np.testing.assert_allclose(dense(TorchReference(tmp_path / "checkpoint", **form).encode(rows)), wanted, atol=1e-4)


@pytest.mark.parametrize("activation", ["log1p_relu", "log1p_log1p_relu"])
def test_the_command_exports_by_the_recipe(tmp_path: Path, activation: str) -> None:
    recipe = EncoderRecipe(activation=activation, passage_pieces=40)
    encoder = build_encoder(make_start(tmp_path / "start"), recipe, device="cpu")
    save_checkpoint(encoder, tmp_path / "checkpoint")
    out = tmp_path / "served"
    export_encoder(ExportOptions(str(tmp_path / "checkpoint"), out))
    assert json.loads((out / "manifest.json").read_bytes())["activation"] == activation
    served = load_encoder(str(out), threads=1)
    text = "the cat [SEP] dogs. house"
    vector = served.encode(served.windows(text))[0]
    wanted = encoder.encode_document([text], convert_to_sparse_tensor=False).numpy()[0]
    found = np.zeros(len(PIECES), np.float32)
    found[vector.ids] = vector.weights
    # The tolerance covers int8 and two bytes a weight.
    np.testing.assert_allclose(found, wanted, atol=0.15)
    query = QueryTable.load(out).encode(text, 100).by_id()
    trained = encoder.encode_query([text], convert_to_sparse_tensor=False)[0]
    assert query == pytest.approx({i: w for i, w in enumerate(trained.tolist()) if w})


def test_training_starts_from_a_checkpoint(tmp_path: Path) -> None:
    start = make_start(tmp_path / "start")
    recipe = EncoderRecipe(passage_pieces=16)
    encoder = build_encoder(start, recipe, device="cpu")
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.01)
    save_checkpoint(encoder, tmp_path / "checkpoint")
    assert EncoderRecipe.read(tmp_path / "checkpoint") == recipe
    again = build_encoder(tmp_path / "checkpoint", recipe, device="cpu")
    for task in ("query", "document"):
        one, other = (e.encode(TEXTS, task=task, convert_to_sparse_tensor=False) for e in (encoder, again))
        torch.testing.assert_close(one, other)
    assert again.idf is not None and encoder.idf is not None
    np.testing.assert_array_equal(again.idf[6:], encoder.idf[6:])
    names = {path.name for path in (tmp_path / "checkpoint").iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "query_weights.json",
        "idf.json",
        RECIPE_FILE,
    } <= names


@pytest.mark.parametrize("side", ["query", "document"])
def test_nan_leaves_the_last_checkpoint(tmp_path: Path, side: str) -> None:
    encoder = build_encoder(make_start(tmp_path / "start"), EncoderRecipe(passage_pieces=16), device="cpu")
    save_checkpoint(encoder, tmp_path / "checkpoint")
    before = (tmp_path / "checkpoint" / "model.safetensors").read_bytes()
    with torch.no_grad():
        next(encoder[0].sub_modules[side].parameters())[-1] = float("nan")
    with pytest.raises(InvalidInput) as caught:
        save_checkpoint(encoder, tmp_path / "checkpoint")
    assert caught.value.code == "not_finite_weights"
    assert (tmp_path / "checkpoint" / "model.safetensors").read_bytes() == before


def test_a_new_checkpoint_replaces_the_old_one_completely(tmp_path: Path) -> None:
    start = make_start(tmp_path / "start")
    encoder = build_encoder(start, EncoderRecipe(passage_pieces=16), device="cpu")
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "left-over").touch()
    # the remains of a killed run
    (tmp_path / ".checkpoint.part").mkdir()
    (tmp_path / ".checkpoint.part" / "half").touch()
    save_checkpoint(encoder, tmp_path / "checkpoint")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "start"]
    assert not (tmp_path / "checkpoint" / "left-over").exists() and not (tmp_path / "checkpoint" / "half").exists()


def test_binary_weights_have_no_model_to_export(tmp_path: Path) -> None:
    recipe = EncoderRecipe(document_weighting="binary", expansion=False, regulariser="none", passage_pieces=16)
    encoder = build_encoder(make_start(tmp_path / "start"), recipe, device="cpu")
    save_checkpoint(encoder, tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint" / "model.safetensors").exists()
    with pytest.raises(ConfigurationError, match="binary"):
        export_encoder(ExportOptions(str(tmp_path / "checkpoint"), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("expansion", [True, False])
def test_a_checkpoint_is_an_encoder_of_sentence_transformers(tmp_path: Path, family: str, expansion: bool) -> None:
    """Without the Router the library loads the transformer for queries too, with another activation and no table."""
    recipe = EncoderRecipe(activation="log1p_log1p_relu", expansion=expansion, passage_pieces=40)
    encoder = build_encoder(make_start(tmp_path / "start", family), recipe, device="cpu")
    save_checkpoint(encoder, tmp_path / "checkpoint")
    publish_encoder(tmp_path / "checkpoint", tmp_path / "published", licence="Apache-2.0")
    for directory in ("checkpoint", "published"):
        loaded = SparseEncoder(str(tmp_path / directory), device="cpu")
        for task in ("query", "document"):
            ours, theirs = (e.encode(TEXTS, task=task, convert_to_sparse_tensor=False) for e in (encoder, loaded))
            torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-4)
    table = json.loads((tmp_path / "published" / "idf.json").read_bytes())
    assert table["cat"] == pytest.approx(0.5 + PIECES.index("cat"))
    card = (tmp_path / "published" / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: sentence-transformers\n")
    if expansion:
        # Ours read it too, as they read other published encoders.
        again = build_encoder(tmp_path / "published", recipe, device="cpu")
        torch.testing.assert_close(
            again.encode(TEXTS, task="document", convert_to_sparse_tensor=False),
            encoder.encode(TEXTS, task="document", convert_to_sparse_tensor=False),
        )


def test_a_model_directory_is_published_too(tmp_path: Path) -> None:
    recipe = EncoderRecipe(activation="log1p_log1p_relu", passage_pieces=40)
    encoder = build_encoder(make_start(tmp_path / "start"), recipe, device="cpu")
    save_checkpoint(encoder, tmp_path / "checkpoint")
    export_encoder(ExportOptions(str(tmp_path / "checkpoint"), tmp_path / "served", precision="fp32"))
    publish_encoder(tmp_path / "served", tmp_path / "published")
    loaded = SparseEncoder(str(tmp_path / "published"), device="cpu")
    for task in ("query", "document"):
        ours, theirs = (e.encode(TEXTS, task=task, convert_to_sparse_tensor=False) for e in (encoder, loaded))
        torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-3)
    with pytest.raises(ConfigurationError, match="target_exists"):
        publish_encoder(tmp_path / "served", tmp_path / "published")
    with pytest.raises(ConfigurationError, match="not_an_encoder"):
        publish_encoder(tmp_path / "start", tmp_path / "other")


def test_a_vocabulary_above_two_bytes_is_served(tmp_path: Path) -> None:
    """The multilingual encoder of the OpenSearch family has 105,879 pieces."""
    pieces = [*PIECES, *(f"w{number}" for number in range(66_000))]
    encoder = build_encoder(
        make_start(tmp_path / "start", pieces=pieces), EncoderRecipe(passage_pieces=40), device="cpu"
    )
    save_checkpoint(encoder, tmp_path / "checkpoint")
    export_encoder(ExportOptions(str(tmp_path / "checkpoint"), tmp_path / "served", top_k=len(pieces)))
    served = load_encoder(str(tmp_path / "served"), threads=1)
    vector = served.encode(served.windows("the cat w65999"))[0]
    assert vector.ids.max() > 65_536
    assert SparseVector.unpack(vector.pack()).ids.tolist() == vector.ids.tolist()
    query = QueryTable.load(tmp_path / "served").encode("w65999", 100).by_id()
    assert set(query) == {len(pieces) - 1}
    assert PackedVector(vector.pack()).dot(query) == vector.dot(query)
