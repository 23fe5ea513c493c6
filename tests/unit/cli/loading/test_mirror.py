"""Which documents of a directory an index has already, and which have no file any more."""

import io
from pathlib import Path
from typing import Any

import orjson
import pytest

from cli.loading.arguments import open_sources, save_standard_input
from cli.loading.field_map import parse_field_map
from cli.loading.load import make_declaration, require_declared
from cli.loading.mirror import IndexedDocuments, find_mirrored_directory
from cli.loading.source import DocumentKind, FileFormat, LoadSource
from services.declarations import declaration_path
from services.errors import ConfigurationError, Conflict
from services.index_spec import IndexSpec

SPEC = IndexSpec.model_validate({"fields": {"tags": "keyword"}, "talk": {}})


def indexed(*documents: dict[str, Any]) -> IndexedDocuments:
    found = IndexedDocuments(SPEC)
    for document in documents:
        found.add(orjson.dumps({"version": 7, "state": "encoded"} | document))
    return found


def sources(path: Path, kind: DocumentKind | None = None) -> list[LoadSource]:
    return open_sources([path], None, None, parse_field_map([], None), kind)


@pytest.mark.parametrize(
    ("sent", "known"),
    [
        ({"id": "a.md", "text": "words"}, True),
        ({"id": "a.md", "text": "words", "title": "", "metadata": {"tags": None}}, True),
        ({"id": "a.md", "text": "words."}, False),
        ({"id": "a.md", "text": "words", "title": "T"}, False),
        ({"id": "a.md", "text": "words", "metadata": {"tags": "x"}}, False),
        ({"id": "a.md", "text": "words", "version": 7}, False),  # the service decides about versions
        ({"id": "b.md", "text": "words"}, False),
        ({"id": "a.md", "text": 1}, False),
    ],
)
def test_an_equal_document_is_known(sent: dict[str, Any], known: bool) -> None:
    assert indexed({"id": "a.md", "text": "words"}).has(orjson.dumps(sent)) is known


def test_a_dead_document_is_sent_again() -> None:
    dead = {"id": "a", "text": "words", "state": "dead", "error": {"code": "x", "reason": "y"}}
    assert not indexed(dead).has(orjson.dumps({"id": "a", "text": "words"}))


def test_a_transcript_equals_its_segments() -> None:
    segments = [{"start": 0.0, "end": 2.0, "text": "Hello there."}]
    stored = indexed({"id": "a", "kind": "talk", "segments": segments})
    vtt = "WEBVTT\n\n00:00.000 --> 00:02.000\nHello there.\n"
    talk = {"id": "a", "kind": "talk", "transcript": {"type": "text/vtt", "text": vtt}}
    assert stored.has(orjson.dumps(talk))
    talk["transcript"] = {"type": "text/vtt", "text": vtt.replace("there", "you")}
    assert not stored.has(orjson.dumps(talk))


def test_documents_without_a_file_are_found() -> None:
    found = indexed(*({"id": name, "text": "x"} for name in ("a.md", "b/c.md", "b.md", "gone.md")))
    assert found.without_file({"a.md"}, []) == ["b.md", "b/c.md", "gone.md"]
    assert found.without_file({"a.md", "b"}, ["b"]) == ["b.md", "gone.md"]  # b cannot be read


def test_only_one_directory_with_documents_is_mirrored(tmp_path: Path) -> None:
    def refused(path: Path, *, maps_ids: bool = False) -> str:
        with pytest.raises(ConfigurationError) as caught:
            find_mirrored_directory(sources(path), maps_ids=maps_ids)
        assert caught.value.code == "bad_mirror"
        return caught.value.detail

    assert "no documents" in refused(tmp_path)
    (tmp_path / "a.txt").write_text("words")
    assert "needs one directory" in refused(tmp_path / "a.txt")
    assert "needs one directory" in refused(tmp_path, maps_ids=True)
    assert find_mirrored_directory(sources(tmp_path), maps_ids=False).list_ids() == ({"a.txt"}, [])


def test_a_talk_has_the_id_of_its_path_and_no_companion_from_outside(tmp_path: Path) -> None:
    folder, outside = tmp_path / "talks", tmp_path / "outside.json"
    folder.mkdir()
    (folder / "a.txt").write_text("Hello.")
    outside.write_text('{"title": "Secret"}')
    (folder / "a.meta.json").symlink_to(outside)
    directory = find_mirrored_directory(sources(folder, DocumentKind.talk), maps_ids=False)
    assert directory.list_ids() == ({"a"}, [])
    assert "links out of the directory" in directory.notes()[0]
    (named,) = open_sources([folder / "a.txt"], None, None, parse_field_map([], None), DocumentKind.talk)
    for source in (directory, named):
        (row,) = source.rows(*first_position_and_maker())
        assert isinstance(row.content, bytes)
        assert "title" not in orjson.loads(row.content)


def first_position_and_maker() -> Any:
    from cli.loading.field_map import DocumentMapper, FieldMap
    from cli.loading.source import SourcePosition

    return SourcePosition(), DocumentMapper(FieldMap(), {})


@pytest.mark.parametrize("name", ["missing", "missing/", "missing.csv"])
@pytest.mark.parametrize("kind", [None, DocumentKind.talk])
def test_a_missing_directory_is_called_missing(tmp_path: Path, name: str, kind: DocumentKind | None) -> None:
    with pytest.raises(ConfigurationError, match="does not exist") as caught:
        sources(tmp_path / name, kind)
    assert caught.value.code == "unreadable_file"


def test_standard_input_is_one_file_with_an_identity(tmp_path: Path) -> None:
    def identities(content: bytes) -> list[str]:
        with save_standard_input([Path("-")], None, tmp_path, io.BytesIO(content)) as paths:
            opened = open_sources(paths, None, None, parse_field_map([], None))
            assert [path.read_bytes() for path in paths] == [content]
            assert paths[0].stat().st_mode & 0o077 == 0
            return [source.identity() for source in opened]

    assert identities(b'{"id": "a"}\n') == identities(b'{"id": "a"}\n') != identities(b'{"id": "b"}\n')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("paths", "given"), [(["-", "-"], None), (["-"], FileFormat.markdown), (["-", "a.csv"], FileFormat.text)]
)
def test_standard_input_has_rows_and_is_read_once(tmp_path: Path, paths: list[str], given: FileFormat | None) -> None:
    with (
        pytest.raises(ConfigurationError) as caught,
        save_standard_input([Path(name) for name in paths], given, tmp_path, io.BytesIO()),
    ):
        pass
    assert caught.value.code == "bad_input"


def test_fields_of_an_existing_index_are_no_wish() -> None:
    require_declared("books", {"year": "number"}, {"year": "number", "genre": "keyword"})
    with pytest.raises(Conflict, match=r"declares year=keyword.*reindex books --field year=number") as caught:
        require_declared("books", {"year": "number"}, {"year": "keyword"})
    assert caught.value.code == "field_differs"
    with pytest.raises(Conflict, match="does not declare year"):
        require_declared("books", {"year": "number"}, {})


def test_a_new_index_is_declared_as_the_exported_one(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    spec = {"fields": {"year": "number"}, "language": "standard"}
    declaration_path(first).write_bytes(orjson.dumps({"indexes": {"books": spec}}))
    assert make_declaration([second], ["genre"], {}, talk=True) == {"fields": {"genre": "keyword"}, "talk": {}}
    assert make_declaration([first, second], ["year", "genre"], {"lent": "boolean"}, talk=False) == {
        "language": "standard",
        "fields": {"year": "number", "genre": "keyword", "lent": "boolean"},
    }
    declaration_path(second).write_bytes(orjson.dumps({"indexes": {"books": {}}}))
    with pytest.raises(ConfigurationError, match="differ"):
        make_declaration([first, second], [], {}, talk=False)
    declaration_path(second).write_bytes(orjson.dumps({"indexes": {"a": {}, "b": {}}}))
    with pytest.raises(ConfigurationError, match="must declare one index"):
        make_declaration([second], [], {}, talk=False)
