"""The passage of a hit: the best window of a document, its offsets in the text, and links to it.

A hit in talk also has the chapter, the times and the speaker. A text fragment links to the passage within a web page
(W3C Community Group, URL Fragment Text Directives): `#:~:text=START,END` marks the text from the first occurrence of
START to the next occurrence of END. The browser compares each with one block of the page, so neither may span lines.
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

# Words of START and of END: enough to occur once on a page, and few enough that an edit elsewhere in the passage does
# not break the link.
_FRAGMENT_WORDS = 6
# A document without vectors yet is cut at ends of lines and sentences into chunks of about this many characters.
_CHUNK_CHARACTERS = 400
_BOUNDARY = re.compile(r"\n+|(?<=[.!?])\s+")
_WORD = re.compile(r"\w+")


def locate(context: SearchContext, hit: Hit, source: Source) -> dict[str, Any]:
    """Return the members of a hit that locate it: `passage`, and of talk `chapter` and `link`."""
    unit, windows = context.request.unit, read_packed_windows(source)
    among = None if hit.number is None else nested_windows(unit, hit.number, source, windows)
    passage = best_passage(
        source.get("title", ""), source["text"], windows, context.query.by_id(), context.request.query, among
    )
    members: dict[str, Any] = {"passage": passage}
    chapters = source.get("chapters", ())
    if unit == "chapter" and hit.number is not None:
        chapter = chapters[hit.number]
    else:
        chapter = find_chapter(chapters, passage["end"]) if chapters else None
    if chapter is not None:
        members["chapter"] = dict(chapter)
    if "segments" in source:
        passage |= _speech(Segments.unpack(source["segments"]), passage)
        talk = context.generation.spec.talk
        play_from = chapter if unit == "chapter" and chapter is not None else passage
        address = build_link(
            None if talk is None else talk.link, source.get("url", ""), hit.id, play_from.get("start_time")
        )
        if address is not None:
            members["link"] = address
    return members


def best_passage(
    title: str,
    text: str,
    windows: Sequence[EncodedWindow | PackedWindow],
    query: Mapping[int, float],
    words: str,
    among: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Return the window with the highest score, the first of equals, as text and offsets.

    `start` and `end` count characters of `text`. `among`: positions of the windows to choose from; None: all. A
    document without vectors yet gives the chunk that holds most of the query's words.
    """
    if not windows:
        start, end = _best_chunk(text, words)
        return {"text": text[start:end], "start": start, "end": end, "window": 0, "windows": 0, "score": None}
    scores = {n: windows[n].vector.dot(query) for n in (range(len(windows)) if among is None else among)}
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
    """Return the offsets of the chunk that holds most of the query's words, the first of equals."""
    wanted = {word.casefold() for word in _WORD.findall(words)}
    most, chosen = -1, (0, min(len(text), _CHUNK_CHARACTERS))
    for start, end in _chunks(text):
        hits = len(wanted & {word.casefold() for word in _WORD.findall(text[start:end])})
        if hits > most:
            most, chosen = hits, (start, end)
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
    return [piece for chunk in chunks for piece in _split_long(*chunk)]


def _split_long(start: int, end: int) -> list[tuple[int, int]]:
    """Split a chunk of more than twice the usual size: a text without sentence ends is one chunk."""
    return [
        (begin, min(begin + 2 * _CHUNK_CHARACTERS, end))
        for begin in range(start, max(end, start + 1), 2 * _CHUNK_CHARACTERS)
    ]


def nested_windows(unit: HitUnit, number: int, source: Source, windows: Sequence[WindowSpan]) -> Sequence[int]:
    """Return the positions of the windows of a chapter, or of a passage, which is one window."""
    if unit == "passage":
        return (number,)
    return chapter_windows(source["chapters"][number], window_ends(windows, _text_offset(source)))


def has_nested_hit(unit: HitUnit, number: int, source: Source) -> bool:
    """Return whether the document still has the chapter or passage: it may have been rewritten since the search."""
    return number < len(source.get("chapters" if unit == "chapter" else "windows", ()))


def encoded_text(context: SearchContext, hit: Hit, source: Source) -> str:
    """Return the encoded text of the hit: of the document, or of its chapter or passage."""
    title, text = source.get("title", ""), source["text"]
    if hit.number is None:
        return joined_text(title, text)
    if context.request.unit == "chapter":
        chapter = source["chapters"][hit.number]
        return joined_text(title, text[chapter["start"] : chapter["end"]])
    window = source["windows"][hit.number]
    return joined_text(title, text)[window["start"] : window["end"]]


def _text_offset(source: Source) -> int:
    """Return the offset of the text in the encoded text, which the title precedes."""
    text = source["text"]
    return len(joined_text(source.get("title", ""), text)) - len(text)


def _speech(segments: Segments, passage: Mapping[str, Any]) -> dict[str, Any]:
    """Return the times and the speaker of a passage, without unknown members."""
    start, end = passage["start"], passage["end"]
    members: dict[str, Any] = {"start_time": segments.second_at(start), "end_time": segments.last_second(end)}
    members["speaker"] = _speaker(segments, start, end)
    return {name: value for name, value in members.items() if value is not None}


def _speaker(segments: Segments, start: int, end: int) -> str | None:
    """Return the speaker of most characters of a stretch, the first of equals."""
    characters: dict[str | None, int] = {}
    offset = start
    while offset < end:
        i = segments.at(offset)
        segment_end = segments.offsets[i + 1] if i + 1 < len(segments) else end
        name = segments.speaker_at(offset)
        characters[name] = characters.get(name, 0) + min(segment_end, end) - offset
        offset = segment_end
    return max(characters, key=lambda name: characters[name]) if characters else None


def text_fragment(passage: str) -> str:
    """Return the text fragment of a passage, to follow the `#` of a page's address; empty for a passage without words.

    The fragment begins with `:~:text=`. An address that already has a fragment takes it without another `#`.
    """
    lines = [words for line in passage.splitlines() if (words := line.split())]
    if not lines:
        return ""
    if len(lines) == 1 and len(lines[0]) <= 2 * _FRAGMENT_WORDS:
        return f":~:text={_percent_encoded(lines[0])}"
    return f":~:text={_percent_encoded(lines[0][:_FRAGMENT_WORDS])},{_percent_encoded(lines[-1][-_FRAGMENT_WORDS:])}"


def _percent_encoded(words: list[str]) -> str:
    """Percent-encode words, including the characters with a meaning in the directive: `-`, `,` and `&`."""
    return quote(" ".join(words), safe="").replace("-", "%2D")
