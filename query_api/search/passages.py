"""The passage of a document that answers the query best, as text and character offsets."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from services.documents import joined_text
from services.opensearch.stored_windows import EncodedWindow, PackedWindow

# A document without vectors yet is cut at line ends and sentence ends into pieces of about this many characters.
_CHUNK = 400
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
        start, end = _by_words(text, words)
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


def _by_words(text: str, words: str) -> tuple[int, int]:
    wanted = {word.casefold() for word in _WORD.findall(words)}
    best, chosen = -1, (0, min(len(text), _CHUNK))
    for start, end in _chunks(text):
        hits = len(wanted & {word.casefold() for word in _WORD.findall(text[start:end])})
        if hits > best:
            best, chosen = hits, (start, end)
    return chosen


def _chunks(text: str) -> list[tuple[int, int]]:
    ends = [match.end() for match in _BOUNDARY.finditer(text)] + [len(text)]
    chunks, start, previous = [], 0, 0
    for end in ends:
        if end - start > _CHUNK and previous > start:
            chunks.append((start, previous))
            start = previous
        previous = end
    chunks.append((start, len(text)))
    return [part for chunk in chunks for part in _cut(*chunk)]


def _cut(start: int, end: int) -> list[tuple[int, int]]:
    """A sentence without an end may be as long as the document."""
    return [(at, min(at + 2 * _CHUNK, end)) for at in range(start, max(end, start + 1), 2 * _CHUNK)]
