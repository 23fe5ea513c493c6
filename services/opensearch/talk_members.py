"""What is stored of talk beside its text, and how a mapping has it."""

from collections.abc import Mapping
from typing import Any

from services.talk.chaptering import KIND, given_chapters
from services.talk.segments import Segments
from services.talk.sending import chapter_list, segment_list
from services.talk.talk import Talk

# What the client sent, in the form in which it is stored; a reindex carries it.
RAW = ("kind", "description", "segments", "given", "given_titles", "duration", "url", "talk_repairs")
_CHAPTER = ("number", "title", "start", "end", "start_time", "end_time")
_UNSEARCHED = {"type": "object", "enabled": False}
_SHOWN_ONLY = {"type": "keyword", "index": False, "doc_values": False}


def talk_members(talk: Talk) -> dict[str, Any]:
    """The members of a talk's `_source`. What it has not, is not there."""
    members: dict[str, Any] = {"kind": KIND, "segments": talk.segments.pack()}
    if talk.description:
        members["description"] = talk.description
    if talk.given is not None:
        members["given"] = [chapter.as_json(i) for i, chapter in enumerate(talk.given, 1)]
        # people name what nobody says: keyword search finds the talk by it, as it does by the description
        members["given_titles"] = [chapter.title for chapter in talk.given]
    if talk.duration is not None:
        members["duration"] = talk.duration
    if talk.url:
        members["url"] = talk.url
    if talk.repairs:
        members["talk_repairs"] = [repair.as_json() for repair in talk.repairs]
    return members


def shown_chapters(source: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The chapters of a stored talk: those that were made when it was encoded, until then the producer's."""
    listed = source.get("chapters", source.get("given", ()))
    return [{name: chapter[name] for name in _CHAPTER if name in chapter} for chapter in listed]


def sent_segments(source: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The segments of a stored talk as they are sent."""
    return segment_list(source["text"], Segments.unpack(source["segments"]))


def sent_members(source: Mapping[str, Any]) -> dict[str, Any]:
    """A stored talk's own members in the form in which they are sent; `segments` are there instead of the text."""
    segments = Segments.unpack(source["segments"])
    members = {name: source[name] for name in ("kind", "description", "duration", "url") if name in source}
    members["segments"] = segment_list(source["text"], segments)
    if given := given_chapters(source):
        members["chapters"] = chapter_list(given, segments)
    return members


def talk_fields(shown_text: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping's fields of it; `shown_text` is how text is mapped that keyword search finds."""
    return {
        "kind": {"type": "keyword"},
        "description": shown_text,
        "segments": _UNSEARCHED,
        "given": _UNSEARCHED,
        "given_titles": shown_text,
        "talk_repairs": _UNSEARCHED,
        "duration": {"type": "double"},
        "url": _SHOWN_ONLY,
    }
