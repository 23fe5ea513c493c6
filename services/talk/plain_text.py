"""A transcript that is text: its paragraphs are segments without times."""

import re

from services.talk.row import Row, check_count, one_line
from services.talk.speakers import without_prefixes

_BLANK = re.compile(r"\n[^\S\n]*\n")
_BREAK = re.compile(r"\r\n?|[\u2028\u2029\x85]")


def paragraphs(content: str) -> list[Row]:
    """A segment each line where names stand before what is said, else each paragraph (what blank lines part), or each
    line of a text without blank ones. Raises TooLarge (`too_many_segments`).
    """
    text = _BREAK.sub("\n", content.lstrip("\ufeff"))
    lines = [line for line in map(one_line, text.split("\n")) if line]
    check_count(len(lines))
    by_line = _rows(lines)
    named = without_prefixes(by_line)
    if any(row.speaker for row in named) or not _BLANK.search(text.strip()):
        return named
    return _rows([part for part in map(one_line, _BLANK.split(text)) if part])


def _rows(parts: list[str]) -> list[Row]:
    return [Row(part, sent=i, ends_paragraph=True) for i, part in enumerate(parts)]
