"""What somebody has typed so far, and where it stands in what is suggested for it. Pure."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final, NamedTuple

from services.errors import InvalidInput

MOST_TYPED: Final = 100

# Letters that Unicode does not take apart and OpenSearch's `asciifolding` does.
_FOLDED: Final = {"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i", "’": "'"}
_WORD: Final = re.compile(r"[^\W_]+")


class Span(NamedTuple):
    """Characters `start` to `end` (exclusive) of a text."""

    start: int
    end: int


def cleaned(typed: str) -> str:
    """What was typed, without the spaces before it, control characters as spaces.

    Raises InvalidInput (`query_too_long`).
    """
    if len(typed) > MOST_TYPED:
        raise InvalidInput("query_too_long", f"Up to {MOST_TYPED} characters can be completed; `q` has {len(typed):,}.")
    return "".join(" " if unicodedata.category(one) in ("Cc", "Cs") else one for one in typed).lstrip()


def folded(text: str) -> str:
    """The text without case and accents, words one space apart: what is equal so is one suggestion."""
    return " ".join(_fold(text)[0].split())


def typed_parts(text: str, typed: str) -> list[Span]:
    """Where the words of `typed` stand in a text, the last one as far as it was typed.

    Words that stand there as they were typed, side by side, go before single ones; a misspelt one stands nowhere.
    """
    here, places = _fold(text)
    wanted = [found[0] for found in _WORD.finditer(_fold(typed)[0])]
    if not wanted:
        return []
    open_end = not typed[-1:].isspace()
    there = [(found[0], found.start()) for found in _WORD.finditer(here)]
    parts = _in_a_row(there, wanted, open_end=open_end) or _one_by_one(there, wanted, open_end=open_end)
    places.append(len(text))
    # (an accent that stands behind its letter belongs to it)
    return [Span(places[start], max(places[end - 1] + 1, places[end])) for start, end in sorted(parts)]


_Words = Sequence[tuple[str, int]]


def _fits(word: str, wanted: Sequence[str], at: int, *, open_end: bool) -> bool:
    is_open = open_end and at == len(wanted) - 1
    return word.startswith(wanted[at]) if is_open else word == wanted[at]


def _in_a_row(there: _Words, wanted: Sequence[str], *, open_end: bool) -> list[Span]:
    for first in range(len(there) - len(wanted) + 1):
        some = there[first : first + len(wanted)]
        if all(_fits(word, wanted, at, open_end=open_end) for at, (word, _) in enumerate(some)):
            return [Span(start, start + len(wanted[at])) for at, (_, start) in enumerate(some)]
    return []


def _one_by_one(there: _Words, wanted: Sequence[str], *, open_end: bool) -> list[Span]:
    found: dict[int, Span] = {}
    for at in range(len(wanted)):
        for place, (word, start) in enumerate(there):
            if place not in found and _fits(word, wanted, at, open_end=open_end):
                found[place] = Span(start, start + len(wanted[at]))
                break
    return list(found.values())


def _fold(text: str) -> tuple[str, list[int]]:
    """The text without case and accents, and the place in it of each character that is left."""
    letters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        for one in unicodedata.normalize("NFKD", character).casefold():
            if unicodedata.category(one) == "Mn":
                continue
            plain = _FOLDED.get(one, one)
            letters.append(plain)
            places += [place] * len(plain)
    return "".join(letters), places
