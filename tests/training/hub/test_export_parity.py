"""Command `sparsewell encoders export --parity`: each form compared with PyTorch, and failed measurements."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.export import package
from models.export import parity as parities
from models.export.export import ExportOptions, export_encoder
from models.export.onnx_graph import build_graph
from tests.training.hub.published import Export, as_published

DOCUMENTS = [
    "the weather in new york", "cats dogs house", "it is rainy now", "a house dog. " * 9, "new cats now",
    "rainy the rainy house", "york? york", "the dog in the house",
]  # fmt: skip
JUDGED = {"rainy weather": [0, 2, 5], "dog house": [1, 3, 7], "york": [0, 6], "cats now": [1, 4]}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_published(tmp_path_factory.mktemp("hub") / "source", "bert", "log1p_relu")


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    directory = tmp_path / "toy"
    directory.mkdir()
    documents = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(DOCUMENTS)]
    queries = [{"_id": f"q{i}", "text": text} for i, text in enumerate(JUDGED)]
    lines = [f"q{i}\td{place}\t1" for i, places in enumerate(JUDGED.values()) for place in places]
    for name, rows in ("corpus.jsonl", map(json.dumps, documents)), ("queries.jsonl", map(json.dumps, queries)):
        (directory / name).write_text("\n".join(rows) + "\n")
    (directory / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
    return directory


def manifest_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "manifest.json").read_bytes())
    return found


def files_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_the_report_compares_every_form_with_pytorch(
    source: Path, collection: Path, tmp_path: Path, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, path = tmp_path / "made" / "tiny", tmp_path / "report.json"
    status, _, err = export(source, out, "--window", 16, "--overlap", 2, "--parity", collection, "--report", path)
    assert (status, err) == (0, "")
    report = json.loads(path.read_bytes())
    assert report["fingerprint"] == manifest_of(out)["fingerprint"]
    cuts = report["collections"]["toy"]
    assert [(name, found["rows"]) for name, found in cuts.items()] == [
        ("windows of 16 pieces, overlap 2", len(DOCUMENTS) + 2), ("first 38 pieces", len(DOCUMENTS)),
    ]  # fmt: skip
    for found in cuts.values():
        wanted = found["torch-float32"]
        assert wanted["ndcg_at_10"] > 0.5
        assert wanted["weights_a_window"] > 10
        assert found["onnx-float32"] | {"max_abs": 0.0, "mean_abs": 0.0} == wanted
        assert found["onnx-float32"]["max_abs"] < 1e-4
        assert 0 < found["onnx-float16"]["max_abs"] < 0.02
        assert found["onnx-float16"]["mean_abs"] < found["onnx-int8"]["mean_abs"] < found["onnx-int7"]["mean_abs"] < 0.1
    assert manifest_of(out)["parity"]["toy"] == {
        name: {form: figures["ndcg_at_10"] for form, figures in found.items() if form != "rows"}
        for name, found in cuts.items()
    }

    # An existing report is put into the new manifest without a new measurement.
    assert export(source, out, "--window", 16, "--overlap", 2, "--replace")[0] == 0
    assert "parity" not in manifest_of(out)
    assert export(source, out, "--window", 16, "--overlap", 2, "--replace", "--report", path)[0] == 0
    assert manifest_of(out)["parity"]["toy"]["first 38 pieces"]["onnx-int8"] > 0.5

    # The figures show a graph with another activation.
    other = {"activation": "log1p_relu"}
    monkeypatch.setattr(parities, "build_graph", lambda *given, **form: build_graph(*given, **{**form, **other}))
    assert export(source, out, "--replace", "--parity", collection, "--report", path)[0] == 0
    for found in json.loads(path.read_bytes())["collections"]["toy"].values():
        assert found["onnx-float32"]["max_abs"] > 0.1


def test_the_old_encoder_stays_when_measuring_fails(
    source: Path, collection: Path, tmp_path: Path, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "made" / "tiny"
    assert export(source, out)[0] == 0
    before = files_of(out)
    for name, content in ("cut", "{"), ("list", "[]"), ("other", '{"fingerprint": "x", "collections": {"a": 1}}'):
        (tmp_path / name).write_text(content)
        assert export(source, out, "--replace", "--report", tmp_path / name)[2].endswith("[bad_record]\n")
    (collection / "corpus.jsonl").rename(collection / "corpus")
    assert export(source, out, "--replace", "--parity", collection)[2].endswith("[collection_not_found]\n")
    (collection / "corpus").rename(collection / "corpus.jsonl")

    def fails(*_: object) -> None:
        raise RuntimeError("the memory ended")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="memory"):
        patch.setattr(parities, "measure_parity", fails)
        export_encoder(ExportOptions(str(source), out, parity=(collection,), precision="fp32", replace=True))
    assert files_of(out) == before
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]

    # If the report cannot be written, only the report is lost.
    err = export(source, out, "--replace", "--parity", collection, "--report", tmp_path / "gone" / "report.json")[2]
    assert err.endswith("[unwritable_file]\n")
    assert manifest_of(out)["parity"]["toy"]


def test_a_model_with_another_vocabulary_is_measured(
    source: Path, tmp_path: Path, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "MAX_VOCABULARY", 40)
    err = export(source, tmp_path / "tiny")[2]
    assert err.endswith("[vocabulary_too_large]\n")


def test_the_current_directory_is_refused(
    source: Path, tmp_path: Path, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert export(source, ".")[2].endswith("[not_empty]\n")
