"""What is stored of talk beside its text, and how a mapping has it."""

from collections.abc import Mapping
from typing import Any

from services.talk.chaptering import KIND
from services.talk.segments import Segments
from services.talk.talk import Talk

# What the client sent, in the form in which it is stored; a reindex carries it.
RAW = ("kind", "description", "segments", "given", "duration", "url", "talk_repairs")
_UNSEARCHED = {"type": "object", "enabled": False}
_SHOWN_ONLY = {"type": "keyword", "index": False, "doc_values": False}


def talk_members(talk: Talk) -> dict[str, Any]:
    """The members of a talk's `_source`. What it has not, is not there."""
    members: dict[str, Any] = {"kind": KIND, "segments": talk.segments.pack()}
    if talk.description:
        members["description"] = talk.description
    if talk.given is not None:
        members["given"] = [chapter.as_json(i) for i, chapter in enumerate(talk.given, 1)]
    if talk.duration is not None:
        members["duration"] = talk.duration
    if talk.url:
        members["url"] = talk.url
    if talk.repairs:
        members["talk_repairs"] = [repair.as_json() for repair in talk.repairs]
    return members


def read_segments(source: Mapping[str, Any]) -> Segments | None:
    """Those of a stored document, None when it is no talk."""
    return Segments.unpack(source["segments"]) if "segments" in source else None


def talk_fields(shown_text: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping's fields of it; `shown_text` is how text is mapped that keyword search finds."""
    return {
        "kind": {"type": "keyword"},
        "description": shown_text,
        "segments": _UNSEARCHED,
        "given": _UNSEARCHED,
        "talk_repairs": _UNSEARCHED,
        "duration": {"type": "double"},
        "url": _SHOWN_ONLY,
    }
