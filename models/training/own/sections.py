"""Cuts a document into sections by its headings, and sections into passages of a size that an encoder reads whole.

Cuts text into sentences, well enough to take one out of a paragraph. Takes time linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

Span = tuple[int, int]

# A full stop, and what may close after it; or an empty line. (That a space follows is asked afterwards: inside the
# pattern it would make a long row of dots take cubic time.)
_END = re.compile(r"[.!?…]+[\"'”’)\]]*|[。！？]+[”’」』]*|\n[^\S\n]*(?=\n)")
_WORD_BEFORE = re.compile(r"[\w.]{0,12}$")
_ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof st vs etc e.g i.e eg ie fig figs eq eqs ref refs no nos al cf inc ltd jr sr approx dept vol pp p
    ed eds ch sec resp ca viz u.s u.k a.m p.m jan feb mar apr jun jul aug sep sept oct nov dec
    """.split()  # noqa: SIM905 - a paragraph of words
)
_OPENS = re.compile(r"\s*[\"'“‘(\[«]*")


def find_sentence_spans(text: str) -> list[Span]:
    """Where each sentence begins and ends, without the white space between them; together they hold all the rest.

    A full stop ends one when a capital, a digit or a mark follows (anything, in a text without capitals), and not
    after an abbreviation or an initial; always when a space stands before it, as in texts that were tokenised.
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


def split_sentences(text: str) -> list[str]:
    """The sentences themselves."""
    return [text[start:end] for start, end in find_sentence_spans(text)]


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
    # (letters of scripts without capitals are not lower case either)
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


_FENCE = re.compile(r"^\s{0,3}(```|~~~)")
_HASHES = re.compile(r"^\s{0,3}#{1,6}\s")
_UNDERLINE = re.compile(r"^\s{0,3}(={3,}|-{3,})\s*$")
# "2.1 Boundary layers": a number, a capital, a short line that ends like no sentence
_NUMBERED = re.compile(r"^\s*(?:\d{1,2}(?:\.\d{1,2}){0,3}\.?|[IVX]{1,5}\.)\s+([^\W\d_].{1,80})$")
_HEADING_WORDS = 12
_WORD = re.compile(r"\S+")
_EMPTY_LINE = re.compile(r"\n[^\S\n]*\n\s*")
# A paragraph shorter than this is no passage of its own: a heading says more than it does.
MIN_PASSAGE_WORDS = 20


@dataclass(frozen=True, slots=True)
class DocumentSection:
    """`heading` is empty for what stands before the first one."""

    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class DocumentPassage:
    """A piece of a document. `section` counts from 0; `heading` is that of its section."""

    text: str
    heading: str
    section: int


def split_sections(text: str) -> list[DocumentSection]:
    """The parts between headings (Markdown's, or numbered lines that stand alone), those without text left out."""
    found: list[DocumentSection] = []
    heading, lines = "", list[str]()
    for line, name in _iter_lines(text):
        if name is None:
            lines.append(line)
            continue
        _close_section(found, heading, lines)
        heading, lines = name, []
    _close_section(found, heading, lines)
    return found


def split_passages(text: str, most_words: int) -> list[DocumentPassage]:
    """Passages of about `most_words` at most, in order; paragraphs stay whole where they fit.

    A short paragraph is joined to the next one of its section. What is left at the end of a section and is shorter
    than 20 words is joined to the passage before it, or is none. A text that has no more than that is one passage.
    """
    found: list[DocumentPassage] = []
    for number, section in enumerate(split_sections(text)):
        pieces = [
            piece for paragraph in _EMPTY_LINE.split(section.text) for piece in _split_paragraph(paragraph, most_words)
        ]
        found += [DocumentPassage(joined, section.heading, number) for joined in _join_pieces(pieces, most_words)]
    return found or [DocumentPassage(text.strip(), "", 0)] * bool(text.strip())


def _iter_lines(text: str) -> Iterator[tuple[str, str | None]]:
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
        name = None if fenced else _read_heading(line, following, alone=number == 0 or not lines[number - 1].strip())
        # (the line that underlines a heading is no text)
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


def _close_section(found: list[DocumentSection], heading: str, lines: list[str]) -> None:
    text = "\n".join(lines).strip()
    if text:
        found.append(DocumentSection(heading, text))


def _split_paragraph(paragraph: str, most_words: int) -> list[str]:
    """A paragraph in parts of whole sentences with at most `most_words`; a longer sentence is cut between words."""
    if len(paragraph.split()) <= most_words:
        return [paragraph.strip()] if paragraph.strip() else []
    parts: list[str] = []
    first, end, count = 0, 0, 0
    for start, stop, size in _iter_spans(paragraph, most_words):
        if count and count + size > most_words:
            parts.append(paragraph[first:end])
            count = 0
        first = first if count else start
        end, count = stop, count + size
    parts.append(paragraph[first:end])
    return parts


def _iter_spans(paragraph: str, most_words: int) -> Iterator[tuple[int, int, int]]:
    """Sentences, or parts of one that is too long, with their number of words."""
    for start, stop in find_sentence_spans(paragraph):
        found = [(match.start(), match.end()) for match in _WORD.finditer(paragraph, start, stop)]
        for place in range(0, len(found), most_words):
            part = found[place : place + most_words]
            yield part[0][0], part[-1][1], len(part)


def _join_pieces(pieces: list[str], most_words: int) -> list[str]:
    joined: list[str] = []
    held = ""
    for piece in pieces:
        both = f"{held}\n\n{piece}" if held else piece
        if held and len(both.split()) > most_words and len(held.split()) >= MIN_PASSAGE_WORDS:
            joined.append(held)
            both = piece
        held = both
        if len(held.split()) >= most_words // 2:
            joined.append(held)
            held = ""
    if len(held.split()) >= MIN_PASSAGE_WORDS:
        joined.append(held)
    elif held and joined:
        joined[-1] = f"{joined[-1]}\n\n{held}"
    return joined
