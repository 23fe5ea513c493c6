"""Projected encoders: the dense encoder's weights, the graph, the fit, and the command."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

REASON = "the extra [train] is not installed"
onnx = pytest.importorskip("onnx", reason=REASON)

from models.dense import DenseEncoder, load_dense_encoder  # noqa: E402
from models.onnx_encoder import pad_rows  # noqa: E402
from models.progress import SilentReporter  # noqa: E402
from models.projection.dense_checkpoint import read_dense_checkpoint  # noqa: E402
from models.projection.encoder import ProjectedEncoder  # noqa: E402
from models.projection.graph import K1, B, ProjectionHead, build_projected_graph  # noqa: E402
from models.projection.query_table import RIDGE, count_pieces, fit_query_table  # noqa: E402
from models.projection.train import ProjectionOptions, open_dense_source, project_encoder  # noqa: E402
from models.registry import load_encoder  # noqa: E402
from services.encoders.catalogue import list_dense_encoders  # noqa: E402
from services.encoders.dense_query_table import DenseQueryEncoder  # noqa: E402
from services.encoders.manifest import DenseForm, Pooling, WindowSettings, read_manifest  # noqa: E402
from services.encoders.query_table import QueryTable  # noqa: E402
from services.errors import ConfigurationError, InvalidInput  # noqa: E402
from services.settings import Settings  # noqa: E402
from tests.training.tiny_bert import HEADS, LAYERS, POSITIONS, VOCABULARY, WIDTH, write_bert  # noqa: E402
from tests.training.tiny_dense import write_model  # noqa: E402

TEXTS = ["a wing in a flow", "the heat of the heat of a body", "lift", "pressure of the layer around a slender body"]
CLS, SEP = 101, 102


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("dense") / "tiny-bert")


def rows_of(directory: Path, texts: list[str]) -> list[tuple[int, ...]]:
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    return [(CLS, *tokenizer.encode(text, add_special_tokens=False).ids, SEP) for text in texts]


def make_head(pooling: Pooling = Pooling.mean, prefix: tuple[int, ...] = ()) -> ProjectionHead:
    random = np.random.default_rng(5)
    weights = random.uniform(0.1, 9.0, VOCABULARY).astype(np.float32)
    weights[[0, 100, CLS, SEP, 103]] = 0.0
    return ProjectionHead(
        table=random.standard_normal((VOCABULARY, WIDTH)).astype(np.float32),
        mean=random.standard_normal(WIDTH).astype(np.float32) / 9,
        spread=random.uniform(0.5, 2.0, VOCABULARY).astype(np.float32),
        query_weights=weights,
        pooling=pooling,
        average_length=5.5,
        scale=0.3,
        expansions=20,
        least_query_weight=1.5,
        least_own_weight=0.5,
        prefix=prefix,
    )


def expected_weights(head: ProjectionHead, row: tuple[int, ...], dense: np.ndarray) -> np.ndarray:
    """Compute the weights of all pieces by the formulas of the module's docstring."""
    projected = head.table @ (dense - head.mean) / head.spread * head.scale
    projected[(head.query_weights < head.least_query_weight) | (projected < 0)] = 0.0
    projected[np.argsort(-projected)[head.expansions :]] = 0.0
    own = np.zeros(VOCABULARY)
    length = len(row) - 2
    for piece, count in Counter(row[1:-1]).items():
        if head.query_weights[piece] >= head.least_own_weight:
            norm = K1 * (1 - B + B * length / head.average_length)
            own[piece] = count * (K1 + 1) / (count + norm)
    return own + projected


@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("prefix", [(), (6019, 1024)])
def test_the_graph_gives_own_pieces_projections_and_the_dense_vector(
    bert: Path, pooling: Pooling, prefix: tuple[int, ...]
) -> None:
    import onnxruntime

    head = make_head(pooling, prefix)
    transformer = read_dense_checkpoint(bert)
    model = build_projected_graph(transformer, head, precision="fp32", top_k=24)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = rows_of(bert, TEXTS)
    input_ids, mask = pad_rows(rows)
    ids, weights, dense = session.run(["ids", "weights", "dense"], {"input_ids": input_ids, "attention_mask": mask})
    text = Tokenizer.from_file(str(bert / "tokenizer.json")).decode(list(prefix)) + " " if prefix else ""
    wanted = DenseEncoder(bert, DenseForm(pooling=pooling, max_pieces=POSITIONS, passage_prefix=text), threads=1)
    np.testing.assert_allclose(dense, wanted.encode_passages(TEXTS), atol=2e-3)
    for row, row_ids, row_weights, vector in zip(rows, ids, weights, dense, strict=True):
        whole = expected_weights(head, row, vector)
        # Pieces of the same weight may come in any order.
        np.testing.assert_allclose(row_weights, -np.sort(-whole)[:24], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(row_weights, whole[row_ids], rtol=1e-3, atol=1e-4)


def test_without_a_scale_own_pieces_are_left(bert: Path) -> None:
    import onnxruntime

    head = replace(make_head(), scale=0.0)
    model = build_projected_graph(read_dense_checkpoint(bert), head, precision="fp32", top_k=24)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = rows_of(bert, TEXTS)
    input_ids, mask = pad_rows(rows)
    ids, weights, dense = session.run(["ids", "weights", "dense"], {"input_ids": input_ids, "attention_mask": mask})
    for row, row_ids, row_weights, vector in zip(rows, ids, weights, dense, strict=True):
        np.testing.assert_allclose(row_weights, expected_weights(head, row, vector)[row_ids], atol=1e-5)


def test_half_precision_gives_nearly_the_same_vectors(bert: Path) -> None:
    import onnxruntime

    transformer, head = read_dense_checkpoint(bert), make_head()
    input_ids, mask = pad_rows(rows_of(bert, TEXTS))
    found = []
    for precision in ("fp32", "fp16"):
        model = build_projected_graph(transformer, head, precision=precision, top_k=24)  # type: ignore[arg-type]
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        found.append(session.run(None, {"input_ids": input_ids, "attention_mask": mask}))
    np.testing.assert_allclose(found[0][1], found[1][1], atol=0.05)
    assert (found[0][2] * found[1][2]).sum(axis=1).min() > 0.999


def test_int8_vectors_are_close_and_the_same_in_every_batch(bert: Path) -> None:
    import onnxruntime

    transformer, head = read_dense_checkpoint(bert), make_head()
    outputs = {}
    for precision in ("fp32", "int8"):
        model = build_projected_graph(transformer, head, precision=precision, top_k=24)  # type: ignore[arg-type]
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        batches = []
        for texts in (TEXTS, TEXTS[:1]):
            input_ids, mask = pad_rows(rows_of(bert, texts))
            batches.append(session.run(None, {"input_ids": input_ids, "attention_mask": mask}))
        outputs[precision] = batches
    together, alone = outputs["int8"]
    for whole, single in zip(together[:2], alone[:2], strict=True):
        np.testing.assert_array_equal(whole[:1], single)
    # The mean adds the zeros of padding in another order.
    np.testing.assert_allclose(together[2][:1], alone[2], atol=1e-6)
    cosines = (together[2] * outputs["fp32"][0][2]).sum(axis=1)
    assert cosines.min() > 0.99


def test_a_checkpoint_is_read_with_its_number_of_heads(bert: Path) -> None:
    transformer = read_dense_checkpoint(bert)
    assert (transformer.heads, len(transformer.layers), transformer.width) == (HEADS, LAYERS, WIDTH)


def test_graphs_of_other_models_are_refused(tmp_path: Path) -> None:
    cases = {
        "checkpoint_unsupported": write_model(tmp_path / "table"),
        "corrupt_checkpoint": write_bert(tmp_path / "nan", broken="encoder.layer.1.output.dense.bias"),
        "bad_model": write_bert(tmp_path / "pickle"),
    }
    (tmp_path / "pickle" / "model.onnx").write_bytes(b"\x80\x04pickle")
    for code, directory in cases.items():
        with pytest.raises(ConfigurationError) as caught:
            read_dense_checkpoint(directory)
        assert caught.value.code == code


def test_the_table_solves_the_ridge_regression() -> None:
    random = np.random.default_rng(2)
    rows = [random.integers(0, 12, size=random.integers(1, 9)).tolist() for _ in range(60)]
    counts = count_pieces(rows, 12)
    np.testing.assert_allclose(np.asarray(counts.multiply(counts).sum(axis=1)).ravel(), 1.0, rtol=1e-6)
    vectors = random.standard_normal((60, 5)).astype(np.float32)
    start = random.standard_normal((12, 5)).astype(np.float32)
    dense = counts.toarray()
    wanted = np.linalg.solve(dense.T @ dense + RIDGE * np.eye(12), dense.T @ vectors + RIDGE * start)
    np.testing.assert_allclose(fit_query_table(counts, vectors, start), wanted, atol=1e-4)


def write_pair_file(path: Path, count: int) -> Path:
    words = ["wing", "flow", "heat", "layer", "body", "lift", "drag", "plate", "shock", "jet", "gas", "cone"]
    random = np.random.default_rng(3)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            chosen = random.choice(words, 4).tolist()
            query, passage = " ".join([*chosen[:2], str(number)]), f"The {chosen[0]} of a {chosen[1]}, {number}. " * 3
            file.write(json.dumps({"query": query, "passage": passage}) + "\n")
    return path


def assert_one_pass_gives_both_vectors(directory: Path, dense: Path) -> None:
    known = list_dense_encoders(Settings(encoder=str(directory)))[directory.name]
    encoder = load_dense_encoder(known, Path("unused"), threads=1)
    assert isinstance(encoder, ProjectedEncoder)
    windows = [window for text in ("The wing of a jet", "", "\n", TEXTS[1]) for window in encoder.windows(text)]
    vectors, rows = encoder.encode_jointly(windows)
    for vector, alone in zip(vectors, encoder.encode(windows), strict=True):
        np.testing.assert_array_equal(vector.ids, alone.ids)
        np.testing.assert_array_equal(vector.weights, alone.weights)
    np.testing.assert_array_equal(rows, encoder.encode_windows(windows))
    np.testing.assert_array_equal(rows[[0, 2]], encoder.encode_passages(["The wing of a jet", TEXTS[1]]))
    np.testing.assert_array_equal(rows[[0, 2]], encoder.encode_queries(["The wing of a jet", TEXTS[1]]))
    assert not rows[1].any(), "a window without pieces"
    wanted = DenseEncoder(dense, known.form, threads=1).encode_passages(["The wing of a jet"])
    np.testing.assert_allclose(rows[:1], wanted, atol=0.05)
    table = DenseQueryEncoder.load(directory, QueryTable.load(directory))
    assert table is not None
    assert table.encode("wing jet") is not None


def test_an_encoder_is_fitted_verified_and_loads(bert: Path, tmp_path: Path) -> None:
    pairs = write_pair_file(tmp_path / "pairs.jsonl", 1200)
    source = open_dense_source(str(bert), Settings(), tmp_path, lambda message: None)
    options = ProjectionOptions(
        queries=1000,
        passages=200,
        window=WindowSettings(pieces=32, overlap=4),
        expansions=20,
        licence=source.licence,
    )
    out = project_encoder(source, [pairs], tmp_path / "projected", options, show=SilentReporter())
    manifest, table = read_manifest(out), QueryTable.load(out)
    encoder = load_encoder(str(out), threads=1)
    (vector,) = encoder.encode(encoder.windows("The wing of a jet"))
    assert manifest.licence == "MIT"
    assert manifest.model_extra is not None
    assert manifest.model_extra["training"]["queries"] == {"pairs.jsonl": 1000}
    assert set(table.ids("wing jet")) <= set(vector.ids.tolist())
    assert table.reference is not None
    assert table.reference.documents == 1200
    assert_one_pass_gives_both_vectors(out, source.directory)
    # The vectors are kept: a second run of the same pairs gives the same encoder.
    again = project_encoder(source, [pairs], tmp_path / "again", options, show=SilentReporter())
    assert read_manifest(again).fingerprint == manifest.fingerprint
    with pytest.raises(ConfigurationError) as caught:
        project_encoder(source, [pairs], out, options, show=SilentReporter())
    assert caught.value.code == "encoder_exists"


def test_too_few_pairs_and_long_windows_are_refused(bert: Path, tmp_path: Path) -> None:
    source = open_dense_source(str(bert), Settings(), tmp_path, lambda message: None)
    pairs, short = write_pair_file(tmp_path / "one.jsonl", 1), WindowSettings(pieces=32, overlap=4)
    with pytest.raises(InvalidInput) as caught:
        project_encoder(source, [pairs], tmp_path / "out", ProjectionOptions(window=short), show=SilentReporter())
    assert caught.value.code == "too_few_queries"
    long = WindowSettings(pieces=POSITIONS - 1, overlap=4)
    with pytest.raises(ConfigurationError) as too_long:
        project_encoder(source, [pairs], tmp_path / "out", ProjectionOptions(window=long), show=SilentReporter())
    assert too_long.value.code == "bad_window"
    assert not (tmp_path / "out").exists()


def test_files_of_one_name_are_both_read(bert: Path, tmp_path: Path) -> None:
    source = open_dense_source(str(bert), Settings(), tmp_path, lambda message: None)
    files = [write_pair_file(tmp_path / "a.jsonl", 600), tmp_path / "more" / "a.jsonl"]
    files[1].parent.mkdir()
    files[1].write_text(files[0].read_text().replace('"query": "', '"query": "other '))
    options = ProjectionOptions(passages=100, window=WindowSettings(pieces=32, overlap=4), licence="MIT")
    manifest = read_manifest(project_encoder(source, files, tmp_path / "out", options, show=SilentReporter()))
    assert manifest.model_extra is not None
    assert manifest.model_extra["training"]["queries"] == {"a.jsonl": 1200}


def test_an_unknown_dense_encoder_is_refused(tmp_path: Path) -> None:
    for name, code in (("no-such-model", "unknown_model"), (str(tmp_path), "bad_dense_encoder")):
        with pytest.raises(ConfigurationError) as caught:
            open_dense_source(name, Settings(), tmp_path, lambda message: None)
        assert caught.value.code == code


def test_a_fit_needs_no_pytorch() -> None:
    code = (
        "import sys; import cli.train, models.projection.train, models.training.own.refit\n"
        "found = {'torch', 'transformers', 'datasets', 'sentence_transformers'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
