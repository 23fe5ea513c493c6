"""Checks of a model directory: refused files, and the fit of query table and tokeniser."""

import json
import pickle
import zipfile
from pathlib import Path

import pytest

from services.encoders.checks import check_query_table, find_refused_files, measure_query_table
from services.encoders.query_table import QueryTable
from services.errors import ConfigurationError
from tests.unit.services.encoders.model_directories import Copy, restate


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", ["weights.dat", "pytorch_model.bin", "model.pt"])
def test_pickles_are_refused_under_any_name(tmp_path: Path, protocol: int, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps([1.0], protocol=protocol))
    (error,) = find_refused_files(tmp_path)
    assert error.code == "refused_file"
    assert name in error.detail
    assert "pickle" in error.detail


def test_code_and_archives_are_refused_but_data_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "modeling.py").write_text("import os")
    (tmp_path / "run").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "lib").write_bytes(b"\x7fELF\x02")
    with zipfile.ZipFile(tmp_path / "weights", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    for name in ("LICENSE", "README.md", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("PK is no archive")
    assert sorted(Path(e.detail.split(": ")[0]).name for e in find_refused_files(tmp_path)) == [
        "lib", "modeling.py", "run", "weights",
    ]  # fmt: skip


def facts(directory: Path):  # type: ignore[no-untyped-def]
    return measure_query_table(QueryTable.load(directory))


def test_the_shipped_tables_fit_their_tokenisers(copy: Copy) -> None:
    for name in ("projected-minilm-l6", "standin"):
        found = facts(copy(name, name))
        assert found.coverage > 0.9
        assert found.reachable == 1.0
        assert len(found.words) > 900
        assert not list(check_query_table(Path(), found))


def write_table(directory: Path, table: dict[str, float]) -> None:
    (directory / "query_weights.json").write_text(json.dumps(table))
    restate(directory)


def test_a_table_with_few_weights_is_reported(copy: Copy) -> None:
    mine = copy("standin", "mine")
    table = json.loads((mine / "query_weights.json").read_text())
    write_table(mine, dict(list(table.items())[-1000:]))
    assert [e.code for e in check_query_table(mine, facts(mine))] == ["bad_query_table"]


def test_a_table_of_another_tokeniser_is_reported(copy: Copy) -> None:
    mine = copy("standin", "mine")
    tokenizer = json.loads((mine / "tokenizer.json").read_text())
    # The vocabulary of a cased model, with a normaliser that lowercases every word.
    vocabulary = tokenizer["model"]["vocab"]
    cased = {p.title() if p.isalpha() and p.isascii() and len(p) > 3 else p: i for p, i in vocabulary.items()}
    tokenizer["model"]["vocab"] = cased
    (mine / "tokenizer.json").write_text(json.dumps(tokenizer))
    write_table(mine, dict.fromkeys(cased, 1.0))
    (error,) = check_query_table(mine, facts(mine))
    assert error.code == "bad_query_table"
    assert "case" in error.detail


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "JSON"),
        ("[1, 2]", "object"),
        ('{"the": "heavy"}', "'heavy'"),
        ('{"the": true}', "True"),
        ('{"the": 1' + "0" * 400 + "}", "weight"),
        ('{"the": -1}', "-1"),
        ('{"Fahrvergnügen": 1.0}', "different models"),
    ],
)
def test_an_invalid_table_is_refused(copy: Copy, content: str, said: str) -> None:
    mine = copy("standin", "mine")
    (mine / "query_weights.json").write_text(content)
    restate(mine)
    with pytest.raises(ConfigurationError, match=said) as caught:
        QueryTable.load(mine)
    assert caught.value.code == "bad_query_table"


@pytest.mark.parametrize("content", ["", "{", '{"model": {"type": "Unheard"}}'])
def test_an_invalid_tokeniser_is_refused(copy: Copy, content: str) -> None:
    mine = copy("standin", "mine")
    (mine / "tokenizer.json").write_text(content)
    restate(mine)
    with pytest.raises(ConfigurationError) as caught:
        QueryTable.load(mine)
    assert caught.value.code == "bad_tokenizer"


def test_a_tokeniser_with_more_pieces_than_the_model_is_refused(copy: Copy) -> None:
    mine = copy("standin", "mine")
    restate(mine, vocabulary=30_000)
    with pytest.raises(ConfigurationError) as caught:
        QueryTable.load(mine)
    assert caught.value.code == "bad_tokenizer"
