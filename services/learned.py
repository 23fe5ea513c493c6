"""Queries that many ask: what of them may be kept, how often they were asked lately, and counting them. Pure.

A count halves every `HALF_LIFE_DAYS`. Nothing has to be written for that: `rank` is the logarithm of what the count
would have been at a fixed moment (forward decay), so of two queries the one with the higher rank has the higher count
at any time, and a count of today is a rank to compare with.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Final

from services.typed import MOST_TYPED, folded

HALF_LIFE_DAYS: Final = 30.0
# What counts less than this by now is forgotten.
FORGOTTEN: Final = 0.5
_HALF_LIFE_MS: Final = HALF_LIFE_DAYS * 24 * 3600 * 1000
# Most of what must not be kept of somebody shows: addresses, and numbers of people, cards, telephones, accounts.
# (numbers are written with all kinds of signs between the digits)
_PERSONAL: Final = re.compile(r"@|(?:\d[\W_]*){6,}")


def counted(query: str) -> str:
    """The form in which a query is counted: case and spaces do not count."""
    return " ".join(unicodedata.normalize("NFC", query).split()).lower()


def learnable(query: str) -> str | None:
    """The query in the form in which it is counted, None for one that is not kept.

    Not kept are long ones, and those with an `@` or six digits in a row, whatever signs stand between them and however
    they are written (full width, …).
    """
    if len(query) > MOST_TYPED:
        return None
    plain = counted(query)
    kept = len(plain) <= MOST_TYPED and any(one.isalnum() for one in plain) and all(one.isprintable() for one in plain)
    return plain if kept and not _PERSONAL.search(unicodedata.normalize("NFKC", plain)) else None


def rank(count: float, now: int) -> float:
    """The rank of a query that was asked so often, all of it now (milliseconds since 1970)."""
    return math.log2(count) + now / _HALF_LIFE_MS


def asked_again(before: float | None, times: int, now: int) -> float:
    """The rank of a query of rank `before` that was asked some times more."""
    return rank(times + (0.0 if before is None else count(before, now)), now)


def count(of: float, now: int) -> float:
    """What is left by now of the count behind a rank."""
    return float(2 ** min(of - now / _HALF_LIFE_MS, 60.0))


class QueryCounts:
    """How often queries were asked since they were last taken: at most `most` different ones, others are not counted.

    Nothing is replaced when it is full, as sketches do that keep the most frequent of a stream: they take over counts
    of others, and a query that was asked once must not look as if three people had.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def note(self, index: str, lineage: str, query: str, times: int = 1) -> None:
        """Counts a query of an index, in the form of `learnable`."""
        key = (index, lineage, query)
        if key in self._counts or len(self._counts) < self._most:
            self._counts[key] += times

    def take(self) -> Mapping[tuple[str, str, str], int]:
        """The counts by index, lineage and query; from now on they begin anew."""
        taken, self._counts = self._counts, Counter()
        return taken

    def forget(self, index: str, query: str | None) -> None:
        """Drops what was counted of a query of an index, whatever its case and accents, or of all of them."""
        wanted = None if query is None else folded(query)
        for key in [key for key in self._counts if key[0] == index and wanted in (None, folded(key[2]))]:
            del self._counts[key]

    def __len__(self) -> int:
        return len(self._counts)
