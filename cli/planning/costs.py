"""What searches and documents cost, by coefficients that were fitted on measured indexes. Pure.

bytes of a document   = floor + slope * pieces
processor of a search = fixed + by_shard * shards + by_million * documents / 10^6    (milliseconds, on data nodes)
clock of a search     = fixed + by_shard * turns + by_million * documents of a shard / 10^6     (milliseconds, alone)

Shards are asked side by side. Where they have fewer cores than they are, they take turns: on the two cores of the
measurement as many as there are shards, in a plan, which has more cores than shards, one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

MODES = ("sparse", "lexical", "hybrid")
MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Line:
    """floor + slope * x."""

    floor: float
    slope: float

    def at(self, x: float) -> float:
        return self.floor + self.slope * x


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds of a search, of the processor or of the clock."""

    fixed: float
    by_shard: float
    by_million: float

    def of(self, documents: float, shards: int) -> float:
        return self.fixed + self.by_shard * shards + self.by_million * documents / MILLION

    def faster(self, speed: float) -> "Cost":
        """On cores of another speed."""
        return Cost(self.fixed / speed, self.by_shard / speed, self.by_million / speed)


@dataclass(frozen=True, slots=True)
class SearchCost:
    """Of one mode, in milliseconds; see the module. `node`: processor of the data nodes; `api`: that of the API;
    `clock`: an answer where nothing waits; `tail`: p99 over p50 of the clock.
    """

    node: Cost
    api: float
    clock: Cost
    tail: float

    def p50(self, documents: float, shards: int, turns: int = 1) -> float:
        return self.clock.of(documents / shards, turns)


@dataclass(frozen=True, slots=True)
class Coefficients:
    """All that was fitted. Bytes are of one copy of a document by its pieces.

    `at_random`: how much longer p99 is where questions come when they come than where one follows the other, beside
    the waiting of 1 / (1 - busy).
    """

    pieces_a_word: float
    stored: Line
    searched: Line
    search: Mapping[str, SearchCost]
    at_random: float

    def p99(self, mode: str, documents: float, shards: int, busy: float) -> float:
        """Milliseconds within which 99 of 100 searches are answered, with this share of the cores busy."""
        cost = self.search[mode]
        return self.at_random * cost.tail * cost.p50(documents, shards) * waiting(busy)


def waiting(busy: float) -> float:
    """How much longer an answer takes where a share of the cores is busy: 1 / (1 - busy)."""
    return 1 / (1 - busy)
