"""Declared indexes compared with existing indexes: differences, options of a reindex, and bad files."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.declarations import find_differences, read_declaration, reindex_options
from services.errors import ConfigurationError, Conflict
from services.index_spec import IndexSpec

THERE: dict[str, Any] = {
    "fields": {"year": "number"},
    "encoder": {"name": "standin", "fingerprint": "0" * 16},
    "window": {"pieces": 126, "overlap": 32},
    "windows": "merged",
    "language": "english",
    "document_top_k": 512,
    "dense": None,
    "talk": None,
    "adapt_weights": True,
    "piece_features": False,
}


def spec(**members: Any) -> IndexSpec:
    return IndexSpec.model_validate({"fields": {"year": "number"}} | members)


@pytest.mark.parametrize(
    "wanted",
    [spec(), spec(encoder="standin"), spec(window={"pieces": 126, "overlap": 32}), spec(document_top_k=512)],
)
def test_an_index_as_declared_does_not_differ(wanted: IndexSpec) -> None:
    assert find_differences(wanted, THERE) == {}


@pytest.mark.parametrize(
    ("member", "wanted", "options"),
    [
        ("fields", spec(fields={"year": "keyword", "author": "text"}), {"field": ["year=keyword", "author=text"]}),
        ("encoder", spec(encoder="other"), {"encoder": "other"}),
        ("window", spec(window={"pieces": 64, "overlap": 16}), {"window": 64, "overlap": 16}),
        ("windows", spec(windows="both"), {"windows": "both"}),
        ("language", spec(language="standard"), {"language": "standard"}),
        ("document_top_k", spec(document_top_k=100), {"top_k": 100}),
        ("dense", spec(dense="bge"), {"dense": "bge"}),
        ("adapt_weights", spec(adapt_weights=False), {"adapt_weights": False}),
        ("piece_features", spec(piece_features=True), {"piece_features": True}),
    ],
)
def test_a_difference_becomes_an_option_of_reindex(member: str, wanted: IndexSpec, options: dict[str, Any]) -> None:
    found = find_differences(wanted, THERE)
    assert set(found) == {member}
    assert reindex_options("notes", found) == options


def test_talk_and_removed_dense_vectors_become_options() -> None:
    there = THERE | {"dense": {"name": "bge"}}
    options = reindex_options("shows", find_differences(spec(talk={"chapters": "none", "titles_in_lexical": 2}), there))
    assert options["dense"] == "none"
    assert options["windows"] == "both"
    assert options["chapters"] == "none"
    assert "titles_in_lexical=2.0" in options["talk"]
    assert "link=null" in options["talk"]


@pytest.mark.parametrize(
    ("there", "wanted"),
    [({"fields": {"year": "number", "gone": "text"}}, spec()), ({"talk": {"chapters": "tiling"}}, spec())],
)
def test_a_member_that_cannot_be_removed_is_refused(there: dict[str, Any], wanted: IndexSpec) -> None:
    with pytest.raises(Conflict, match="cannot_reindex"):
        reindex_options("notes", find_differences(wanted, THERE | there))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        (b"\xff", "is not valid JSON"),
        ("[]", "the file"),
        ("{}", "indexes"),
        ('{"indexes": {}, "index": {}}', "index"),
        ('{"indexes": {"Notes": {}}}', "'Notes'"),
        ('{"indexes": {"notes": {"field": {}}}}', "indexes.notes.field"),
        ('{"indexes": {"notes": {"fields": {"year": "int"}}}}', "indexes.notes.fields.year"),
    ],
)
def test_a_bad_file_is_refused(text: str | bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "indexes.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError, match="bad_declaration") as caught:
        read_declaration(file)
    assert said in caught.value.detail


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_declaration(tmp_path / "none.json")


def test_a_good_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "indexes.json"
    file.write_text(json.dumps({"indexes": {"notes": {"fields": {"year": "number"}}}}))
    assert read_declaration(file).indexes == {"notes": spec()}
