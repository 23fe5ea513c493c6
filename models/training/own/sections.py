"""Segmentation of a document: sections by headings, passages of a size that an encoder reads whole, sentences.

`split_passages` keeps paragraphs whole where they fit, and cuts longer ones between sentences. `find_sentence_spans` is
good enough to remove a sentence from its paragraph. Both take time linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

Span = tuple[int, int]
# A full stop and closing marks, or an empty line. `_is_sentence_end` checks for a space after it: inside the pattern,
# that check would take cubic time on a long row of dots.
_END = re.compile(r"[.!?…]+[\"'”’)\]]*|[。！？]+[”’」』]*|\n[^\S\n]*(?=\n)")
_WORD_BEFORE = re.compile(r"[\w.]{0,12}$")
_ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof st vs etc e.g i.e eg ie fig figs eq eqs ref refs no nos al cf inc ltd jr sr approx dept vol pp p
    ed eds ch sec resp ca viz u.s u.k a.m p.m jan feb mar apr jun jul aug sep sept oct nov dec
    """.split()  # noqa: SIM905 - a paragraph of words
)
_OPENS = re.compile(r"\s*[\"'“‘(\[«]*")
_FENCE = re.compile(r"^\s{0,3}(```|~~~)")
_HASHES = re.compile(r"^\s{0,3}#{1,6}\s")
_UNDERLINE = re.compile(r"^\s{0,3}(={3,}|-{3,})\s*$")
# "2.1 Boundary layers": a number, a capital, a short line without the mark of a sentence
_NUMBERED = re.compile(r"^\s*(?:\d{1,2}(?:\.\d{1,2}){0,3}\.?|[IVX]{1,5}\.)\s+([^\W\d_].{1,80})$")
_HEADING_WORDS = 12
_WORD = re.compile(r"\S+")
_EMPTY_LINE = re.compile(r"\n[^\S\n]*\n\s*")
# A shorter paragraph is not a passage by itself: it says less than a heading.
MIN_PASSAGE_WORDS = 20


@dataclass(frozen=True, slots=True)
class DocumentSection:
    """Section of a document. `heading` is empty before the first heading."""

    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class DocumentPassage:
    """Passage of a document. `section` is the number of its section from 0, `heading` that section's heading."""

    text: str
    heading: str
    section: int


def split_passages(text: str, max_words: int) -> list[DocumentPassage]:
    """Return passages of about `max_words` at most, in order; paragraphs stay whole where they fit.

    A short paragraph is joined to the next one of its section. A rest of fewer than 20 words at the end of a section is
    joined to the passage before it, or dropped. A text without other passages is one passage.
    """
    passages: list[DocumentPassage] = []
    for number, section in enumerate(split_sections(text)):
        pieces = [
            piece for paragraph in _EMPTY_LINE.split(section.text) for piece in _split_paragraph(paragraph, max_words)
        ]
        passages += [DocumentPassage(joined, section.heading, number) for joined in _join_pieces(pieces, max_words)]
    return passages or [DocumentPassage(text.strip(), "", 0)] * bool(text.strip())


def split_sections(text: str) -> list[DocumentSection]:
    """Return the sections between headings (Markdown's, or numbered lines that stand alone), without empty ones."""
    sections: list[DocumentSection] = []
    heading, lines = "", list[str]()
    for line, name in _iter_lines(text):
        if name is None:
            lines.append(line)
            continue
        _close_section(sections, heading, lines)
        heading, lines = name, []
    _close_section(sections, heading, lines)
    return sections


def _iter_lines(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield each line with its heading, if it is one. Fenced code has no headings."""
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
        name = None if fenced else _read_heading(line, following, alone=number == 0 or not lines[number - 1].strip())
        # the line that underlines a heading is not text
        skip = name is not None and bool(_UNDERLINE.match(following))
        yield line, name


def _read_heading(line: str, following: str, *, alone: bool) -> str | None:
    if _HASHES.match(line) and (name := line.strip().strip("#").strip()):
        return name
    short = bool(line.strip()) and len(line.split()) <= _HEADING_WORDS and line.rstrip()[-1] not in ".,;:!?"
    if not short or not alone:
        return None
    if _UNDERLINE.match(following):
        return line.strip()
    numbered = _NUMBERED.match(line)
    return numbered[1].strip() if numbered and numbered[1][0].isupper() and not following.strip() else None


def _close_section(sections: list[DocumentSection], heading: str, lines: list[str]) -> None:
    text = "\n".join(lines).strip()
    if text:
        sections.append(DocumentSection(heading, text))


def _split_paragraph(paragraph: str, max_words: int) -> list[str]:
    """Split a paragraph into runs of whole sentences of at most `max_words`; cut longer sentences between words."""
    if len(paragraph.split()) <= max_words:
        return [paragraph.strip()] if paragraph.strip() else []
    parts: list[str] = []
    first, end, count = 0, 0, 0
    for start, stop, size in _iter_spans(paragraph, max_words):
        if count and count + size > max_words:
            parts.append(paragraph[first:end])
            count = 0
        first = first if count else start
        end, count = stop, count + size
    parts.append(paragraph[first:end])
    return parts


def _iter_spans(paragraph: str, max_words: int) -> Iterator[tuple[int, int, int]]:
    """Yield sentences, or parts of sentences that are too long, with their number of words."""
    for start, stop in find_sentence_spans(paragraph):
        words = [(match.start(), match.end()) for match in _WORD.finditer(paragraph, start, stop)]
        for first in range(0, len(words), max_words):
            part = words[first : first + max_words]
            yield part[0][0], part[-1][1], len(part)


def _join_pieces(pieces: list[str], max_words: int) -> list[str]:
    joined: list[str] = []
    pending = ""
    for piece in pieces:
        candidate = f"{pending}\n\n{piece}" if pending else piece
        if pending and len(candidate.split()) > max_words and len(pending.split()) >= MIN_PASSAGE_WORDS:
            joined.append(pending)
            candidate = piece
        pending = candidate
        if len(pending.split()) >= max_words // 2:
            joined.append(pending)
            pending = ""
    if len(pending.split()) >= MIN_PASSAGE_WORDS:
        joined.append(pending)
    elif pending and joined:
        joined[-1] = f"{joined[-1]}\n\n{pending}"
    return joined


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text."""
    return [text[start:end] for start, end in find_sentence_spans(text)]


def find_sentence_spans(text: str) -> list[Span]:
    """Return the start and end of each sentence, without the white space between them.

    A full stop ends a sentence when a capital, a digit or a mark follows (anything, in a text without capitals), and no
    abbreviation or initial precedes it. A full stop after a space always ends a sentence, as in tokenised texts.
    """
    lower = text == text.lower()
    spans: list[Span] = []
    start = 0
    for match in _END.finditer(text):
        if _is_sentence_end(text, match, lower):
            _add_span(spans, text, start, match.end())
            start = match.end()
    _add_span(spans, text, start, len(text))
    return spans


def _is_sentence_end(text: str, match: re.Match[str], lower: bool) -> bool:
    mark = match.group()
    if mark[0] in "\n。！？":
        return True
    if match.end() < len(text) and not text[match.end()].isspace():
        return False
    if mark[0] in "!?…":
        return True
    before = match.start()
    if before and text[before - 1].isspace():
        return True
    opened = _OPENS.match(text, match.end())
    following = text[opened.end() : opened.end() + 1] if opened else ""
    # letters of scripts without capitals are not lower case either
    if following.islower() and not lower:
        return False
    word = _WORD_BEFORE.search(text, max(0, before - 12), before)
    name = word.group().lower() if word else ""
    return not (mark == "." and (name in _ABBREVIATIONS or (len(name) == 1 and name.isalpha())))


def _add_span(spans: list[Span], text: str, start: int, end: int) -> None:
    part = text[start:end]
    left = len(part) - len(part.lstrip())
    if part.strip():
        spans.append((start + left, start + len(part.rstrip())))
