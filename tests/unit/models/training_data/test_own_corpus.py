"""A corpus is read as `load` and BEIR have it; what is wrong with it is said by line."""

import gzip
import json
from pathlib import Path

import pytest

from models.training.own.pairs import read_corpus
from models.training.storage import ReadReport
from services.documents.document import Document
from services.errors import ConfigurationError, InvalidInput


def written(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_documents_of_either_layout(tmp_path: Path) -> None:
    path = written(
        tmp_path / "corpus.jsonl",
        {"id": "a", "title": "T", "text": " x "},
        {"_id": "b", "title": "only a title", "text": ""},
        {"id": 7, "text": "y"},
        {"text": "no id", "metadata": {"kept": "out"}},
    )
    wanted = [Document("a", "x", "T"), Document("b", "only a title"), Document("7", "y"), Document("line 4", "no id")]
    assert list(read_corpus(path)) == wanted
    assert list(read_corpus(tmp_path)) == wanted


def test_a_packed_collection(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(b'{"_id": "a", "text": "x"}\n'))
    assert [one.id for one in read_corpus(tmp_path)] == ["a"]


def test_bad_lines_are_counted(tmp_path: Path) -> None:
    path = written(
        tmp_path / "c.jsonl",
        {"id": "a", "text": "x"},
        {"id": "a", "text": "y"},
        {"id": "b"},
        {"id": "c", "text": ["x"]},
        {"id": True, "text": "x"},
        {"id": {}, "text": "x"},
    )
    report = ReadReport("c")
    assert len(list(read_corpus(path, report))) == 1
    assert report.refused == {"duplicate_id": 1, "missing_member": 1, "wrong_type": 3}


@pytest.mark.parametrize("content", ["", "\n\n", "nonsense\n", '{"id": "a", "text": " "}\n'])
def test_a_corpus_without_documents_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.jsonl").write_text(content)
    with pytest.raises(InvalidInput) as caught:
        list(read_corpus(tmp_path / "c.jsonl"))
    assert caught.value.code == "no_documents"


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(ConfigurationError, match=str(path)) as caught:
            list(read_corpus(path))
        assert caught.value.code == "corpus_not_found"
