"""What a generator reads and what it is trained to write. Another wording is another `PROMPT_FORMAT_VERSION`.

A talk's text as numbered lines: what a generator is shown, and what it points at.

Which lines are read together: a talk is longer than what a model reads at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from models.chapters.engine import Episode

# Sentences of a transcript are joined up to this length: a number costs four to five pieces, which is a quarter of a
# spoken sentence and a tenth of forty words.
TARGET_LINE_CHARACTERS = 240
# No line is longer, so that a talk without a full stop has lines too. Paragraphs seldom are.
MAX_LINE_CHARACTERS = 1200
_SENTENCE_END = re.compile(r"[.!?…。！？]['\"”’)]*\s+")


@dataclass(frozen=True, slots=True)
class PromptLine:
    """Characters `start` to `end` of the text; `end` is that of what is shown, without the space to the next line."""

    start: int
    end: int


def split_into_lines(episode: Episode) -> list[PromptLine]:
    """Whole segments up to `TARGET_LINE_CHARACTERS` characters together; a segment of more than `LONGEST` in several lines."""
    found: list[PromptLine] = []
    begun: int | None = None
    ends = [*episode.segments.offsets[1:], len(episode.text)]
    for start, end in zip(episode.segments.offsets, ends, strict=False):
        if begun is not None and end - begun > TARGET_LINE_CHARACTERS:
            found += _split_segment(episode.text, begun, start)
            begun = None
        if begun is None:
            begun = start
    if begun is not None:
        found += _split_segment(episode.text, begun, len(episode.text))
    return found


def nearest_line(lines: Sequence[PromptLine], offset: int) -> int:
    """The line whose start is nearest to `offset`; the earlier one of two as near."""
    return min(range(len(lines)), key=lambda i: abs(lines[i].start - offset))


def _split_segment(text: str, start: int, end: int) -> Iterator[PromptLine]:
    while end - start > MAX_LINE_CHARACTERS:
        middle = _last_break(text, start + MAX_LINE_CHARACTERS // 2, start + MAX_LINE_CHARACTERS)
        yield from _strip_line(text, start, middle)
        start = middle
    yield from _strip_line(text, start, end)


def _last_break(text: str, low: int, high: int) -> int:
    """Behind the last full stop of text[low:high], else behind its last space, else `high`."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text, low, high)]
    if ends:
        return ends[-1]
    space = text.rfind(" ", low, high)
    return high if space < 0 else space + 1


def _strip_line(text: str, start: int, end: int) -> Iterator[PromptLine]:
    """Nothing for what is blank."""
    shown = text[start:end].rstrip()
    if shown.strip():
        yield PromptLine(start, start + len(shown))


@dataclass(frozen=True, slots=True)
class LineChunk:
    """Lines `first` to `end` (exclusive). Chapters that begin at `settled` or later are left to the next part, which
    reads the same lines with more of what follows."""

    first: int
    end: int
    settled: int


def next_chunk(pieces: Sequence[int], first: int, room: int, ahead: float) -> LineChunk:
    """The part that begins with the line `first`: as many lines as `room` pieces hold, at least one.

    `pieces` of each line; `ahead` is the share of the room whose lines are read again.
    """
    end, used = first, 0
    while end < len(pieces) and (end == first or used + pieces[end] <= room):
        used += pieces[end]
        end += 1
    if end == len(pieces):
        return LineChunk(first, end, end)
    settled, seen = end, 0
    while settled > first + 1 and seen + pieces[settled - 1] <= ahead * room:
        settled -= 1
        seen += pieces[settled]
    return LineChunk(first, end, settled)


PROMPT_FORMAT_VERSION = 1
NO_ANSWER = "none"
_TITLE, _DESCRIPTION, _SO_FAR = 120, 400, 480  # characters
_SPACES = re.compile(r"\s+")
# `[12] Title`; or a line that begins `12: Title`, as models write that were trained on other lists.
_ANCHOR = re.compile(r"\[(\d{1,6})\](?:\s*:)?|^\s*(\d{1,6})[:.)]\s", re.MULTILINE)


def format_context(title: str, description: str, so_far: Sequence[str]) -> str:
    """The global context: title and description of the talk, and the latest titles of its chapters."""
    lines = [f"Title: {clean_title(title)[:_TITLE]}"]
    if about := clean_title(description)[:_DESCRIPTION]:
        lines.append(f"About: {about}")
    if titles := _latest_titles(so_far):
        lines.append(f"Chapters so far: {'; '.join(titles)}")
    return "\n".join(lines) + "\nTranscript:"


def format_numbered_line(number: int, text: str) -> str:
    """A line of the transcript as it is shown."""
    return f"\n[{number}] {clean_title(text)}"


PROMPT_SUFFIX = "\nChapters:"


def format_answer(chapters: Iterable[tuple[int, str]]) -> str:
    """What is to be written: numbers of lines and the titles of the chapters that begin there."""
    written = " ".join(f"[{number}] {clean_title(title)}" for number, title in chapters)
    return f" {written or NO_ANSWER}"


def format_answer_prefix(number: int = 1) -> str:
    """The beginning of an answer whose first chapter begins at a line that is known."""
    return f" [{number}]"


def parse_answer(text: str, lines: int) -> list[tuple[int, str]]:
    """The numbers (from 1) and titles of an answer, ascending, each number once, none beyond `lines`.

    Whatever else a generator wrote is passed over.
    """
    anchors = list(_ANCHOR.finditer(text))
    found: dict[int, str] = {}
    for i, anchor in enumerate(anchors):
        number = int(anchor[1] or anchor[2])
        end = anchors[i + 1].start() if i + 1 < len(anchors) else len(text)
        title = text[anchor.end() : end].strip().partition("\n")[0]
        if 1 <= number <= lines and number not in found:
            found[number] = clean_title(title)
    return sorted(found.items())


def clean_title(text: str) -> str:
    """On one line, and without what marks a number."""
    return _SPACES.sub(" ", text.replace("[", "(").replace("]", ")")).strip()


def _latest_titles(titles: Sequence[str]) -> list[str]:
    kept: list[str] = []
    room = _SO_FAR
    for title in reversed(titles):
        shown = clean_title(title)[:_TITLE]
        room -= len(shown) + 2
        if room < 0:
            break
        kept.append(shown)
    return kept[::-1]
