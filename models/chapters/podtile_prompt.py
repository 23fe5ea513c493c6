"""Prompts of the chapter engine `podtile`, and answers to them.

A prompt has the talk's title, description and latest chapter titles, then numbered lines of the transcript
(`split_into_lines`), as many as fit (`next_chunk`). The answer is a list of line numbers and titles: `[1] Title [12]
Title`. Training and inference use the same format; another format needs another `PROMPT_FORMAT_VERSION`
(docs/decisions/0197).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from models.chapters.engine import Episode

PROMPT_FORMAT_VERSION = 1
PROMPT_SUFFIX = "\nChapters:"
NO_ANSWER = "none"
# Sentences of a transcript are joined up to this length. A line number costs four to five pieces: a quarter of a spoken
# sentence, and a tenth of forty words.
TARGET_LINE_CHARACTERS = 240
# Longer lines are cut, for talks without full stops. Few paragraphs are longer.
MAX_LINE_CHARACTERS = 1200
_TITLE_CHARACTERS, _DESCRIPTION_CHARACTERS, _LATEST_TITLES_CHARACTERS = 120, 400, 480
_SENTENCE_END = re.compile(r"[.!?…。！？]['\"”’)]*\s+")
_SPACES = re.compile(r"\s+")
# `[12] Title`, or a line `12: Title`, the form of models that were trained on other lists.
_ANCHOR = re.compile(r"\[(\d{1,6})\](?:\s*+:)?|^[^\S\n]*+(\d{1,6})[:.)]\s", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PromptLine:
    """A line of a prompt: characters `start` to `end` of the text, without the space before the next line."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class LineChunk:
    """Lines `first` to `end` (exclusive) of one prompt.

    Chapters that begin at the line `settled` or later are left to the next chunk, which shows more of the text after
    them.
    """

    first: int
    end: int
    settled: int


def split_into_lines(episode: Episode) -> list[PromptLine]:
    """Join segments into lines of up to `TARGET_LINE_CHARACTERS`; cut segments above `MAX_LINE_CHARACTERS`."""
    lines: list[PromptLine] = []
    line_start: int | None = None
    ends = [*episode.segments.offsets[1:], len(episode.text)]
    for start, end in zip(episode.segments.offsets, ends, strict=False):
        if line_start is not None and end - line_start > TARGET_LINE_CHARACTERS:
            lines += _split_segment(episode.text, line_start, start)
            line_start = None
        if line_start is None:
            line_start = start
    if line_start is not None:
        lines += _split_segment(episode.text, line_start, len(episode.text))
    return lines


def _split_segment(text: str, start: int, end: int) -> Iterator[PromptLine]:
    while end - start > MAX_LINE_CHARACTERS:
        middle = _last_break(text, start + MAX_LINE_CHARACTERS // 2, start + MAX_LINE_CHARACTERS)
        yield from _strip_line(text, start, middle)
        start = middle
    yield from _strip_line(text, start, end)


def _last_break(text: str, low: int, high: int) -> int:
    """Return the position after the last sentence end in text[low:high], else after its last space, else `high`."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text, low, high)]
    if ends:
        return ends[-1]
    space = text.rfind(" ", low, high)
    return high if space < 0 else space + 1


def _strip_line(text: str, start: int, end: int) -> Iterator[PromptLine]:
    """Yield the line without the space at its end, or nothing if it is blank."""
    shown = text[start:end].rstrip()
    if shown.strip():
        yield PromptLine(start, start + len(shown))


def nearest_line(lines: Sequence[PromptLine], offset: int) -> int:
    """Return the number of the line whose start is nearest to `offset`; the earlier line if two are equally near."""
    return min(range(len(lines)), key=lambda i: abs(lines[i].start - offset))


def next_chunk(pieces: Sequence[int], first: int, room: int, ahead: float) -> LineChunk:
    """Return the chunk from the line `first`: the lines that fit `room` pieces, at least one.

    `pieces`: of each line. `ahead`: share of `room` that the next chunk shows again.
    """
    end, used = first, 0
    while end < len(pieces) and (end == first or used + pieces[end] <= room):
        used += pieces[end]
        end += 1
    if end == len(pieces):
        return LineChunk(first, end, end)
    settled, repeated = end, 0
    while settled > first + 1 and repeated + pieces[settled - 1] <= ahead * room:
        settled -= 1
        repeated += pieces[settled]
    return LineChunk(first, end, settled)


def format_context(title: str, description: str, chapter_titles: Sequence[str]) -> str:
    """Format the context of a chunk: title and description of the talk, and its latest chapter titles."""
    lines = [f"Title: {clean_title(title)[:_TITLE_CHARACTERS]}"]
    if about := clean_title(description)[:_DESCRIPTION_CHARACTERS]:
        lines.append(f"About: {about}")
    if titles := _latest_titles(chapter_titles):
        lines.append(f"Chapters so far: {'; '.join(titles)}")
    return "\n".join(lines) + "\nTranscript:"


def _latest_titles(titles: Sequence[str]) -> list[str]:
    """Return the latest titles that fit `_LATEST_TITLES_CHARACTERS`."""
    kept: list[str] = []
    room = _LATEST_TITLES_CHARACTERS
    for title in reversed(titles):
        shown = clean_title(title)[:_TITLE_CHARACTERS]
        room -= len(shown) + 2
        if room < 0:
            break
        kept.append(shown)
    return kept[::-1]


def format_numbered_line(number: int, text: str) -> str:
    """Format a line of the transcript."""
    return f"\n[{number}] {clean_title(text)}"


def format_answer(chapters: Iterable[tuple[int, str]]) -> str:
    """Format the expected answer: line numbers and titles of the chapters that begin there."""
    answer = " ".join(f"[{number}] {clean_title(title)}" for number, title in chapters)
    return f" {answer or NO_ANSWER}"


def format_answer_prefix(number: int = 1) -> str:
    """Format the beginning of an answer whose first chapter begins at a known line."""
    return f" [{number}]"


def parse_answer(text: str, lines: int) -> list[tuple[int, str]]:
    """Parse line numbers (1 to `lines`) and titles out of an answer, ascending, each number once.

    Other text is ignored.
    """
    anchors = list(_ANCHOR.finditer(text))
    titles: dict[int, str] = {}
    for i, anchor in enumerate(anchors):
        number = int(anchor[1] or anchor[2])
        end = anchors[i + 1].start() if i + 1 < len(anchors) else len(text)
        title = text[anchor.end() : end].strip().partition("\n")[0]
        if 1 <= number <= lines and number not in titles:
            titles[number] = clean_title(title)
    return sorted(titles.items())


def clean_title(text: str) -> str:
    """Return a title on one line and without brackets, which mark line numbers."""
    return _SPACES.sub(" ", text.replace("[", "(").replace("]", ")")).strip()
