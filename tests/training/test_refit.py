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
from models.projection.refit import refit_encoder  # noqa: E402
from models.projection.train import ProjectionOptions, open_dense_source, project_encoder  # noqa: E402
from models.registry import load_encoder  # noqa: E402
from models.training.own.comparison import HYBRID, RERANKED, compare_tables  # noqa: E402
from models.training.own.pairs import PairOptions, make_own_pairs  # noqa: E402
from models.training.own.refit import RefitOptions, list_fit_queries, refit_own_encoder  # noqa: E402
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
from services.errors import ConfigurationError  # noqa: E402
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
    out = refit_encoder(
        start, queries, tmp_path / "mine", corpus="toy", cache=tmp_path / "cache", show=SilentReporter()
    )
    assert not verify_directory(out).problems
    before, after = constants(start), constants(out)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"projection.weight", "projection.scale"}
    old, new = load_encoder(str(start), threads=1), load_encoder(str(out), threads=1)
    windows = old.windows("a wing in the flow of a jet")
    np.testing.assert_array_equal(old.encode_windows(windows), new.encode_windows(windows))  # type: ignore[attr-defined]
    tables = compare_tables(start, out, queries)
    assert tables["cosine"]["new"] > tables["cosine"]["start"]
    assert tables["new_over_start"][0] > 0
    # The projection is that of the new table and the general spread.
    manifest = read_manifest(out)
    table, moments = DenseQueryTable.load(out, manifest), PassageMoments.load(out, manifest)
    assert table is not None
    spread = moments.spread(table.rows())
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
    assert training["start"] == {"name": "start", "fingerprint": read_manifest(start).fingerprint}
    assert (training["corpus"], training["queries"]) == ("toy", 100)
    # A refitted encoder can be refitted again, and pieces that no query has keep their rows.
    again = refit_encoder(
        out, ["heat"], tmp_path / "again", corpus="toy", cache=tmp_path / "cache", show=SilentReporter()
    )
    rows = DenseQueryTable.load(again, read_manifest(again))
    assert rows is not None
    unused = QueryTable.load(out).ids("shock")[0]
    np.testing.assert_allclose(rows.rows()[unused], table.rows()[unused], atol=1e-2)


@pytest.mark.parametrize("precision", ["fp32", "int7"])
def test_a_projection_is_replaced_at_its_precision(precision: Precision) -> None:
    random = np.random.default_rng(3)
    table = random.standard_normal((50, 8)).astype(np.float32)
    weights = random.uniform(0, 4, 50).astype(np.float32)
    spread = random.uniform(0.5, 2, 50).astype(np.float32)
    wanted = make_projection(table, spread, weights, scale=0.5, least_query_weight=1.0)
    np.testing.assert_allclose(wanted[:, 7], table[7] * 0.5 * (weights[7] >= 1) / spread[7], rtol=1e-5)
    zeros = np.zeros((8, 50), np.float32)
    tensors = {"projection.weight": zeros}
    if precision == "int7":
        values, scales = quantise_weight(zeros, 7)
        tensors = {"projection.weight": values, "projection.scale": scales}
    graph = onnx.helper.make_graph([], "g", [], [], [numpy_helper.from_array(a, n) for n, a in tensors.items()])
    model = onnx.helper.make_model(graph)
    replace_projection(model, wanted, precision)
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    product = found["projection.weight"] * found.get("projection.scale", np.float32(1))
    np.testing.assert_allclose(product, wanted, atol=0.02)
    with pytest.raises(ConfigurationError) as caught:
        replace_projection(model, wanted[:, :40], precision)
    assert caught.value.code == "bad_model"


def test_encoders_that_cannot_be_refitted_are_refused(start: Path, tmp_path: Path) -> None:
    whole = read_manifest(start)
    bad = copy_changed(start, tmp_path / "nan")
    PassageMoments(np.full(64, np.nan, np.float32), np.eye(64, dtype=np.float32)).write(bad / MOMENTS_FILE)
    copied = json.loads((bad / MANIFEST_FILE).read_text())
    copied["moments"] = describe_file(bad / MOMENTS_FILE).model_dump()
    (bad / MANIFEST_FILE).write_text(json.dumps(copied))
    narrow = copy_changed(start, tmp_path / "narrow")
    PassageMoments(np.zeros(32, np.float32), np.eye(32, dtype=np.float32)).write(narrow / MOMENTS_FILE)
    copied["moments"] = describe_file(narrow / MOMENTS_FILE).model_dump()
    (narrow / MANIFEST_FILE).write_text(json.dumps(copied | {"name": "narrow"}))
    damaged = copy_changed(start, tmp_path / "damaged")
    (damaged / MOMENTS_FILE).write_bytes(b"damaged")
    cases = {
        "not_projected": WEIGHTS_ROOT / "standin",
        "bad_moments": copy_changed(start, tmp_path / "without", moments=None),
        "bad_manifest": copy_changed(start, tmp_path / "no-options", training={"seconds": 3}),
        "corrupt_model_file": damaged,
    }
    for code, directory in [*cases.items(), ("bad_moments", bad), ("bad_moments", narrow)]:
        with pytest.raises(ConfigurationError) as caught:
            refit_encoder(
                directory, ["wing"], tmp_path / "out", corpus="toy", cache=tmp_path / "cache", show=SilentReporter()
            )
        assert caught.value.code == code
        assert not (tmp_path / "out").exists()
    assert whole.moments is not None


def test_queries_of_a_fit_stand_by_themselves() -> None:
    documents = [
        Document(
            f"d{n}",
            f"The {SUBJECTS[n % 10]} of sample {n} was tested here. Short one. It gave {n} readings.",
            f"Title {n}",
        )
        for n in range(80)
    ]
    pairs = make_own_pairs(documents, PairOptions(passage_words=100))
    queries = list_fit_queries(pairs, 1000, 0)
    assert "Title 7" in queries
    assert len(queries) == len(set(queries))
    sentences = [query for query in queries if not query.startswith("Title")]
    # Sentences are whole, with their function words; the sentence of inverse cloze is not among them.
    assert all(query.endswith(".") and len(query.split()) >= 4 for query in sentences)
    drawn = list_fit_queries(pairs, 20, 0)
    assert len(drawn) == 20
    assert set(drawn) < set(queries)
    assert drawn == list_fit_queries(pairs, 20, 0)


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
