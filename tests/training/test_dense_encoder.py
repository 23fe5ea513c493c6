"""Dense encoders: pooling, prefixes, length, and vectors that do not depend on the batch."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from models.dense import DenseEncoder, load_dense_encoder, normalise_rows, pool_positions
from services.encoders.catalogue import list_dense_encoders
from services.encoders.manifest import DenseForm, Pooling, WindowSettings, describe_file
from services.errors import ConfigurationError, EncoderMismatch, InvalidInput
from services.settings import Settings
from tests.training.tiny_dense import WIDTH, write_model

onnx = pytest.importorskip("onnx", reason="the extra [train] is not installed")

TEXTS = ["a wing in a flow", "", "heat " * 300, "lift", "the pressure of the layer around a body"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("teachers") / "tiny")


def table_rows(directory: Path, text: str, most: int) -> np.ndarray:
    """Look up the table's rows for a text's pieces, with special pieces."""
    from onnx import numpy_helper
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_truncation(most)
    model = onnx.load(directory / "model.onnx")
    table = next(numpy_helper.to_array(one) for one in model.graph.initializer if one.name == "table")
    return np.asarray(table[tokenizer.encode(text).ids])


@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("batch_pieces", [1, 64, 4096])
def test_vectors_are_pooled_positions_of_length_1(directory: Path, pooling: Pooling, batch_pieces: int) -> None:
    teacher = DenseEncoder(directory, DenseForm(pooling=pooling, max_pieces=32), threads=1, batch_pieces=batch_pieces)
    found = teacher.encode_passages(TEXTS)
    assert (found.dtype, found.shape) == (np.float16, (len(TEXTS), WIDTH))
    for text, vector in zip(TEXTS, found, strict=True):
        positions = table_rows(directory, text, 32)
        wanted = positions[0] if pooling is Pooling.first else positions.mean(axis=0)
        np.testing.assert_allclose(vector, wanted / np.linalg.norm(wanted), atol=2e-3)


def test_prefixes_by_side(directory: Path) -> None:
    plain = DenseEncoder(directory, DenseForm(), threads=1)
    teacher = DenseEncoder(directory, DenseForm(query_prefix="query: ", passage_prefix="passage: "), threads=1)
    np.testing.assert_array_equal(teacher.encode_queries(["lift"]), plain.encode_queries(["query: lift"]))
    np.testing.assert_array_equal(teacher.encode_passages(["lift"]), plain.encode_queries(["passage: lift"]))


def test_a_graph_may_pool_its_own_vectors(tmp_path: Path) -> None:
    teacher = DenseEncoder(write_model(tmp_path / "own", pools=True), DenseForm(pooling=Pooling.first), threads=1)
    wanted = table_rows(tmp_path / "own", "lift", 64).mean(axis=0)
    np.testing.assert_allclose(teacher.encode_queries(["lift"])[0], wanted / np.linalg.norm(wanted), atol=2e-3)


def test_a_graph_may_take_fewer_inputs(tmp_path: Path) -> None:
    teacher = DenseEncoder(
        write_model(tmp_path / "few", inputs=("input_ids", "attention_mask")), DenseForm(), threads=1
    )
    assert teacher.encode_queries(["lift"]).shape == (1, WIDTH)


def test_no_texts(directory: Path) -> None:
    assert DenseEncoder(directory, DenseForm(), threads=1).encode_queries([]).shape == (0, WIDTH)


def test_the_fingerprint_depends_on_weights_and_form(directory: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", scale=2.0)
    prints = [
        DenseEncoder(place, form, threads=1).fingerprint
        for place, form in [
            (directory, DenseForm()),
            (other, DenseForm()),
            (directory, DenseForm(pooling=Pooling.first)),
            (directory, DenseForm(query_prefix="q")),
            (directory, DenseForm(max_pieces=128)),
        ]
    ]
    assert len(set(prints)) == 5
    assert DenseEncoder(directory, DenseForm(), threads=1).fingerprint == prints[0]


def test_invalid_teachers_are_refused(tmp_path: Path, directory: Path) -> None:
    cases = {"missing_model_file": tmp_path / "none", "bad_tokenizer": tmp_path / "t", "bad_model": tmp_path / "m"}
    for name in "tm":
        shutil.copytree(directory, tmp_path / name)
    (tmp_path / "t" / "tokenizer.json").write_text("{")
    (tmp_path / "m" / "model.onnx").write_bytes(b"\x80\x04pickle")
    for code, place in cases.items():
        with pytest.raises(ConfigurationError) as caught:
            DenseEncoder(place, DenseForm(), threads=1)
        assert caught.value.code == code
    write_model(tmp_path / "strange", inputs=("input_ids", "pixels"))
    with pytest.raises(ConfigurationError, match="pixels"):
        DenseEncoder(tmp_path / "strange", DenseForm(), threads=1)


def test_weights_that_overflow_are_named(tmp_path: Path) -> None:
    teacher = DenseEncoder(write_model(tmp_path / "inf", scale=float("inf")), DenseForm(), threads=1)
    with pytest.raises(InvalidInput) as caught:
        teacher.encode_queries(["lift"])
    assert caught.value.code == "not_finite_scores"


def test_padding_does_not_change_the_mean() -> None:
    positions = np.array([[[1.0], [3.0], [99.0]], [[5.0], [99.0], [99.0]]], dtype=np.float32)
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    assert pool_positions(positions, mask, Pooling.mean).tolist() == [[2], [5]]
    assert pool_positions(positions, mask, Pooling.first).tolist() == [[1], [5]]


def test_a_zero_vector_stays_zero() -> None:
    assert normalise_rows(np.zeros((1, 3), dtype=np.float32)).tolist() == [[0, 0, 0]]


def test_windows_of_a_long_document_carry_the_prefix(directory: Path) -> None:
    form = DenseForm(passage_prefix="passage: ", max_pieces=32)
    encoder = DenseEncoder(directory, form, threads=1)
    text = "heat flows around the wing. " * 30
    window = WindowSettings(pieces=24, overlap=4)
    windows = encoder.windows(text, window)
    assert len(windows) > 5
    assert (windows[0].start, windows[-1].end) == (0, len(text))
    found = encoder.encode_windows(windows)
    alone = encoder.encode_passages([text[one.start : one.end] for one in windows])
    np.testing.assert_allclose(found, alone, atol=2e-3)
    with pytest.raises(InvalidInput) as caught:
        encoder.windows(text, WindowSettings(pieces=30, overlap=4))
    assert caught.value.code == "bad_window"
    assert encoder.encode_windows([]).shape == (0, WIDTH)


def test_a_local_encoder_is_identified_by_its_manifest(directory: Path) -> None:
    form = DenseForm(pooling=Pooling.first)
    files = {name: describe_file(directory / name).sha256 for name in ("model.onnx", "tokenizer.json")}
    described = {
        "format": "sparsewell-dense/1", "name": "mine", "width": WIDTH, "form": form.model_dump(mode="json"),
        "window": {"pieces": 64, "overlap": 8}, "licence": "MIT", "files": files,
    }  # fmt: skip
    (directory / "dense.json").write_text(json.dumps(described))
    known = list_dense_encoders(Settings(dense_encoders=str(directory)))["mine"]
    assert load_dense_encoder(known, Path("unused"), threads=1).fingerprint == known.identity.fingerprint
    (directory / "dense.json").write_text(json.dumps(described | {"files": files | {"model.onnx": "0" * 64}}))
    other = list_dense_encoders(Settings(dense_encoders=str(directory)))["mine"]
    with pytest.raises(EncoderMismatch, match="dense_mismatch"):
        load_dense_encoder(other, Path("unused"), threads=1)
