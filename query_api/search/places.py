"""Where in a document something was found: its passage, and of talk the chapter, the time, who speaks, and a link."""

from collections.abc import Mapping, Sequence
from typing import Any

from query_api.search.context import Hit, SearchContext, Source
from query_api.search.passages import best_passage
from query_api.search.request import Unit
from services.documents import joined_text
from services.opensearch.stored_windows import read_packed_windows
from services.talk.chaptering import Span, chapter_at, ends_in_text, windows_within
from services.talk.links import link
from services.talk.segments import Segments


def windows_of(unit: Unit, part: int, source: Source, windows: Sequence[Span]) -> Sequence[int]:
    """Positions of the windows of a part: those of a chapter, or a passage itself."""
    if unit == "passage":
        return (part,)
    return windows_within(source["chapters"][part], ends_in_text(windows, _shift(source)))


def is_there(unit: Unit, part: int, source: Source) -> bool:
    """Whether the document still has the part: it may have been written again since the part was found."""
    return part < len(source.get("chapters" if unit == "chapter" else "windows", ()))


def own_text(context: SearchContext, one: Hit, source: Source) -> str:
    """What was encoded of the document, or of the part that was found."""
    title, text = source.get("title", ""), source["text"]
    if one.number is None:
        return joined_text(title, text)
    if context.request.unit == "chapter":
        chapter = source["chapters"][one.number]
        return joined_text(title, text[chapter["start"] : chapter["end"]])
    window = source["windows"][one.number]
    return joined_text(title, text)[window["start"] : window["end"]]


def place(context: SearchContext, one: Hit, source: Source) -> dict[str, Any]:
    """The members of a hit that say where: `passage`, and of talk `chapter` and `link`."""
    unit, windows = context.request.unit, read_packed_windows(source)
    among = None if one.number is None else windows_of(unit, one.number, source, windows)
    passage = best_passage(
        source.get("title", ""), source["text"], windows, context.query.by_id(), context.request.query, among
    )
    found: dict[str, Any] = {"passage": passage}
    chapters = source.get("chapters", ())
    chapter = (
        chapters[one.number] if unit == "chapter" and one.number is not None else chapter_at(chapters, passage["end"])
    )
    if chapter is not None:
        found["chapter"] = dict(chapter)
    if "segments" in source:
        passage |= _said(Segments.unpack(source["segments"]), passage)
        talk = context.generation.spec.talk
        begin = chapter if unit == "chapter" and chapter is not None else passage
        address = link(None if talk is None else talk.link, source.get("url", ""), one.id, begin.get("start_time"))
        if address is not None:
            found["link"] = address
    return found


def _said(segments: Segments, passage: Mapping[str, Any]) -> dict[str, Any]:
    """When and by whom; what is not known is left out."""
    start, end = passage["start"], passage["end"]
    seconds: dict[str, Any] = {"start_time": segments.second_at(start), "end_time": segments.last_second(end)}
    seconds["speaker"] = _speaker(segments, start, end)
    return {name: value for name, value in seconds.items() if value is not None}


def _speaker(segments: Segments, start: int, end: int) -> str | None:
    """Who says most characters of a stretch, the first of equals."""
    said: dict[str | None, int] = {}
    at = start
    while at < end:
        i = segments.at(at)
        until = segments.offsets[i + 1] if i + 1 < len(segments) else end
        name = segments.speaker_at(at)
        said[name] = said.get(name, 0) + min(until, end) - at
        at = until
    return max(said, key=lambda name: said[name]) if said else None


def _shift(source: Source) -> int:
    text = source["text"]
    return len(joined_text(source.get("title", ""), text)) - len(text)
