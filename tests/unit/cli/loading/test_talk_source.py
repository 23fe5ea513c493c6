"""Folders of transcripts as documents for the API."""

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from cli.loading.arguments import open_sources
from cli.loading.field_map import DocumentMapper, FieldMap
from cli.loading.source import DocumentKind, FileFormat, SourcePosition, SourceRow
from cli.loading.tabular import JsonLinesSource
from cli.loading.text_files import TalkSource
from services.documents.document import parse_document_bytes
from services.errors import ConfigurationError, InvalidInput
from services.index_spec import IndexSpec

SPEC = IndexSpec.model_validate({"talk": {}, "fields": {"year": "number"}})
VTT = "WEBVTT\n\n00:00.000 --> 00:05.000\nHello there.\n\n00:05.000 --> 00:09.000\nBye.\n"
MAKE = DocumentMapper(FieldMap(), {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "2024").mkdir()
    (tmp_path / "2024" / "one.vtt").write_text(VTT)
    (tmp_path / "2024" / "one.srt").write_text("1\n00:00:00,000 --> 00:00:05,000\nHello.\n")
    (tmp_path / "2024" / "one.chapters.json").write_text(
        '{"version": "1.2.0", "chapters": [{"startTime": 0, "title": "A"}]}'
    )
    (tmp_path / "2024" / "one.meta.json").write_text('{"title": "One", "url": "https://a", "metadata": {"year": 2024}}')
    (tmp_path / "two.txt").write_text("Only words.")
    (tmp_path / "three.json").write_text('{"version": "1.0.0", "segments": [{"body": "Hi", "startTime": 0}]}')
    (tmp_path / "bad.vtt").write_text(VTT)
    (tmp_path / "bad.meta.json").write_text('{"author": "A"}')
    (tmp_path / "broken.txt").write_text("x")
    (tmp_path / "broken.chapters.json").write_text("{")
    (tmp_path / "empty.srt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "alone.chapters.json").write_text("[]")
    (tmp_path / "notes.md").write_text("# no")
    return tmp_path


def rows(source: TalkSource, start: int = 0) -> dict[str, SourceRow]:
    return {row.file or "": row for row in source.rows(SourcePosition(0, start), MAKE)}


def test_a_folder_is_a_talk_for_each_transcript(folder: Path) -> None:
    found = rows(TalkSource(folder))
    sent = {name: row.content for name, row in found.items() if isinstance(row.content, bytes)}
    assert list(sent) == ["2024/one.vtt", "three.json", "two.txt"]
    documents = {name: parse_document_bytes(content, SPEC) for name, content in sent.items()}
    one = documents["2024/one.vtt"]
    assert (one.id, one.title, one.text, one.metadata) == ("2024/one", "One", "Hello there. Bye.", {"year": 2024})
    assert one.talk is not None
    assert one.talk.producer_chapters is not None
    assert [chapter.title for chapter in one.talk.producer_chapters] == ["A"]
    assert documents["two.txt"].id == "two"
    assert documents["three.json"].text == "Hi"


def test_what_cannot_be_read_names_its_file(folder: Path) -> None:
    faults = {
        name: row.content for name, row in rows(TalkSource(folder)).items() if isinstance(row.content, InvalidInput)
    }
    assert {name: fault.code for name, fault in faults.items()} == {
        "bad.vtt": "bad_meta",
        "broken.txt": "invalid_json",
        "empty.srt": "empty_file",
        "latin.txt": "not_utf8",
    }
    assert faults["bad.vtt"].detail.startswith("bad.meta.json")
    assert faults["broken.txt"].detail.startswith("broken.chapters.json")


def test_what_is_passed_over_is_counted(folder: Path) -> None:
    (note,) = TalkSource(folder).notes()
    assert "1 other transcripts of the same talk" in note
    assert "1 chapters and meta files without a transcript" in note
    assert "1 of other formats" in note


def test_it_goes_on_where_it_ended_and_knows_when_a_file_beside_changes(folder: Path) -> None:
    source = TalkSource(folder)
    assert list(rows(source, 3)) == list(rows(source))[3:]
    assert TalkSource(folder).identity() == source.identity()
    (folder / "two.meta.json").write_text("{}")
    assert TalkSource(folder).identity() != source.identity()


def test_named_files_and_what_is_no_transcript(folder: Path) -> None:
    (source,) = open_sources([folder / "two.txt", folder / "three.json"], None, None, FieldMap(), DocumentKind.talk)
    assert [row.file for row in source.rows(SourcePosition(), MAKE)] == [
        str(folder / "two.txt"),
        str(folder / "three.json"),
    ]
    for bad, code in (
        ("notes.md", "unknown_format"),
        ("alone.chapters.json", "unknown_format"),
        ("no.vtt", "unreadable_file"),
    ):
        with pytest.raises(ConfigurationError) as refused:
            open_sources([folder / bad], None, None, FieldMap(), DocumentKind.talk)
        assert refused.value.code == code
    with pytest.raises(ConfigurationError, match="no columns to map"):
        open_sources([folder], None, ";", FieldMap(), DocumentKind.talk)


def test_rows_are_rows_where_talk_is_loaded(tmp_path: Path) -> None:
    rows = tmp_path / "talks.jsonl"
    rows.write_text('{"id": "a", "kind": "talk", "text": "Hello."}\n')
    (source,) = open_sources([rows], None, None, FieldMap(), DocumentKind.talk)
    assert isinstance(source, JsonLinesSource)
    other = tmp_path / "talks.json"
    other.write_text(rows.read_text())
    (source,) = open_sources([other], FileFormat.jsonl, None, FieldMap(), DocumentKind.talk)
    assert isinstance(source, JsonLinesSource)
    (source,) = open_sources([other], None, None, FieldMap(), DocumentKind.talk)
    assert isinstance(source, TalkSource)
    with pytest.raises(ConfigurationError, match="is not a transcript"):
        open_sources([rows, other], None, None, FieldMap(), DocumentKind.talk)


def test_a_row_that_says_it_is_talk_brings_the_columns_of_one() -> None:
    make = DocumentMapper(FieldMap(), {}, talk=True)
    record: dict[str, Any] = {
        "id": "t",
        "kind": "talk",
        "text": None,
        "description": "D",
        "segments": '[{"text": "Hi", "start": 1}]',
        "chapters": [{"segment": 0, "title": "A"}],
        "duration": "5.5",
        "url": "",
    }
    document = parse_document_bytes(make(record), SPEC)
    assert document.text == "Hi"
    assert document.talk is not None
    assert (document.talk.description, document.talk.duration) == ("D", 5.5)
    assert not make.unused
    with pytest.raises(InvalidInput, match="'segments' is not JSON"):
        make(record | {"segments": "["})


def test_other_rows_have_no_use_for_them() -> None:
    for talk in (True, False):
        make = DocumentMapper(FieldMap(), {}, talk=talk)
        row = make({"id": "d", "kind": "film" if talk else "talk", "text": "x", "url": "https://a"})
        assert orjson.loads(row) == {"id": "d", "text": "x"}
        assert Counter(make.unused) == {"kind": None, "url": None}
