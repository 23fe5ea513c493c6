"""Documents that were read and are written back as they are."""

from typing import Any

import pytest

from services.documents.document import MAX_CLIENT_VERSION, parse_document
from services.errors import InvalidInput
from services.index_spec import IndexSpec

SPEC = IndexSpec.model_validate({"fields": {"year": "number"}, "talk": {}})
READ: dict[str, Any] = {
    "id": "a", "text": "words", "metadata": {"year": 1}, "version": 7, "state": "encoded", "job": "j", "encoder": "f",
    "attempts": 0, "error": None, "earlier": None, "kind": None, "description": None, "segments": None,
}  # fmt: skip


def code(value: dict[str, Any]) -> str:
    with pytest.raises(InvalidInput) as caught:
        parse_document(value, SPEC)
    return caught.value.code


def test_what_reading_added_is_ignored_and_the_version_is_the_next() -> None:
    document = parse_document(READ, SPEC)
    assert (document.text, document.metadata, document.version) == ("words", {"year": 1}, 8)
    exported = {"id": "a", "text": "words", "version": 7, "state": "dead", "error": {"code": "c", "reason": "r"}}
    assert parse_document(exported, SPEC).version == 8
    assert parse_document(READ | {"version": None}, SPEC).version is None


def test_documents_of_a_client_have_no_such_members() -> None:
    assert code({"id": "a", "text": "x", "job": "mine"}) == "unknown_field"
    assert code({"id": "a", "text": "x", "state": "mine"}) == "unknown_field"
    assert code(READ | {"author": "me"}) == "unknown_field"
    assert code(READ | {"version": True}) == "bad_version"
    assert code(READ | {"version": MAX_CLIENT_VERSION}) == "bad_version"


SEGMENTS = [
    {"start": 0.0, "end": 2.0, "speaker": "A", "text": "Hello there."},
    {"start": 2.0, "end": 4.0, "speaker": "B", "text": "Good bye."},
]
TALK = {"id": "t", "kind": "talk", "state": "encoded", "version": 3, "text": "Hello there. Good bye."}
CHAPTERS = [
    {"number": 1, "title": "In", "start": 0, "end": 13, "start_time": 0.0, "end_time": 2.0},
    {"number": 2, "title": "Out", "start": 13, "end": 22, "start_time": 2.0, "end_time": None},
]


def test_a_talk_keeps_its_segments_and_the_chapters_of_its_producer() -> None:
    own = {"id": "t", "kind": "talk", "segments": SEGMENTS}
    given = own | {"chapters": [{"title": "In", "startTime": 0.0, "endTime": 2.0}, {"title": "Out", "startTime": 2.0}]}
    read = TALK | {"segments": SEGMENTS, "chapters": CHAPTERS}
    assert parse_document(read | {"chaptering": {"engine": "tiling"}}, SPEC).talk == parse_document(own, SPEC).talk
    for chaptering in ({"engine": "given"}, None):
        assert parse_document(read | {"chaptering": chaptering}, SPEC).talk == parse_document(given, SPEC).talk
    exported = {name: member for name, member in read.items() if name != "text"} | {"chapters": given["chapters"]}
    assert parse_document(exported, SPEC).talk == parse_document(given, SPEC).talk


def test_chapters_without_times_are_named_by_their_segments() -> None:
    segments = [{"text": segment["text"]} for segment in SEGMENTS]
    chapters = [{"title": chapter["title"], "segment": n} for n, chapter in enumerate(CHAPTERS)]
    own = parse_document({"id": "t", "kind": "talk", "segments": segments, "chapters": chapters}, SPEC)
    read = [chapter | {"start_time": None, "end_time": None} for chapter in CHAPTERS]
    written = TALK | {"text": own.text, "segments": segments, "chapters": read, "chaptering": {"engine": "given"}}
    assert parse_document(written, SPEC).talk == own.talk


def test_a_talk_without_its_segments_is_refused() -> None:
    assert code(TALK) == "segments_missing"
    assert code(TALK | {"segments": 3}) == "segments_missing"
    for part in ({"segments": [3]}, {"segments": SEGMENTS, "chapters": [3]}):
        with pytest.raises(InvalidInput):
            parse_document(TALK | part, SPEC)
