"""A stored talk in the form in which it is sent: what is read back is the same talk."""

from collections.abc import Sequence
from typing import Any

from services.talk.chapters import Chapter
from services.talk.segments import UNKNOWN, Segments


def segment_list(text: str, segments: Segments) -> list[dict[str, Any]]:
    """The segments as objects. A line break at the end of a text is one that the transcript has there."""
    ends = [*segments.offsets[1:], len(text)]
    listed = []
    for i, offset in enumerate(segments.offsets):
        one: dict[str, Any] = {}
        if segments.starts[i] != UNKNOWN:
            one["start"] = segments.starts[i] / 1000
        if segments.ends[i] != UNKNOWN:
            one["end"] = segments.ends[i] / 1000
        if segments.speakers[i] != UNKNOWN:
            one["speaker"] = segments.names[segments.speakers[i]]
        listed.append(one | {"text": text[offset : ends[i]].removesuffix(" ")})
    return listed


def chapter_list(chapters: Sequence[Chapter], segments: Segments) -> list[dict[str, Any]]:
    """A producer's chapters by the segments at which they begin."""
    listed = []
    for chapter in chapters:
        one: dict[str, Any] = {"segment": segments.at(chapter.start), "title": chapter.title}
        if chapter.start_time is not None:
            one["startTime"] = chapter.start_time
        if chapter.end_time is not None:
            one["endTime"] = chapter.end_time
        listed.append(one)
    return listed
