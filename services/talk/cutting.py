"""Long segments in parts, so that a chapter may begin within them."""

import re
from collections.abc import Iterator

from services.talk.row import Row
from services.talk.segments import UNKNOWN

LONGEST = 1500  # characters: about a minute and a half of talk; what is longer is cut
PART = 600  # characters of a part: some hundred words, of the size at which boundaries of chapters are looked for
_SENTENCE_END = re.compile(r"[.!?…][\"'”’»)\]]*(?= )|[。！？]")
# Scripts that are written without spaces, between whose characters none is put.
_UNSPACED = re.compile(r"[\u3000-\u312f\u31a0-\u9fff\uf900-\ufaff\uff00-\uffef]")


def cut(row: Row) -> Iterator[Row]:
    """The row itself unless it is longer than `LONGEST`; parts of `PART` characters where its words let it be cut."""
    parts = [row.text] if len(row.text) <= LONGEST else list(_parts(row.text))
    if len(parts) == 1:
        yield row
        return
    timed = UNKNOWN not in (row.start, row.end)
    at, whole = 0, len(row.text)
    for part in parts:
        start = row.start if at == 0 else UNKNOWN
        end = UNKNOWN
        if timed:
            length = row.end - row.start
            start, end = row.start + length * at // whole, row.start + length * (at + len(part)) // whole
        at += len(part)
        last = part is parts[-1]
        yield Row(part.strip(), start, end, row.speaker, row.sent, row.ends_paragraph and last)


def glued(before: str, after: str) -> bool:
    """Whether two texts are written without a space between them."""
    return bool(before and after and _UNSPACED.match(before[-1]) and _UNSPACED.match(after[0]))


def _parts(text: str) -> Iterator[str]:
    at = 0
    while len(text) - at > PART:
        place = _place(text, at)
        if place is None:
            break
        yield text[at:place]
        at = place
    yield text[at:]


def _place(text: str, at: int) -> int | None:
    """Where to cut after `at`: behind the last sentence that fits, else between words; behind the first word when none
    fits; None where there is nothing to cut at."""
    stretch = text[at : at + PART]
    sentences = [match.end() for match in _SENTENCE_END.finditer(stretch, PART // 3)]
    if sentences:
        return at + sentences[-1]
    space = stretch.rfind(" ", 1)
    if space > 0:
        return at + space
    if _UNSPACED.match(stretch[-1]) and _UNSPACED.match(text[at + PART]):
        return at + PART
    later = text.find(" ", at + PART)
    return None if later < 0 else later
