"""A transcript that is text: its paragraphs are segments without times."""

import re

import orjson

from services.errors import InvalidInput
from services.talk.row import Row, check_count, one_line
from services.talk.speakers import without_prefixes

_BLANK = re.compile(r"\n[^\S\n]*\n")
# How a file begins that is something else: times and tags would be indexed as words.
_WEBVTT = re.compile(r"WEBVTT(?:\s|$)")
_SUBRIP = re.compile(r"(?:\d+\s*\n)?\s*(?:\d+:)?\d+:\d\d[.,]\d+\s*-->")
_MARKUP = re.compile(r"<(?:!doctype|html|\?xml)\b", re.IGNORECASE)
_BREAK = re.compile(r"\r\n?|[\u2028\u2029\x85]")


def paragraphs(content: str) -> list[Row]:
    """A segment each line where names stand before what is said, else each paragraph (what blank lines part), or each
    line of a text without blank ones.

    Raises InvalidInput (`bad_transcript`) for what is no plain text, TooLarge (`too_many_segments`).
    """
    text = _BREAK.sub("\n", content.lstrip("\ufeff"))
    if other := _other(text.lstrip()):
        raise InvalidInput(
            "bad_transcript", f"The text is {other}, not plain text: send it as a `transcript` with its type."
        )
    lines = [line for line in map(one_line, text.split("\n")) if line]
    check_count(len(lines))
    by_line = _rows(lines)
    named = without_prefixes(by_line)
    if any(row.speaker for row in named) or not _BLANK.search(text.strip()):
        return named
    return _rows([part for part in map(one_line, _BLANK.split(text)) if part])


def _other(text: str) -> str | None:
    """What a text is that is not plain."""
    if _WEBVTT.match(text) and "-->" in text:
        return "WebVTT"
    if _SUBRIP.match(text):
        return "SubRip"
    if _MARKUP.match(text):
        return "HTML or XML"
    if not text.startswith(("{", "[")):
        return None
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:  # "[Music] Good morning."
        return None
    return "JSON"


def _rows(parts: list[str]) -> list[Row]:
    return [Row(part, sent=i, ends_paragraph=True) for i, part in enumerate(parts)]
