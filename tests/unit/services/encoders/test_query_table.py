"""Tests of queries through the shipped query tables."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.encoders.manifest import (
    WEIGHTS_ROOT,
    compute_fingerprint,
    describe_file,
    read_manifest,
    resolve_model_directory,
)
from services.encoders.query_table import QueryTable
from services.errors import ConfigurationError, InvalidInput


@pytest.fixture(scope="module")
def table() -> QueryTable:
    return QueryTable.load(resolve_model_directory("projected-minilm-l6"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Copy the model files that the query side reads to a directory."""
    for name in ("manifest.json", "tokenizer.json", "query_weights.json"):
        shutil.copy(WEIGHTS_ROOT / "standin" / name, tmp_path / name)
    return tmp_path


def rewrite(directory: Path, table: dict[str, float]) -> None:
    (directory / "query_weights.json").write_text(json.dumps(table))
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["files"]["query_weights.json"] = describe_file(directory / "query_weights.json").model_dump()
    files = {name: type(describe_file(directory / "query_weights.json"))(**f) for name, f in manifest["files"].items()}
    manifest["fingerprint"] = compute_fingerprint(files)
    (directory / "manifest.json").write_text(json.dumps(manifest))


def test_repeated_pieces_count_once_with_the_same_weight(table: QueryTable) -> None:
    once, thrice = table.encode("temporary folder", 100), table.encode("folder temporary temporary Folder", 100)
    assert once.by_id() == thrice.by_id()
    assert thrice.pieces == 4
    assert [table.piece(i) for i in once.ids] == ["temporary", "folder"]
    assert all(weight > 0 for weight in once.weights)


def test_rare_words_weigh_more_than_common_ones(table: QueryTable) -> None:
    weights = dict(zip([table.piece(i) for i in table.encode("the aerodynamics", 10).ids],
                       table.encode("the aerodynamics", 10).weights, strict=True))  # fmt: skip
    assert weights.pop("the") < min(weights.values())


@pytest.mark.parametrize("text", ["", "   ", "\U0001f600", "\x00\x01"])
def test_a_query_without_known_pieces_is_empty(table: QueryTable, text: str) -> None:
    assert table.encode(text, 10).ids == ()


def test_special_pieces_in_a_query_are_text(table: QueryTable) -> None:
    assert [table.piece(i) for i in table.encode("[MASK]", 10).ids] == ["[", "mask", "]"]


def test_too_many_pieces_are_refused_even_when_they_repeat(table: QueryTable) -> None:
    with pytest.raises(InvalidInput) as caught:
        table.encode("a " * 11, 10)
    assert caught.value.code == "query_too_long"


def test_a_changed_file_is_refused(copy: Path) -> None:
    (copy / "query_weights.json").write_text('{"the": 1.0}')
    with pytest.raises(ConfigurationError) as caught:
        QueryTable.load(copy)
    assert caught.value.code == "corrupt_model_file"


def test_a_missing_file_is_refused(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ConfigurationError) as caught:
        QueryTable.load(copy)
    assert caught.value.code == "missing_model_file"


def test_a_manifest_of_other_files_is_refused(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["tokenizer.json"]["sha256"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigurationError) as caught:
        read_manifest(copy)
    assert caught.value.code == "bad_manifest"


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1.0])
def test_invalid_weights_are_refused(copy: Path, weight: float) -> None:
    rewrite(copy, {"the": weight})
    with pytest.raises(ConfigurationError) as caught:
        QueryTable.load(copy)
    assert caught.value.code == "bad_query_table"


def test_an_unknown_piece_is_refused(copy: Path) -> None:
    rewrite(copy, {"no such piece": 1.0})
    with pytest.raises(ConfigurationError) as caught:
        QueryTable.load(copy)
    assert caught.value.code == "bad_query_table"


def test_pieces_of_a_text_have_character_offsets(table: QueryTable) -> None:
    text = "😀 Aerofoil"
    found = [(table.piece(i), text[start:end]) for i, start, end in table.spans(text)]
    assert found == [("[UNK]", "😀"), ("aero", "Aero"), ("##foil", "foil")]


@given(st.text(alphabet="abcst -'.\n\t\x00\x1c\x85\u00a0\u200b\u0301éİß中😀", max_size=60), st.data())
def test_occurring_pieces_cover_the_whole_text(table: QueryTable, text: str, data: st.DataObject) -> None:
    own = table.ids(text)
    wanted = set(data.draw(st.lists(st.sampled_from([*own, 1996, 1037, 2015]), max_size=8)))
    assert table.occurring(wanted, text) == wanted & set(own)
