"""A talk's text as numbered lines: what a generator is shown, and what it points at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.chapters.engine import Episode

# Sentences of a transcript are joined up to this length: a number costs four to five pieces, which is a quarter of a
# spoken sentence and a tenth of forty words.
FULL = 240
# No line is longer, so that a talk without a full stop has lines too. Paragraphs seldom are.
LONGEST = 1200
_SENTENCE_END = re.compile(r"[.!?…。！？]['\"”’)]*\s+")


@dataclass(frozen=True, slots=True)
class Line:
    """Characters `start` to `end` of the text; `end` is that of what is shown, without the space to the next line."""

    start: int
    end: int


def lines_of(episode: Episode) -> list[Line]:
    """Whole segments up to `FULL` characters together; a segment of more than `LONGEST` in several lines."""
    found: list[Line] = []
    begun: int | None = None
    ends = [*episode.segments.offsets[1:], len(episode.text)]
    for start, end in zip(episode.segments.offsets, ends, strict=False):
        if begun is not None and end - begun > FULL:
            found += _cut(episode.text, begun, start)
            begun = None
        if begun is None:
            begun = start
    if begun is not None:
        found += _cut(episode.text, begun, len(episode.text))
    return found


def line_at(lines: Sequence[Line], offset: int) -> int:
    """The line whose start is nearest to `offset`; the earlier one of two as near."""
    return min(range(len(lines)), key=lambda i: abs(lines[i].start - offset))


def _cut(text: str, start: int, end: int) -> Iterator[Line]:
    while end - start > LONGEST:
        middle = _last_end(text, start + LONGEST // 2, start + LONGEST)
        yield from _shown(text, start, middle)
        start = middle
    yield from _shown(text, start, end)


def _last_end(text: str, low: int, high: int) -> int:
    """Behind the last full stop of text[low:high], else behind its last space, else `high`."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text, low, high)]
    if ends:
        return ends[-1]
    space = text.rfind(" ", low, high)
    return high if space < 0 else space + 1


def _shown(text: str, start: int, end: int) -> Iterator[Line]:
    """Nothing for what is blank."""
    shown = text[start:end].rstrip()
    if shown.strip():
        yield Line(start, start + len(shown))
