"""The export script on tiny models: the graph equals PyTorch, and the files are the same on every run."""

import json
from pathlib import Path

import numpy as np
import pytest

REASON = "needs the train extra (requirements/train.txt), which tests do not install"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)
pytest.importorskip("onnx", reason=REASON)

from onnx import TensorProto  # noqa: E402 (after the skips)

from models.export.checkpoint import load_checkpoint  # noqa: E402
from models.export.export import ExportOptions, export_encoder  # noqa: E402
from models.export.onnx_graph import build_graph, make_graph_encoder  # noqa: E402
from models.export.parity import TorchReference  # noqa: E402
from models.registry import load_encoder  # noqa: E402
from models.verification import verify_directory  # noqa: E402
from services.encoders.query_table import QueryTable  # noqa: E402
from services.errors import ConfigurationError  # noqa: E402

PIECES = [
    "[PAD]",
    "[unused0]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghijklmnopqrstuvwxyz",
    ".",
    "##s",
    "cat",
    "dog",
]
EXCLUDED = set(range(6))


def make_checkpoint(directory: Path, family: str) -> Path:
    torch.manual_seed(7)
    directory.mkdir()
    if family == "bert":
        config = transformers.BertConfig(
            vocab_size=len(PIECES), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
            max_position_embeddings=40,
        )  # fmt: skip
        model = transformers.BertForMaskedLM(config)
    else:
        config = transformers.DistilBertConfig(
            vocab_size=len(PIECES), dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=40
        )
        model = transformers.DistilBertForMaskedLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.half().save_pretrained(directory, safe_serialization=True)
    tokenizer = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": None, "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {piece: index for index, piece in enumerate(PIECES)}},
    }  # fmt: skip
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    (directory / "query_weights.json").write_text(json.dumps(dict.fromkeys(PIECES, 1.5)))
    return directory


def make_rows() -> list[list[int]]:
    generator = np.random.default_rng(3)
    return [[3, *generator.integers(6, len(PIECES), size).tolist(), 4] for size in (1, 5, 17, 38, 17)]


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_the_graph_equals_pytorch(tmp_path: Path, family: str) -> None:
    source = make_checkpoint(tmp_path / "source", family)
    wanted_ids, wanted = TorchReference(source, top_k=20, excluded=EXCLUDED).encode(make_rows())
    checkpoint = load_checkpoint(source)
    ids, weights = make_graph_encoder(build_graph(checkpoint, precision="fp32", top_k=20, excluded=EXCLUDED))(
        make_rows()
    )
    assert (wanted > 0).sum() > 20
    np.testing.assert_allclose(weights, wanted, atol=2e-5)
    positive = wanted > 1e-4
    assert (ids == wanted_ids)[positive].all()
    assert not EXCLUDED & set(ids[weights > 0].tolist())
    assert (np.diff(weights, axis=1) <= 0).all()

    half = build_graph(checkpoint, precision="fp16", top_k=20, excluded=EXCLUDED)
    assert {output.type.tensor_type.elem_type for output in half.graph.output} == {TensorProto.INT32, TensorProto.FLOAT}
    assert len(half.SerializeToString()) < 0.8 * len(
        build_graph(checkpoint, precision="fp32", top_k=20, excluded=EXCLUDED).SerializeToString()
    )
    _, rounded = make_graph_encoder(half)(make_rows())
    assert 0 < np.abs(rounded - wanted).max() < 0.01

    _, quantised = make_graph_encoder(build_graph(checkpoint, precision="int8", top_k=20, excluded=EXCLUDED))(
        make_rows()
    )
    assert 0 < np.abs(quantised - wanted).mean() < 0.05


def test_the_same_checkpoint_gives_the_same_files(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "source", "bert")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        export_encoder(ExportOptions(str(source), tmp_path / name / "tiny", window=24, overlap=4))
    for file in ("model.onnx", "tokenizer.json", "query_weights.json", "manifest.json"):
        assert (tmp_path / "one" / "tiny" / file).read_bytes() == (tmp_path / "two" / "tiny" / file).read_bytes()

    encoder = load_encoder(str(tmp_path / "one" / "tiny"), threads=1)
    assert encoder.manifest.top_k == len(PIECES)
    text = "cats dog a b c " * 30
    windows = encoder.windows(text)
    # The checkpoint's tokeniser truncates at 8 tokens. The exported tokeniser does not.
    assert max(len(window.piece_ids) for window in windows) > 20
    assert windows[-1].end == len(text)
    assert all(len(vector) > 0 for vector in encoder.encode(windows))

    table = QueryTable.load(tmp_path / "one" / "tiny")
    assert table.encode("cat", 10).weights == (1.5,)
    assert "[unused0]" not in json.loads((tmp_path / "one" / "tiny" / "query_weights.json").read_text())


@pytest.mark.parametrize(
    ("key", "value"), [("hidden_act", "relu"), ("tie_word_embeddings", False), ("model_type", "t5")]
)
def test_what_would_be_exported_wrongly_is_refused(tmp_path: Path, key: str, value: object) -> None:
    source = make_checkpoint(tmp_path / "source", "bert")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(ConfigurationError) as caught:
        load_checkpoint(source)
    assert caught.value.code == "checkpoint_unsupported"


def test_the_tokeniser_of_a_larger_model_is_refused(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "source", "bert")
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {f"[unused{index}]": index for index in range(len(PIECES), 99)}
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigurationError, match="belongs to another model") as caught:
        export_encoder(ExportOptions(str(source), tmp_path / "tiny", window=24, overlap=4))
    assert caught.value.code == "bad_tokenizer"
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_weights_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "source", "bert")
    checkpoint = load_checkpoint(source)
    checkpoint.words[3, 3] = 1e5
    with pytest.raises(ConfigurationError, match="65,504"):
        build_graph(checkpoint, precision="fp16", top_k=5, excluded=EXCLUDED)


def test_a_graph_of_another_vocabulary_than_the_manifest_is_reported(tmp_path: Path) -> None:
    export_encoder(
        ExportOptions(str(make_checkpoint(tmp_path / "start", "bert")), tmp_path / "out", window=30, overlap=4)
    )
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert not verify_directory(tmp_path / "out").problems
    vocabulary = manifest["vocabulary"] + 8
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest | {"vocabulary": vocabulary}))
    (problem,) = verify_directory(tmp_path / "out").problems
    assert problem.code == "bad_model"
    assert f"{vocabulary:,} pieces" in problem.detail
