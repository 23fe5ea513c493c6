"""Query suggestions: completions of typed text, and the popularity of queries. No I/O.

- Completions locate the typed words in a suggested text, independent of case and accents.
- Popularity counts learned queries. A count halves every `HALF_LIFE_DAYS` without any write: the stored rank is the
  logarithm of the count at a fixed moment (forward decay), so ranks of different ages can be compared directly.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from services.errors import InvalidInput

MAX_TYPED_CHARACTERS: Final = 100

HALF_LIFE_DAYS: Final = 30.0
# A learned query is deleted once its count has decayed below this.
FORGOTTEN_COUNT: Final = 0.5
_HALF_LIFE_MS: Final = HALF_LIFE_DAYS * 24 * 3600 * 1000
# Signs of personal data: e-mail addresses, and numbers of people, cards, telephones or accounts, which may have any
# separators between the digits.
_PERSONAL: Final = re.compile(r"@|(?:\d[\W_]*){6,}")

# Letters that OpenSearch's `asciifolding` replaces and Unicode does not decompose.
_FOLDED: Final = {"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i", "’": "'"}
_WORD: Final = re.compile(r"[^\W_]+")


class TextSpan(NamedTuple):
    """Characters `start` to `end` (exclusive) of a text."""

    start: int
    end: int


def clean_typed_text(typed: str) -> str:
    """Return typed text without leading spaces and with control characters replaced by spaces.

    Raises InvalidInput (`query_too_long`).
    """
    if len(typed) > MAX_TYPED_CHARACTERS:
        raise InvalidInput(
            "query_too_long", f"Up to {MAX_TYPED_CHARACTERS} characters can be completed; `q` has {len(typed):,}."
        )
    return "".join(" " if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in typed).lstrip()


def fold_text(text: str) -> str:
    """Return the text without case, accents and repeated spaces. Texts that fold alike are one suggestion."""
    return " ".join(_fold_with_positions(text)[0].split())


def locate_typed_words(text: str, typed: str) -> list[TextSpan]:
    """Return where the words of `typed` stand in a text; the last word may be a prefix.

    Adjacent words in the typed order take precedence over words found one by one. A misspelt word is not located.
    """
    folded, positions = _fold_with_positions(text)
    typed_words = [match[0] for match in _WORD.finditer(_fold_with_positions(typed)[0])]
    if not typed_words:
        return []
    open_end = not typed[-1:].isspace()
    words = [(match[0], match.start()) for match in _WORD.finditer(folded)]
    spans = _find_adjacent_words(words, typed_words, open_end=open_end) or _find_single_words(
        words, typed_words, open_end=open_end
    )
    positions.append(len(text))
    # A combining accent after a letter belongs to the span.
    return [TextSpan(positions[start], max(positions[end - 1] + 1, positions[end])) for start, end in sorted(spans)]


_Words = Sequence[tuple[str, int]]


def _find_adjacent_words(words: _Words, typed_words: Sequence[str], *, open_end: bool) -> list[TextSpan]:
    for first in range(len(words) - len(typed_words) + 1):
        window = words[first : first + len(typed_words)]
        if all(_matches_word(word, typed_words, at, open_end=open_end) for at, (word, _) in enumerate(window)):
            return [TextSpan(start, start + len(typed_words[at])) for at, (_, start) in enumerate(window)]
    return []


def _find_single_words(words: _Words, typed_words: Sequence[str], *, open_end: bool) -> list[TextSpan]:
    spans: dict[int, TextSpan] = {}
    for at in range(len(typed_words)):
        for place, (word, start) in enumerate(words):
            if place not in spans and _matches_word(word, typed_words, at, open_end=open_end):
                spans[place] = TextSpan(start, start + len(typed_words[at]))
                break
    return list(spans.values())


def _matches_word(word: str, typed_words: Sequence[str], at: int, *, open_end: bool) -> bool:
    is_open = open_end and at == len(typed_words) - 1
    return word.startswith(typed_words[at]) if is_open else word == typed_words[at]


def _fold_with_positions(text: str) -> tuple[str, list[int]]:
    """Return the text without case and accents, and the original position of each remaining character."""
    letters: list[str] = []
    positions: list[int] = []
    for position, character in enumerate(text):
        for letter in unicodedata.normalize("NFKD", character).casefold():
            if unicodedata.category(letter) == "Mn":
                continue
            plain = _FOLDED.get(letter, letter)
            letters.append(plain)
            positions += [position] * len(plain)
    return "".join(letters), positions


def normalise_query(query: str) -> str:
    """Return the form under which a query is counted, independent of case and spacing."""
    return " ".join(unicodedata.normalize("NFC", query).split()).lower()


def learnable_query(query: str) -> str | None:
    """Return the form under which a query is counted, or None for a query that must not be kept.

    Long queries are not kept, nor queries with an `@` or six digits in a row, with any separators and in any form of
    digits (full width, …).
    """
    if len(query) > MAX_TYPED_CHARACTERS:
        return None
    plain = normalise_query(query)
    kept = (
        len(plain) <= MAX_TYPED_CHARACTERS
        and any(letter.isalnum() for letter in plain)
        and all(letter.isprintable() for letter in plain)
    )
    return plain if kept and not _PERSONAL.search(unicodedata.normalize("NFKC", plain)) else None


def popularity_rank(count: float, now: int) -> float:
    """Return the rank of `count` occurrences at `now` (milliseconds since 1970)."""
    return math.log2(count) + now / _HALF_LIFE_MS


def update_rank(before: float | None, times: int, now: int) -> float:
    """Return the rank of a query of rank `before` (None: new) after `times` more occurrences."""
    return popularity_rank(times + (0.0 if before is None else decayed_count(before, now)), now)


def decayed_count(rank: float, now: int) -> float:
    """Return the count at `now` that belongs to a rank."""
    return float(2 ** min(rank - now / _HALF_LIFE_MS, 60.0))


class QueryCounter:
    """Counts of queries since the last `take`, for at most `max_queries` different queries; others are not counted.

    A full counter replaces nothing. Sketches of frequent items (Space-Saving) take over the count of a replaced item,
    and a query that was sent once must not look as if three people had sent it.
    """

    def __init__(self, max_queries: int) -> None:
        self._max_queries = max_queries
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def count(self, index: str, lineage: str, query: str, times: int = 1) -> None:
        """Count a query of an index, in the form of `learnable_query`."""
        key = (index, lineage, query)
        if key in self._counts or len(self._counts) < self._max_queries:
            self._counts[key] += times

    def drain(self) -> Mapping[tuple[str, str, str], int]:
        """Return the counts by index, lineage and query, and start again from zero."""
        counts, self._counts = self._counts, Counter()
        return counts

    def forget(self, index: str, query: str | None) -> None:
        """Drop the counts of an index: the counts of `query` in any case and with any accents, or all counts (None)."""
        folded = None if query is None else fold_text(query)
        for key in [key for key in self._counts if key[0] == index and folded in (None, fold_text(key[2]))]:
            del self._counts[key]

    def __len__(self) -> int:
        return len(self._counts)
