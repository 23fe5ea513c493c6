"""Documents that were read and are written back: the members that reading adds are accepted and ignored.

A client reads a document, changes a title and sends it again. Such a document has a `state`, which tells it from a
document of the client's own. Its `version` is the version that was read, so the write takes the next one: it replaces
what was read, and a newer document in between is kept (`stale_version`). See docs/decisions/0254.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.errors import InvalidInput
from services.talk.model import TALK_KIND

# The members that the answer to GET and a line of an export add to a document.
ADDED_MEMBERS: Final = (
    "state", "job", "encoder", "attempts", "error", "earlier", "chaptering", "talk_repairs", "vectors", "windows",
    "dense", "dense_encoder", "dense_error",
)  # fmt: skip
ADDED_SCHEMA_MEMBERS: Final[dict[str, Any]] = {
    name: {"readOnly": True, "description": "as the document was read; ignored"} for name in ADDED_MEMBERS
} | {
    "state": {
        "type": "string",
        "readOnly": True,
        "description": "as the document was read; `version` is then the version that was read",
    }
}
_STATES = ("pending", "encoded", "dead")


def strip_read_members(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the client's members of a document that was read. Another document is returned unchanged.

    Absent values may be null, as a client's model writes them. Raises InvalidInput (`segments_missing`) for a talk that
    was read without its segments: its text alone would lose the times and the speakers.
    """
    if value.get("state") not in _STATES:
        return value
    document = {name: member for name, member in value.items() if member is not None and name not in ADDED_MEMBERS}
    version = document.get("version")
    if isinstance(version, int) and not isinstance(version, bool):
        document["version"] = version + 1
    return _strip_talk(document, value) if document.get("kind") == TALK_KIND else document


def _strip_talk(document: dict[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    segments = document.get("segments")
    if not isinstance(segments, list):
        raise InvalidInput(
            "segments_missing",
            "The talk was read without its segments, which have its times and speakers: read it with `segments=true`.",
        )
    text = document.pop("text", None)
    chapters, chaptering = document.pop("chapters", None), value.get("chaptering")
    made = isinstance(chaptering, Mapping) and chaptering.get("engine") != "given"
    if isinstance(chapters, list) and chapters and not made:
        document["chapters"] = _producer_chapters(chapters, segments, text if isinstance(text, str) else "")
    return document


def _producer_chapters(chapters: Sequence[Any], segments: Sequence[Any], text: str) -> list[Any]:
    """Return the producer's chapters in the form of a request: with a start time, or else with a segment's number.

    Chapters of an export have this form already. The service makes new chapters where an engine made these.
    """
    starts: list[int] = []
    at = 0
    for segment in segments:
        words = segment.get("text") if isinstance(segment, Mapping) else None
        found = text.find(words.strip(), at) if isinstance(words, str) else -1
        at = max(at, found)
        starts.append(at)
    written = []
    for chapter in chapters:
        if not isinstance(chapter, Mapping) or not isinstance(chapter.get("start"), int):
            written.append(chapter)
            continue
        times = {"startTime": chapter.get("start_time"), "endTime": chapter.get("end_time")}
        members = {"title": chapter.get("title")} | {name: time for name, time in times.items() if time is not None}
        if "startTime" not in members:
            members["segment"] = max(0, bisect_right(starts, chapter["start"]) - 1)
        written.append(members)
    return written
