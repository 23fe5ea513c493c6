"""Errors of judged collections name the bad file."""

import json
from pathlib import Path

import pytest

from models.export.collection import read_collection
from services.errors import ConfigurationError, InvalidInput


def write(directory: Path) -> Path:
    (directory / "corpus.jsonl").write_text(json.dumps({"_id": "d", "text": "a cat"}) + "\n")
    (directory / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "cat"}) + "\n")
    (directory / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\nnobody\td\t1\n")
    return directory


def test_judged_queries_without_a_text_are_left_out(tmp_path: Path) -> None:
    assert read_collection(write(tmp_path)).queries == {"q": "cat"}


def test_a_query_that_is_a_document_is_known(tmp_path: Path) -> None:
    write(tmp_path)
    assert read_collection(tmp_path).own == frozenset()
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "d", "text": "a cat"}) + "\n")
    (tmp_path / "qrels.tsv").write_text("d\td\t1\n")
    assert read_collection(tmp_path).own == {"d"}


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels.tsv"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write(tmp_path) / name).unlink()
    with pytest.raises(ConfigurationError, match=name) as caught:
        read_collection(tmp_path)
    assert caught.value.code == "collection_not_found"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("corpus.jsonl", b""),
        ("corpus.jsonl", b"{\n"),
        ("corpus.jsonl", b"[]\n"),
        ("corpus.jsonl", b'{"text": "d"}\n'),
        ("corpus.jsonl.gz", b"no archive"),
        ("queries.jsonl", b"\xff\n"),
        ("queries.jsonl", b""),
        ("qrels.tsv", b"q d 1\n"),
        ("qrels.tsv", b"query-id\tcorpus-id\tscore\nq\td\thigh\n"),
        ("qrels.tsv", b"query-id\tcorpus-id\tscore\nq\td\n"),
    ],
)
def test_unreadable_files_are_malformed(tmp_path: Path, name: str, content: bytes) -> None:
    write(tmp_path)
    if name.endswith(".gz"):
        (tmp_path / "corpus.jsonl").unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=str(tmp_path)) as caught:
        read_collection(tmp_path)
    assert caught.value.code == "malformed_collection"
