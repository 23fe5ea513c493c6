"""Cuts a document into sections by its headings, and sections into passages of a size that an encoder reads whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from models.training.own.sentences import sentence_spans

_FENCE = re.compile(r"^\s{0,3}(```|~~~)")
_HASHES = re.compile(r"^\s{0,3}#{1,6}\s")
_UNDERLINE = re.compile(r"^\s{0,3}(={3,}|-{3,})\s*$")
# "2.1 Boundary layers": a number, a capital, a short line that ends like no sentence
_NUMBERED = re.compile(r"^\s*(?:\d{1,2}(?:\.\d{1,2}){0,3}\.?|[IVX]{1,5}\.)\s+([^\W\d_].{1,80})$")
_HEADING_WORDS = 12
_WORD = re.compile(r"\S+")
_EMPTY_LINE = re.compile(r"\n[^\S\n]*\n\s*")
# A paragraph shorter than this is no passage of its own: a heading says more than it does.
LEAST_WORDS = 20


@dataclass(frozen=True, slots=True)
class Section:
    """`heading` is empty for what stands before the first one."""

    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document. `section` counts from 0; `heading` is that of its section."""

    text: str
    heading: str
    section: int


def sections(text: str) -> list[Section]:
    """The parts between headings (Markdown's, or numbered lines that stand alone), those without text left out."""
    found: list[Section] = []
    heading, lines = "", list[str]()
    for line, name in _lines(text):
        if name is None:
            lines.append(line)
            continue
        _close(found, heading, lines)
        heading, lines = name, []
    _close(found, heading, lines)
    return found


def passages(text: str, most_words: int) -> list[Passage]:
    """Passages of about `most_words` at most, in order; paragraphs stay whole where they fit.

    A short paragraph is joined to the next one of its section. What is left at the end of a section and is shorter
    than 20 words is joined to the passage before it, or is none. A text that has no more than that is one passage.
    """
    found: list[Passage] = []
    for number, section in enumerate(sections(text)):
        pieces = [piece for paragraph in _EMPTY_LINE.split(section.text) for piece in _cut(paragraph, most_words)]
        found += [Passage(joined, section.heading, number) for joined in _joined(pieces, most_words)]
    return found or [Passage(text.strip(), "", 0)] * bool(text.strip())


def _lines(text: str) -> Iterator[tuple[str, str | None]]:
    """Each line, with the heading that it is. Inside fences of code there are no headings."""
    lines = text.split("\n")
    fenced = False
    skip = False
    for number, line in enumerate(lines):
        if skip:
            skip = False
            continue
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if _FENCE.match(line):
            fenced = not fenced
        name = None if fenced else _heading(line, following, alone=number == 0 or not lines[number - 1].strip())
        # (the line that underlines a heading is no text)
        skip = name is not None and bool(_UNDERLINE.match(following))
        yield line, name


def _heading(line: str, following: str, *, alone: bool) -> str | None:
    if _HASHES.match(line) and (name := line.strip().strip("#").strip()):
        return name
    short = bool(line.strip()) and len(line.split()) <= _HEADING_WORDS and line.rstrip()[-1] not in ".,;:!?"
    if not short or not alone:
        return None
    if _UNDERLINE.match(following):
        return line.strip()
    numbered = _NUMBERED.match(line)
    return numbered[1].strip() if numbered and numbered[1][0].isupper() and not following.strip() else None


def _close(found: list[Section], heading: str, lines: list[str]) -> None:
    text = "\n".join(lines).strip()
    if text:
        found.append(Section(heading, text))


def _cut(paragraph: str, most_words: int) -> list[str]:
    """A paragraph in parts of whole sentences with at most `most_words`; a longer sentence is cut between words."""
    if len(paragraph.split()) <= most_words:
        return [paragraph.strip()] if paragraph.strip() else []
    parts: list[str] = []
    first, end, count = 0, 0, 0
    for start, stop, size in _spans(paragraph, most_words):
        if count and count + size > most_words:
            parts.append(paragraph[first:end])
            count = 0
        first = first if count else start
        end, count = stop, count + size
    parts.append(paragraph[first:end])
    return parts


def _spans(paragraph: str, most_words: int) -> Iterator[tuple[int, int, int]]:
    """Sentences, or parts of one that is too long, with their number of words."""
    for start, stop in sentence_spans(paragraph):
        found = [(match.start(), match.end()) for match in _WORD.finditer(paragraph, start, stop)]
        for place in range(0, len(found), most_words):
            part = found[place : place + most_words]
            yield part[0][0], part[-1][1], len(part)


def _joined(pieces: list[str], most_words: int) -> list[str]:
    joined: list[str] = []
    held = ""
    for piece in pieces:
        both = f"{held}\n\n{piece}" if held else piece
        if held and len(both.split()) > most_words and len(held.split()) >= LEAST_WORDS:
            joined.append(held)
            both = piece
        held = both
        if len(held.split()) >= most_words // 2:
            joined.append(held)
            held = ""
    if len(held.split()) >= LEAST_WORDS:
        joined.append(held)
    elif held and joined:
        joined[-1] = f"{joined[-1]}\n\n{held}"
    return joined
