"""Queries that many ask: what of them may be kept, how often they were asked lately, and counting them. Pure.

A count halves every `HALF_LIFE_DAYS`. Nothing has to be written for that: `rank` is the logarithm of what the count
would have been at a fixed moment (forward decay), so of two queries the one with the higher rank has the higher count
at any time, and a count of today is a rank to compare with.

Words of a query that an index does not have, and the words of the index that may have been meant. Pure.

What somebody has typed so far, and where it stands in what is suggested for it. Pure.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from services.errors import InvalidInput

# A word of fewer letters is not corrected: too many others are near.
MIN_WORD_CHARACTERS: Final = 4
# From so many letters on, two may be wrong.
_TWO_EDITS_CHARACTERS: Final = 6


@dataclass(frozen=True, slots=True)
class UnknownWord:
    """A word of the query, characters `start` to `end` (exclusive): as a term, and terms of the index that are near."""

    term: str
    start: int
    end: int
    near: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Correction:
    """A stretch of the query, and what may have been meant by it."""

    typed: str
    suggested: str
    start: int
    end: int


def find_corrections(query: str, unknown: Iterable[UnknownWord], documents: Mapping[str, int]) -> list[Correction]:
    """The nearest word for each that has one; of equally near ones that of most documents.

    `documents`: how many that may be found have a term. A word that some have is right as it is.
    """
    found = []
    for word in unknown:
        if documents.get(word.term):
            continue
        most = 2 if len(word.term) >= _TWO_EDITS_CHARACTERS else 1
        there = [(edit_distance(word.term, term), -documents[term], term) for term in word.near if documents.get(term)]
        best = min(there, default=None)
        if best is not None and best[0] <= most:
            found.append(Correction(query[word.start : word.end], best[2], word.start, word.end))
    return found


def apply_corrections(query: str, words: Sequence[Correction]) -> str:
    """The query with the suggested words in their places."""
    parts, at = [], 0
    for word in words:
        parts += [query[at : word.start], word.suggested]
        at = word.end
    return "".join([*parts, query[at:]])


def edit_distance(one: str, other: str) -> int:
    """Letters that are left out, put in, taken for another, or swapped with their neighbour (optimal alignment)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        earlier, before, row = before, row, [i]
        for j, wanted in enumerate(other, 1):
            least = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                least = min(least, earlier[j - 2] + 1)
            row.append(least)
    return row[-1]


MAX_TYPED_CHARACTERS: Final = 100

# Letters that Unicode does not take apart and OpenSearch's `asciifolding` does.
_FOLDED: Final = {"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i", "’": "'"}
_WORD: Final = re.compile(r"[^\W_]+")


class TextSpan(NamedTuple):
    """Characters `start` to `end` (exclusive) of a text."""

    start: int
    end: int


def clean_typed_text(typed: str) -> str:
    """What was typed, without the spaces before it, control characters as spaces.

    Raises InvalidInput (`query_too_long`).
    """
    if len(typed) > MAX_TYPED_CHARACTERS:
        raise InvalidInput(
            "query_too_long", f"Up to {MAX_TYPED_CHARACTERS} characters can be completed; `q` has {len(typed):,}."
        )
    return "".join(" " if unicodedata.category(one) in ("Cc", "Cs") else one for one in typed).lstrip()


def fold_text(text: str) -> str:
    """The text without case and accents, words one space apart: what is equal so is one suggestion."""
    return " ".join(_fold_with_positions(text)[0].split())


def locate_typed_words(text: str, typed: str) -> list[TextSpan]:
    """Where the words of `typed` stand in a text, the last one as far as it was typed.

    Words that stand there as they were typed, side by side, go before single ones; a misspelt one stands nowhere.
    """
    here, places = _fold_with_positions(text)
    wanted = [found[0] for found in _WORD.finditer(_fold_with_positions(typed)[0])]
    if not wanted:
        return []
    open_end = not typed[-1:].isspace()
    there = [(found[0], found.start()) for found in _WORD.finditer(here)]
    parts = _find_adjacent_words(there, wanted, open_end=open_end) or _find_single_words(
        there, wanted, open_end=open_end
    )
    places.append(len(text))
    # (an accent that stands behind its letter belongs to it)
    return [TextSpan(places[start], max(places[end - 1] + 1, places[end])) for start, end in sorted(parts)]


_Words = Sequence[tuple[str, int]]


def _matches_word(word: str, wanted: Sequence[str], at: int, *, open_end: bool) -> bool:
    is_open = open_end and at == len(wanted) - 1
    return word.startswith(wanted[at]) if is_open else word == wanted[at]


def _find_adjacent_words(there: _Words, wanted: Sequence[str], *, open_end: bool) -> list[TextSpan]:
    for first in range(len(there) - len(wanted) + 1):
        some = there[first : first + len(wanted)]
        if all(_matches_word(word, wanted, at, open_end=open_end) for at, (word, _) in enumerate(some)):
            return [TextSpan(start, start + len(wanted[at])) for at, (_, start) in enumerate(some)]
    return []


def _find_single_words(there: _Words, wanted: Sequence[str], *, open_end: bool) -> list[TextSpan]:
    found: dict[int, TextSpan] = {}
    for at in range(len(wanted)):
        for place, (word, start) in enumerate(there):
            if place not in found and _matches_word(word, wanted, at, open_end=open_end):
                found[place] = TextSpan(start, start + len(wanted[at]))
                break
    return list(found.values())


def _fold_with_positions(text: str) -> tuple[str, list[int]]:
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


HALF_LIFE_DAYS: Final = 30.0
# What counts less than this by now is forgotten.
FORGOTTEN_COUNT: Final = 0.5
_HALF_LIFE_MS: Final = HALF_LIFE_DAYS * 24 * 3600 * 1000
# Most of what must not be kept of somebody shows: addresses, and numbers of people, cards, telephones, accounts.
# (numbers are written with all kinds of signs between the digits)
_PERSONAL: Final = re.compile(r"@|(?:\d[\W_]*){6,}")


def normalise_query(query: str) -> str:
    """The form in which a query is counted: case and spaces do not count."""
    return " ".join(unicodedata.normalize("NFC", query).split()).lower()


def learnable_query(query: str) -> str | None:
    """The query in the form in which it is counted, None for one that is not kept.

    Not kept are long ones, and those with an `@` or six digits in a row, whatever signs stand between them and however
    they are written (full width, …).
    """
    if len(query) > MAX_TYPED_CHARACTERS:
        return None
    plain = normalise_query(query)
    kept = (
        len(plain) <= MAX_TYPED_CHARACTERS
        and any(one.isalnum() for one in plain)
        and all(one.isprintable() for one in plain)
    )
    return plain if kept and not _PERSONAL.search(unicodedata.normalize("NFKC", plain)) else None


def popularity_rank(count: float, now: int) -> float:
    """The rank of a query that was asked so often, all of it now (milliseconds since 1970)."""
    return math.log2(count) + now / _HALF_LIFE_MS


def update_rank(before: float | None, times: int, now: int) -> float:
    """The rank of a query of rank `before` that was asked some times more."""
    return popularity_rank(times + (0.0 if before is None else decayed_count(before, now)), now)


def decayed_count(of: float, now: int) -> float:
    """What is left by now of the count behind a rank."""
    return float(2 ** min(of - now / _HALF_LIFE_MS, 60.0))


class QueryCounter:
    """How often queries were asked since they were last taken: at most `most` different ones, others are not counted.

    Nothing is replaced when it is full, as sketches do that keep the most frequent of a stream: they take over counts
    of others, and a query that was asked once must not look as if three people had.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def note(self, index: str, lineage: str, query: str, times: int = 1) -> None:
        """Counts a query of an index, in the form of `learnable_query`."""
        key = (index, lineage, query)
        if key in self._counts or len(self._counts) < self._most:
            self._counts[key] += times

    def take(self) -> Mapping[tuple[str, str, str], int]:
        """The counts by index, lineage and query; from now on they begin anew."""
        taken, self._counts = self._counts, Counter()
        return taken

    def forget(self, index: str, query: str | None) -> None:
        """Drops what was counted of a query of an index, whatever its case and accents, or of all of them."""
        wanted = None if query is None else fold_text(query)
        for key in [key for key in self._counts if key[0] == index and wanted in (None, fold_text(key[2]))]:
            del self._counts[key]

    def __len__(self) -> int:
        return len(self._counts)
