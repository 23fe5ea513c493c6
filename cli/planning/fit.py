"""Coefficients of what documents and searches cost, fitted by least squares on measured indexes. Pure.

bytes of a document   = base + by_piece * pieces
processor of a search = by_shard * shards + by_million * documents / 10^6    (milliseconds, on data nodes)
clock of a search     = floor + by_million * documents of a shard / 10^6     (milliseconds, nothing else under way)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MODES = ("sparse", "lexical", "hybrid")
_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Line:
    """floor + slope * x."""

    floor: float
    slope: float

    def at(self, x: float) -> float:
        return self.floor + self.slope * x


@dataclass(frozen=True, slots=True)
class SearchCost:
    """Of one mode, in milliseconds; see the module. `api`: processor of the API; `tail`: p99 over p50 of the clock."""

    node_by_shard: float
    node_by_million: float
    api: float
    clock: Line
    tail: float

    def node(self, documents: float, shards: int) -> float:
        """Processor of the data nodes for a search over `documents` in `shards`."""
        return self.node_by_shard * shards + self.node_by_million * documents / _MILLION

    def p50(self, documents: float, shards: int) -> float:
        """What an answer takes where nothing waits."""
        return self.clock.at(documents / shards / _MILLION)


@dataclass(frozen=True, slots=True)
class Coefficients:
    """All that was fitted. Bytes are of one copy of a document by its pieces."""

    pieces_a_word: float
    stored: Line
    searched: Line
    search: Mapping[str, SearchCost]


@dataclass(frozen=True, slots=True)
class Observed:
    """One measured index: documents of `pieces` pieces and `words` words on average; bytes of it in all, and of what
    searches read; by mode p50, p99, mean of the clock, and processor of `node` and `api`.
    """

    documents: int
    pieces: float
    shards: int
    words: float
    stored: int
    searched: int
    modes: Mapping[str, Mapping[str, float]]


def fitted(points: Sequence[Observed]) -> Coefficients:
    """The coefficients. Raises ValueError for points that do not tell them apart."""
    pieces = [float(one.pieces) for one in points]
    if len(set(pieces)) < 2 or len({one.documents for one in points}) < 2 or len({one.shards for one in points}) < 2:
        raise ValueError("a fit needs two lengths of document, two sizes and two numbers of shards")
    return Coefficients(
        round(float(np.mean([one.pieces / one.words for one in points])), 3),
        _line(pieces, [one.stored / one.documents for one in points]),
        _line(pieces, [one.searched / one.documents for one in points]),
        {mode: _cost(points, mode) for mode in MODES},
    )


def _cost(points: Sequence[Observed], mode: str) -> SearchCost:
    rows = [one.modes[mode] for one in points]
    matrix = np.array([[one.shards, one.documents / _MILLION] for one in points])
    by_shard, by_million = _positive(matrix, np.array([row["node"] for row in rows]))
    sizes = [one.documents / one.shards / _MILLION for one in points]
    return SearchCost(
        round(by_shard, 4),
        round(by_million, 4),
        round(float(np.mean([row["api"] for row in rows])), 4),
        _line(sizes, [row["p50"] for row in rows]),
        round(float(np.median([row["p99"] / row["p50"] for row in rows])), 3),
    )


def _line(xs: Sequence[float], ys: Sequence[float]) -> Line:
    floor, slope = _positive(np.column_stack([np.ones(len(xs)), xs]), np.array(ys))
    return Line(round(floor, 4), round(slope, 4))


def _positive(matrix: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Two coefficients, none below 0, by relative error: a small index counts as much as a large one."""
    scaled = matrix / wanted[:, None]
    ones = np.ones(len(wanted))
    both = np.linalg.lstsq(scaled, ones, rcond=None)[0]
    if (both >= 0).all():
        return float(both[0]), float(both[1])
    alone = [float(column @ ones / (column @ column)) for column in scaled.T]
    left = [float(((column * a - 1) ** 2).sum()) for column, a in zip(scaled.T, alone, strict=True)]
    return (alone[0], 0.0) if left[0] <= left[1] else (0.0, alone[1])


def errors(of: Coefficients, one: Observed) -> dict[str, float]:
    """What the coefficients predict of an index, over what was measured of it."""
    found = {
        "stored": of.stored.at(one.pieces) * one.documents / one.stored,
        "searched": of.searched.at(one.pieces) * one.documents / one.searched,
    }
    for mode, cost in of.search.items():
        row = one.modes[mode]
        found[f"{mode} node"] = cost.node(one.documents, one.shards) / row["node"]
        found[f"{mode} api"] = cost.api / row["api"]
        found[f"{mode} p50"] = cost.p50(one.documents, one.shards) / row["p50"]
        found[f"{mode} p99"] = cost.tail * cost.p50(one.documents, one.shards) / row["p99"]
    return {name: round(value, 2) for name, value in found.items()}
