"""A projected encoder that is refitted to a corpus: the table, the graph, the command, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the extra [train] is not installed")

from onnx import numpy_helper  # noqa: E402

from models.export.transformer_graph import Precision, quantise_weight  # noqa: E402
from models.progress import SilentReporter  # noqa: E402
from models.projection.graph import make_projection, replace_projection  # noqa: E402
from models.projection.moments import MOMENTS_FILE, PassageMoments  # noqa: E402
from models.projection.refit import RefitStart, refit_encoder  # noqa: E402
from models.projection.train import ProjectionOptions, open_dense_source, project_encoder  # noqa: E402
from models.registry import load_encoder  # noqa: E402
from models.training.own.comparison import HYBRID, RERANKED, compare_tables  # noqa: E402
from models.training.own.held_out import prepare_corpus  # noqa: E402
from models.training.own.refit import RefitOptions, list_fit_queries, refit_own_encoder, texts_of  # noqa: E402
from models.verification import verify_directory  # noqa: E402
from services.documents.document import Document  # noqa: E402
from services.encoders.dense_query_table import DenseQueryTable  # noqa: E402
from services.encoders.manifest import (  # noqa: E402
    MANIFEST_FILE,
    WEIGHTS_ROOT,
    WindowSettings,
    describe_file,
    read_manifest,
)
from services.encoders.query_table import QueryTable  # noqa: E402
from services.errors import ConfigurationError, InvalidInput  # noqa: E402
from services.settings import Settings  # noqa: E402
from tests.training.tiny_bert import write_bert  # noqa: E402

SUBJECTS = ["wing", "flow", "heat", "pressure", "layer", "body", "jet", "cone", "shock", "plate"]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("refit")
    pairs = root / "pairs.jsonl"
    lines = [
        {"query": f"{SUBJECTS[n % 10]} {n}", "passage": f"The {SUBJECTS[n % 10]} number {n}."} for n in range(1100)
    ]
    pairs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = open_dense_source(str(write_bert(root / "bert")), Settings(), root, lambda message: None)
    options = ProjectionOptions(
        queries=1000, passages=200, window=WindowSettings(pieces=32, overlap=4), expansions=20, licence="MIT"
    )
    return project_encoder(source, [pairs], root / "start", options, show=SilentReporter())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    with path.open("w") as file:
        for number in range(160):
            first, second = SUBJECTS[number % 10], SUBJECTS[number * 7 % 9]
            text = (
                f"The {first} of sample {number} was tested in a tunnel. A {second} of {number * 3} units came beside "
                f"it and gave readings. Nobody had measured the {first} in series {number + 1000} before."
            )
            file.write(json.dumps({"id": f"d{number}", "title": f"{first} sample {number}", "text": text}) + "\n")
    return path


def copy_changed(start: Path, to: Path, **changes: object) -> Path:
    """Copy an encoder and change members of its manifest; None removes one."""
    shutil.copytree(start, to)
    manifest = json.loads((to / MANIFEST_FILE).read_text())
    manifest |= {"name": to.name} | changes
    (to / MANIFEST_FILE).write_text(json.dumps({name: value for name, value in manifest.items() if value is not None}))
    return to


def constants(directory: Path) -> dict[str, np.ndarray]:
    model = onnx.load(str(directory / "model.onnx"))
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_a_refit_changes_the_table_and_the_projection_alone(start: Path, tmp_path: Path) -> None:
    queries = [f"the {one} beside a {other}" for one in SUBJECTS for other in SUBJECTS]
    cache, show = tmp_path / "cache", SilentReporter()
    out = refit_encoder(RefitStart.open(start), queries, tmp_path / "mine", corpus="toy", cache=cache, show=show)
    assert not verify_directory(out).problems
    before, after = constants(start), constants(out)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"projection.weight", "projection.scale"}
    old, new = load_encoder(str(start), threads=1), load_encoder(str(out), threads=1)
    windows = old.windows("a wing in the flow of a jet")
    np.testing.assert_array_equal(old.encode_windows(windows), new.encode_windows(windows))  # type: ignore[attr-defined]
    tables = compare_tables(RefitStart.open(start).encoder, start, out, queries)
    assert tables["cosine"]["new"] > tables["cosine"]["start"]
    assert tables["new_over_start"][0] > 0
    # The projection is that of the new table and the general spread.
    manifest = read_manifest(out)
    table, moments = DenseQueryTable.load(out, manifest), PassageMoments.load(out, manifest)
    assert table is not None
    spread = moments.spread(table.rows())
    assert np.array_equal(after["projection.weight"].any(axis=0), before["projection.weight"].any(axis=0))
    weighed = np.flatnonzero(after["projection.weight"].any(axis=0))
    found = after["projection.weight"][:, weighed] * after["projection.scale"][weighed]
    wanted = (0.4 * table.rows() / spread[:, None]).T[:, weighed]
    np.testing.assert_allclose(found, wanted, atol=0.03 * np.abs(wanted).max())
    assert manifest.name == "mine"
    assert manifest.licence == "MIT"
    assert manifest.reference == read_manifest(start).reference
    assert manifest.fingerprint != read_manifest(start).fingerprint
    assert manifest.model_extra is not None
    training = manifest.model_extra["training"]
    assert (training["start"]["name"], training["start"]["fingerprint"]) == ("start", read_manifest(start).fingerprint)
    assert training["start"]["training"]["queries"] == {"pairs.jsonl": 1000}, "the sources of the start stay known"
    assert (training["corpus"], training["queries"]) == ("toy", 100)
    # A refitted encoder can be refitted again, and pieces that no query has keep their rows.
    few = [f"heat {number}" for number in range(64)]
    again = refit_encoder(RefitStart.open(out), few, tmp_path / "again", corpus="toy", cache=cache, show=show)
    rows = DenseQueryTable.load(again, read_manifest(again))
    assert rows is not None
    unused = QueryTable.load(out).ids("shock")[0]
    np.testing.assert_allclose(rows.rows()[unused], table.rows()[unused], atol=1e-2)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int7", "int8"])
def test_a_projection_is_replaced_at_its_precision(precision: Precision) -> None:
    random = np.random.default_rng(3)
    table = random.standard_normal((50, 8)).astype(np.float32)
    weights = random.uniform(0, 4, 50).astype(np.float32)
    spread = random.uniform(0.5, 2, 50).astype(np.float32)
    wanted = make_projection(table, spread, weights, scale=0.5, least_query_weight=1.0)
    np.testing.assert_allclose(wanted[:, 7], table[7] * 0.5 * (weights[7] >= 1) / spread[7], rtol=1e-5)
    zeros = np.zeros((8, 50), np.float32)
    tensors = {"projection.weight": zeros}
    if precision.startswith("int"):
        values, scales = quantise_weight(zeros, int(precision[-1]))
        tensors = {"projection.weight": values, "projection.scale": scales}
    graph = onnx.helper.make_graph([], "g", [], [], [numpy_helper.from_array(a, n) for n, a in tensors.items()])
    model = onnx.helper.make_model(graph)
    replace_projection(model, wanted, precision)
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    product = found["projection.weight"] * found.get("projection.scale", np.float32(1))
    np.testing.assert_allclose(product, wanted, atol=0.02)
    other: Precision = "int8" if precision.startswith("fp") else "fp32"
    for matrix, kind in ((wanted[:, :40], precision), (wanted, other)):
        with pytest.raises(ConfigurationError) as caught:
            replace_projection(model, matrix, kind)
        assert caught.value.code == "bad_model"


def test_encoders_that_cannot_be_refitted_are_refused(start: Path, tmp_path: Path) -> None:
    moments = {
        "nan": PassageMoments(np.full(64, np.nan, np.float32), np.eye(64, dtype=np.float32)),
        "narrow": PassageMoments(np.zeros(32, np.float32), np.eye(32, dtype=np.float32)),
    }
    for name, content in moments.items():
        directory = copy_changed(start, tmp_path / name)
        content.write(directory / MOMENTS_FILE)
        manifest = json.loads((directory / MANIFEST_FILE).read_text())
        manifest["moments"] = describe_file(directory / MOMENTS_FILE).model_dump()
        (directory / MANIFEST_FILE).write_text(json.dumps(manifest))
    damaged = copy_changed(start, tmp_path / "damaged")
    (damaged / MOMENTS_FILE).write_bytes(b"damaged")
    dense = json.loads((start / MANIFEST_FILE).read_text())["dense"]
    prefix = {"width": dense["width"], "form": dense["form"] | {"passage_prefix": "passage: "}}
    options = {"scale": float("nan"), "least_query_weight": 1.5, "precision": "int8"}
    cases = [
        ("not_projected", WEIGHTS_ROOT / "standin"),
        ("not_refittable", copy_changed(start, tmp_path / "prefix", dense=prefix)),
        ("bad_moments", copy_changed(start, tmp_path / "without", moments=None)),
        ("bad_moments", tmp_path / "nan"),
        ("bad_moments", tmp_path / "narrow"),
        ("corrupt_model_file", damaged),
        ("bad_manifest", copy_changed(start, tmp_path / "no-options", training={"seconds": 3})),
        ("bad_manifest", copy_changed(start, tmp_path / "nan-scale", training={"options": options})),
    ]
    for code, directory in cases:
        with pytest.raises(ConfigurationError) as caught:
            RefitStart.open(directory)
        assert caught.value.code == code


def test_other_encoders_are_never_replaced(start: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    taken = out / "taken"
    shutil.copytree(WEIGHTS_ROOT / "standin", taken)
    shutil.copytree(start, out / "start")
    collides = {
        "encoder_exists": (str(start), "taken"),
        "start_is_output": (str(out / "start"), "start"),
        "bad_encoder_name": (str(start), "report.md"),
    }
    for code, (begin, name) in collides.items():
        with pytest.raises(ConfigurationError) as caught:
            refit_own_encoder(corpus, out, RefitOptions(begin), name=name)
        assert caught.value.code == code
    assert read_manifest(taken).fingerprint == read_manifest(WEIGHTS_ROOT / "standin").fingerprint
    assert sorted(path.name for path in out.iterdir()) == ["start", "taken"], "refused before any work"


def test_documents_without_words_are_refused(start: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        refit_encoder(
            RefitStart.open(start), ["wing"] * 3, tmp_path / "out", corpus="toy", cache=tmp_path, show=SilentReporter()
        )
    assert caught.value.code == "too_few_queries"
    assert not (tmp_path / "out").exists()


def test_the_fit_reads_documents_without_held_out_pairs(corpus: Path) -> None:
    prepared = prepare_corpus(corpus, RefitOptions("standin"), SilentReporter())
    queries = list_fit_queries(prepared, 1000, 0)
    assert len(queries) == len(set(queries))
    seen = prepared.training_documents()
    assert 0 < len(seen) < len(prepared.documents)
    held_out = [document for document in prepared.documents if document not in seen]
    assert held_out
    assert not {document.title for document in held_out} & set(queries)
    # Sentences are whole: the pairs lose some of them, and words of them.
    assert {document.title for document in seen} <= set(queries)
    for document in seen[:20]:
        assert document.text.split(". ")[0] + "." in queries
    drawn = list_fit_queries(prepared, 20, 0)
    assert len(drawn) == 20
    assert set(drawn) < set(queries)
    assert drawn == list_fit_queries(prepared, 20, 0)


def test_long_and_unspaced_texts_are_cut_and_kept() -> None:
    texts = list(texts_of([Document("d", " ".join(["word"] * 70), "A title")]))
    assert [len(part.split()) for part in texts] == [2, 30, 30, 10]
    unspaced = "翼の周りの流れは速くなると言われている。"
    assert list(texts_of([Document("d", f"{unspaced}短い。", "")])) == [unspaced]


def test_a_corpus_of_documents_alone_refits_an_encoder(start: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "toy"
    model = refit_own_encoder(corpus, out, RefitOptions(str(start)), name="toy-encoder")
    assert model == out / "toy-encoder"
    report = json.loads((out / "report.json").read_text())
    systems = {"bm25", *(f"{name}{search}" for name in ("start", "new") for search in ("", HYBRID, RERANKED))}
    assert set(report["compared"]["held out"]["ndcg_at_10"]) == systems
    assert set(report["compared"]["held out"]["new_over_start"]) == {
        "sparse",
        "hybrid",
        "hybrid, reranked by the table",
    }
    assert report["seconds"].keys() == {"pairs", "fitting", "comparing"}
    assert report["tables"]["cosine"]["new"] > report["tables"]["cosine"]["start"]
    text = (out / "report.md").read_text()
    assert "Its mean cosine with them, on held-out queries" in text
    assert "learning.png" not in text
    assert not (out / "learning.png").exists()
    assert (out / "quality.png").read_bytes().startswith(b"\x89PNG")
    # A repeated command gives the same encoder.
    fingerprint = read_manifest(model).fingerprint
    assert read_manifest(refit_own_encoder(corpus, out, RefitOptions(str(start)), name="toy-encoder")).fingerprint == (
        fingerprint
    )
