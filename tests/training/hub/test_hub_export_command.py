"""Command `sparsewell encoders export`: a refusal is one line with a code, and the old encoder remains."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.utils import filter_repo_objects
from safetensors.numpy import load_file, save_file

from models.download import ALLOWED_PATTERNS, IGNORED_PATTERNS, is_hub_name
from tests.training.hub.published import PIECES, Export, as_published, as_published_first

Change = Callable[[Path], None]
QUERY = "query_0_SparseStaticEmbedding"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_published(tmp_path_factory.mktemp("hub") / "whole", "bert")


@pytest.fixture
def source(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "source"))


def edit(name: str, change: Callable[[Any], None]) -> Change:
    def apply(directory: Path) -> None:
        content = json.loads((directory / name).read_text())
        change(content)
        (directory / name).write_text(json.dumps(content))

    return apply


def update(name: str, **members: Any) -> Change:
    return edit(name, lambda content: content.update(members))


def structure(**routes: list[str]) -> Change:
    return edit("router_config.json", lambda content: content["structure"].update(routes))


def outside(directory: Path) -> None:
    edit("router_config.json", lambda content: content["types"].update({"../x": "m.IDF"}))(directory)
    structure(query=["../x"])(directory)


def write(name: str, content: str) -> Change:
    return lambda directory: (directory / name).write_text(content) and None


def remove(name: str) -> Change:
    return lambda directory: (directory / name).unlink()


def cut(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def tensors(name: str, change: Callable[[dict[str, Any]], None]) -> Change:
    def apply(directory: Path) -> None:
        found = {key: value.copy() for key, value in load_file(directory / name).items()}
        change(found)
        save_file(found, directory / name, metadata={"format": "pt"})

    return apply


def no_safetensors(directory: Path) -> None:
    (directory / "model.safetensors").unlink()


TABLE = f"{QUERY}/model.safetensors"
POOLING = "document_1_SpladePooling/config.json"
HEAD_BIAS = "cls.predictions.bias"
REFUSED: dict[str, tuple[Change, str, str]] = {
    "pickle": (no_safetensors, "pickle_refused", "pytorch_model.bin"),
    "code": (update("config.json", auto_map={"AutoModel": "x--m.NewModel"}), "remote_code_refused", "x--m"),
    "family": (update("config.json", model_type="roberta"), "checkpoint_unsupported", "roberta"),
    "no count": (edit("config.json", lambda c: c.pop("num_hidden_layers")), "checkpoint_unsupported", "num_hidden"),
    "config": (write("config.json", "{"), "bad_hub_layout", "config.json"),
    "no config": (remove("config.json"), "bad_hub_layout", "config.json"),
    "router": (write("router_config.json", "[]"), "bad_hub_layout", "router_config.json"),
    "no router": (remove("router_config.json"), "hub_unsupported", "also encodes queries"),
    "no route": (edit("router_config.json", lambda c: c["structure"].pop("query")), "hub_unsupported", "query"),
    "both sides": (structure(query=["", "document_1_SpladePooling"]), "hub_unsupported", "MLMTransformer"),
    "dense": (structure(document=[""]), "hub_unsupported", "documents"),
    "outside": (outside, "bad_hub_layout", "../x"),
    "sum": (update(POOLING, pooling_strategy="sum"), "hub_unsupported", "sum"),
    "activation": (update(POOLING, activation_function="elu"), "hub_unsupported", "elu"),
    "prompt": (update("config_sentence_transformers.json", prompts={"query": "ask: "}), "hub_unsupported", "prompt"),
    "tokenisers": (
        edit(f"{QUERY}/tokenizer.json", lambda c: c["normalizer"].update(lowercase=False)), "hub_unsupported", "differ",
    ),
    "no tokeniser": (remove("tokenizer.json"), "bad_hub_layout", "tokenizer.json"),
    "broken tokeniser": (write("tokenizer.json", "{"), "bad_hub_layout", "tokenizer.json"),
    "no table": (remove(TABLE), "bad_hub_layout", "model.safetensors"),
    "short table": (tensors(TABLE, lambda t: t.update(weight=t["weight"][:5])), "bad_query_table", "(5,)"),
    "negative": (tensors(TABLE, lambda t: t["weight"].__setitem__(9, -1)), "bad_query_table", "negative"),
    "cut": (cut, "corrupt_checkpoint", "cannot be read"),
    "NaN": (tensors("model.safetensors", lambda t: t[HEAD_BIAS].fill(np.nan)), "corrupt_checkpoint", "NaN"),
    "tensor": (tensors("model.safetensors", lambda t: t.pop(HEAD_BIAS)), "checkpoint_unsupported", HEAD_BIAS),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_sources_without_a_correct_export_are_refused(source: Path, tmp_path: Path, export: Export, case: str) -> None:
    change, code, said = REFUSED[case]
    change(source)
    status, out, err = export(source, tmp_path / "made" / "tiny")
    assert (status, out) == (1, "")
    (line,) = err.splitlines()
    assert line.endswith(f"[{code}]"), line
    assert said in line
    assert not (tmp_path / "made").exists() or not list((tmp_path / "made").iterdir())


@pytest.mark.parametrize(
    ("change", "options", "code"),
    [
        (lambda directory: None, [], "unknown_activation"),
        (lambda directory: None, ["--activation", "relu"], "bad_option"),
        (edit("idf.json", lambda table: table.update(Unheard=1.0)), ["--activation", "log1p_relu"], "bad_query_table"),
        (write("idf.json", "{"), ["--activation", "log1p_relu"], "bad_query_table"),
        # only the verification of the exported directory finds this defect
        (write("idf.json", '{"cat": 1.0}'), ["--activation", "log1p_relu"], "bad_query_table"),
        (remove("tokenizer.json"), ["--activation", "log1p_relu"], "bad_hub_layout"),
        (remove("idf.json"), [], "missing_checkpoint_file"),
    ],
)
def test_sources_in_the_plain_layout_are_refused_too(
    tmp_path: Path, export: Export, change: Change, options: list[str], code: str
) -> None:
    source = as_published_first(tmp_path / "plain", "bert")
    change(source)
    status, _, err = export(source, tmp_path / "tiny", *options)
    assert status == 1
    assert err.endswith(f"[{code}]\n")
    assert err.count("\n") == 1


def test_a_failed_export_leaves_the_old_encoder(source: Path, tmp_path: Path, export: Export) -> None:
    out = tmp_path / "made" / "tiny"
    status, said, _ = export(source, out)
    assert status == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert json.loads(before["manifest.json"])["fingerprint"] in said

    assert "[encoder_exists]" in export(source, out)[2]
    (whole_again := tmp_path / "again").mkdir()
    shutil.copytree(source, whole_again / "source")
    cut(source)
    assert "[corrupt_checkpoint]" in export(source, out, "--replace")[2]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]

    for precision in ("fp16", "fp32"):
        assert export(whole_again / "source", out, "--replace", "--precision", precision)[0] == 0
        assert json.loads((out / "manifest.json").read_bytes())["precision"] == precision
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]


def test_unwritable_places_are_found_first(source: Path, tmp_path: Path, export: Export) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("mine")
    (tmp_path / "list.json").write_text("[]")
    for arguments, code in (
        ((source, tmp_path / "Upper Case"), "bad_name"),
        ((source, tmp_path / "standin"), "encoder_name_taken"),
        ((source, tmp_path / "full"), "not_empty"),
        ((source, tmp_path / "list.json" / "tiny"), "unwritable_file"),
        ((source, tmp_path / "tiny", "--window", "39"), "bad_window"),
        ((source, tmp_path / "tiny", "--window", "20", "--overlap", "11"), "bad_window"),
        ((source, tmp_path / "tiny", "--record", tmp_path / "list.json"), "bad_record"),
        ((source, tmp_path / "tiny", "--record", tmp_path / "gone.json"), "bad_record"),
        ((source, tmp_path / "tiny", "--report", tmp_path / "gone.json"), "bad_record"),
        ((source, tmp_path / "tiny", "--parity", tmp_path), "bad_collection"),
        ((source, tmp_path / "tiny", "--precision", "int3"), "bad_option"),
        ((tmp_path / "gone", tmp_path / "tiny"), "unknown_source"),
        (("standin", tmp_path / "tiny"), "unknown_source"),
    ):
        status, _, err = export(*arguments)
        assert status == 1
        assert err.endswith(f"[{code}]\n"), (arguments, err)
    assert not (tmp_path / "tiny").exists()
    assert (tmp_path / "full" / "diary.txt").read_text() == "mine"


def test_a_record_adds_to_the_manifest_and_changes_no_fact(source: Path, tmp_path: Path, export: Export) -> None:
    (tmp_path / "record.json").write_text(json.dumps({"licence": "MIT", "vocabulary": 7, "note": "mine"}))
    assert export(source, tmp_path / "tiny", "--record", tmp_path / "record.json")[0] == 0
    manifest = json.loads((tmp_path / "tiny" / "manifest.json").read_text())
    assert (manifest["licence"], manifest["note"], manifest["vocabulary"]) == ("MIT", "mine", len(PIECES))


def test_a_hub_name_without_a_network_gives_advice(tmp_path: Path, export: Export) -> None:
    status, _, err = export("nobody/no-such-encoder@main", tmp_path / "tiny")
    assert status == 1
    assert "copy the directory" in err
    assert err.endswith("[hub_unreachable]\n")
    assert err.count("\n") == 1


def test_only_data_files_of_a_repository_are_fetched(
    whole: Path, tmp_path: Path, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested: list[tuple[str, str | None]] = []

    def snapshot(repository: str, *, revision: str | None, **patterns: list[str]) -> str:
        requested.append((repository, revision))
        files = [
            "model.safetensors",
            "config.json",
            "pytorch_model.bin",
            "modeling.py",
            "onnx/config.json",
            "a.pt",
            "b.pkl",
        ]
        assert list(filter_repo_objects(files, **patterns)) == ["model.safetensors", "config.json"]
        return str(whole)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert export("owner/name@v2", tmp_path / "tiny")[0] == 0
    assert requested == [("owner/name", "v2")]
    manifest = json.loads((tmp_path / "tiny" / "manifest.json").read_text())
    assert manifest["training"] == {"source": "owner/name@v2"}
    assert not {"*.bin", "*.py", "*.pt"} & {*ALLOWED_PATTERNS, *IGNORED_PATTERNS}


@pytest.mark.parametrize(
    ("source", "is_name"),
    [
        ("a/b", True),
        ("a/b@refs/pr/3", True),
        ("a", False),
        ("/a/b", False),
        ("a/b/c", False),
        ("./a", False),
        ("a/b@", False),
    ],
)
def test_which_sources_are_hub_names(source: str, is_name: bool) -> None:
    assert is_hub_name(source) is is_name
