"""The passage of a document that answers the query best, as text and character offsets.

A link to a passage within a web page: the fragment that makes a browser scroll to a text and mark it.

W3C Community Group, URL Fragment Text Directives: `#:~:text=START,END` marks from the first place of START to the next
one of END after it. Each is compared with the words of one block of the page, so neither may span a line's end.

Where in a document something was found: its passage, and of talk the chapter, the time, who speaks, and a link.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from query_api.schemas.search_request import HitUnit
from query_api.search.context import Hit, SearchContext, Source
from services.documents.document import joined_text
from services.opensearch.stored_document import EncodedWindow, PackedWindow, read_packed_windows
from services.talk.model import Segments, WindowSpan, chapter_windows, find_chapter, window_ends
from services.talk.parse import build_link

# Enough to be found once on a page, few enough that an edit elsewhere in the passage does not break the link.
_FRAGMENT_WORDS = 6


def text_fragment(passage: str) -> str:
    """What follows the `#` of a page's address; empty for a passage without a word.

    It begins with `:~:text=`, so after an address that has a fragment already it is appended without another `#`.
    """
    lines = [words for line in passage.splitlines() if (words := line.split())]
    if not lines:
        return ""
    if len(lines) == 1 and len(lines[0]) <= 2 * _FRAGMENT_WORDS:
        return f":~:text={_percent_encoded(lines[0])}"
    return f":~:text={_percent_encoded(lines[0][:_FRAGMENT_WORDS])},{_percent_encoded(lines[-1][-_FRAGMENT_WORDS:])}"


def _percent_encoded(words: list[str]) -> str:
    """Percent-encoded, with what the directive gives a meaning of its own: `-`, `,` and `&`."""
    return quote(" ".join(words), safe="").replace("-", "%2D")


# A document without vectors yet is cut at line ends and sentence ends into pieces of about this many characters.
_CHUNK_CHARACTERS = 400
_BOUNDARY = re.compile(r"\n+|(?<=[.!?])\s+")
_WORD = re.compile(r"\w+")


def best_passage(
    title: str,
    text: str,
    windows: Sequence[EncodedWindow | PackedWindow],
    query: Mapping[int, float],
    words: str,
    among: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The window with the highest score of its own, the first of equals; `among`: of these, which are some.

    `start` and `end` count characters of `text`. A document without vectors yet gives the stretch that holds most of
    the query's words.
    """
    if not windows:
        start, end = _best_chunk(text, words)
        return {"text": text[start:end], "start": start, "end": end, "window": 0, "windows": 0, "score": None}
    scores = {at: windows[at].vector.dot(query) for at in (range(len(windows)) if among is None else among)}
    best = max(scores, key=lambda i: (scores[i], -i))
    shift = len(joined_text(title, text)) - len(text)
    start, end = (max(0, offset - shift) for offset in (windows[best].start, windows[best].end))
    return {
        "text": text[start:end],
        "start": start,
        "end": end,
        "window": best,
        "windows": len(windows),
        "score": scores[best],
    }


def _best_chunk(text: str, words: str) -> tuple[int, int]:
    wanted = {word.casefold() for word in _WORD.findall(words)}
    best, chosen = -1, (0, min(len(text), _CHUNK_CHARACTERS))
    for start, end in _chunks(text):
        hits = len(wanted & {word.casefold() for word in _WORD.findall(text[start:end])})
        if hits > best:
            best, chosen = hits, (start, end)
    return chosen


def _chunks(text: str) -> list[tuple[int, int]]:
    ends = [match.end() for match in _BOUNDARY.finditer(text)] + [len(text)]
    chunks, start, previous = [], 0, 0
    for end in ends:
        if end - start > _CHUNK_CHARACTERS and previous > start:
            chunks.append((start, previous))
            start = previous
        previous = end
    chunks.append((start, len(text)))
    return [part for chunk in chunks for part in _split_long(*chunk)]


def _split_long(start: int, end: int) -> list[tuple[int, int]]:
    """A sentence without an end may be as long as the document."""
    return [
        (at, min(at + 2 * _CHUNK_CHARACTERS, end)) for at in range(start, max(end, start + 1), 2 * _CHUNK_CHARACTERS)
    ]


def part_windows(unit: HitUnit, part: int, source: Source, windows: Sequence[WindowSpan]) -> Sequence[int]:
    """Positions of the windows of a part: those of a chapter, or a passage itself."""
    if unit == "passage":
        return (part,)
    return chapter_windows(source["chapters"][part], window_ends(windows, _text_offset(source)))


def has_part(unit: HitUnit, part: int, source: Source) -> bool:
    """Whether the document still has the part: it may have been written again since the part was found."""
    return part < len(source.get("chapters" if unit == "chapter" else "windows", ()))


def encoded_text(context: SearchContext, one: Hit, source: Source) -> str:
    """What was encoded of the document, or of the part that was found."""
    title, text = source.get("title", ""), source["text"]
    if one.number is None:
        return joined_text(title, text)
    if context.request.unit == "chapter":
        chapter = source["chapters"][one.number]
        return joined_text(title, text[chapter["start"] : chapter["end"]])
    window = source["windows"][one.number]
    return joined_text(title, text)[window["start"] : window["end"]]


def locate(context: SearchContext, one: Hit, source: Source) -> dict[str, Any]:
    """The members of a hit that say where: `passage`, and of talk `chapter` and `link`."""
    unit, windows = context.request.unit, read_packed_windows(source)
    among = None if one.number is None else part_windows(unit, one.number, source, windows)
    passage = best_passage(
        source.get("title", ""), source["text"], windows, context.query.by_id(), context.request.query, among
    )
    found: dict[str, Any] = {"passage": passage}
    chapters = source.get("chapters", ())
    chapter = (
        chapters[one.number] if unit == "chapter" and one.number is not None else find_chapter(chapters, passage["end"])
    )
    if chapter is not None:
        found["chapter"] = dict(chapter)
    if "segments" in source:
        passage |= _speech(Segments.unpack(source["segments"]), passage)
        talk = context.generation.spec.talk
        begin = chapter if unit == "chapter" and chapter is not None else passage
        address = build_link(
            None if talk is None else talk.link, source.get("url", ""), one.id, begin.get("start_time")
        )
        if address is not None:
            found["link"] = address
    return found


def _speech(segments: Segments, passage: Mapping[str, Any]) -> dict[str, Any]:
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


def _text_offset(source: Source) -> int:
    text = source["text"]
    return len(joined_text(source.get("title", ""), text)) - len(text)
