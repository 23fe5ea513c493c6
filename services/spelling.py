"""Words of a query that an index does not have, and the words of the index that may have been meant. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

# A word of fewer letters is not corrected: too many others are near.
SHORTEST: Final = 4
# From so many letters on, two may be wrong.
_TWO_WRONG: Final = 6


@dataclass(frozen=True, slots=True)
class Unknown:
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


def corrections(query: str, unknown: Iterable[Unknown], documents: Mapping[str, int]) -> list[Correction]:
    """The nearest word for each that has one; of equally near ones that of most documents.

    `documents`: how many that may be found have a term. A word that some have is right as it is.
    """
    found = []
    for word in unknown:
        if documents.get(word.term):
            continue
        most = 2 if len(word.term) >= _TWO_WRONG else 1
        there = [(distance(word.term, term), -documents[term], term) for term in word.near if documents.get(term)]
        best = min(there, default=None)
        if best is not None and best[0] <= most:
            found.append(Correction(query[word.start : word.end], best[2], word.start, word.end))
    return found


def corrected(query: str, words: Sequence[Correction]) -> str:
    """The query with the suggested words in their places."""
    parts, at = [], 0
    for word in words:
        parts += [query[at : word.start], word.suggested]
        at = word.end
    return "".join([*parts, query[at:]])


def distance(one: str, other: str) -> int:
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
