"""The coefficients of `sparsewell plan` (cli.planning.costs), fitted by least squares on measured indexes. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from cli.planning.costs import MILLION, MODES, Coefficients, Cost, Line, SearchCost, waiting


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


@dataclass(frozen=True, slots=True)
class UnderLoad:
    """One index asked at a rate: p99, the share of all cores that was busy, and p99 of the same asked one at a time."""

    busy: float
    p99: float
    alone: float

    @property
    def at_random(self) -> float:
        return self.p99 / self.alone / waiting(self.busy)


def fitted(points: Sequence[Observed], load: Sequence[UnderLoad]) -> Coefficients:
    """The coefficients. Raises ValueError for points that do not tell them apart."""
    pieces = [float(one.pieces) for one in points]
    if len(set(pieces)) < 2 or len({one.documents for one in points}) < 2 or len({one.shards for one in points}) < 2:
        raise ValueError("a fit needs two lengths of document, two sizes and two numbers of shards")
    if not load:
        raise ValueError("a fit needs an index that was asked at a rate")
    return Coefficients(
        round(float(np.mean([one.pieces / one.words for one in points])), 3),
        _line(pieces, [one.stored / one.documents for one in points]),
        _line(pieces, [one.searched / one.documents for one in points]),
        {mode: _cost(points, mode) for mode in MODES},
        round(float(np.mean([one.at_random for one in load])), 3),
    )


def _cost(points: Sequence[Observed], mode: str) -> SearchCost:
    rows = [one.modes[mode] for one in points]
    ones, shards = np.ones(len(points)), np.array([one.shards for one in points])
    documents = np.array([one.documents / MILLION for one in points])
    return SearchCost(
        Cost(*_positive([ones, shards, documents], [row["node"] for row in rows])),
        round(float(np.mean([row["api"] for row in rows])), 4),
        Cost(*_positive([ones, shards, documents / shards], [row["p50"] for row in rows])),
        round(float(np.median([row["p99"] / row["p50"] for row in rows])), 3),
    )


def _line(xs: Sequence[float], ys: Sequence[float]) -> Line:
    return Line(*_positive([np.ones(len(xs)), xs], ys))


def _positive(columns: Sequence[Sequence[float] | np.ndarray], wanted: Sequence[float]) -> list[float]:
    """Coefficients, none below 0, by relative error: a small index counts as much as a large one.

    Raises ValueError for a reading of nothing: what cost nothing was not measured.
    """
    readings = np.array(wanted)
    if not (np.isfinite(readings).all() and (readings > 0).all()):
        raise ValueError(f"a fit needs readings above 0, these are {readings.tolist()}")
    found, _ = nnls(np.column_stack(columns) / readings[:, None], np.ones(len(readings)))
    return [round(float(one), 4) for one in found]


def errors(of: Coefficients, one: Observed) -> dict[str, float]:
    """What the coefficients predict of an index, over what was measured of it."""
    found = {
        "stored": of.stored.at(one.pieces) * one.documents / one.stored,
        "searched": of.searched.at(one.pieces) * one.documents / one.searched,
    }
    for mode, cost in of.search.items():
        row = one.modes[mode]
        found[f"{mode} node"] = cost.node.of(one.documents, one.shards) / row["node"]
        found[f"{mode} api"] = cost.api / row["api"]
        clock = cost.p50(one.documents, one.shards, one.shards)
        found[f"{mode} p50"] = clock / row["p50"]
        found[f"{mode} p99"] = cost.tail * clock / row["p99"]
    return {name: round(value, 2) for name, value in found.items()}


def load_error(of: Coefficients, one: UnderLoad) -> float:
    """The same of p99 at a rate."""
    return round(of.at_random * one.alone * waiting(one.busy) / one.p99, 2)
