"""Predict the scores of OpenSearch from the definition alone.

`score` implements the definition in plain Python. `Oracle` computes the scores of many documents with arrays.
test_oracle.py compares the two.

Sources, Lucene 10: FeatureField (a weight is the frequency `floatToIntBits(w) >>> 15`), FeatureField.LinearFunction
(`boost * weight` in float32), DisjunctionSumScorer, WANDScorer and MaxScoreBulkScorer (clause scores are added in
double and the sum is cast to float32). The scorer chooses the order of addition. A predicted score is therefore the
short interval of float32 values that the orders can give, nearly always a single value.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = Mapping[int, float]

# The largest relative error of one addition of doubles.
_HALF_ULP = 2.0**-53


def float32(value: float) -> float:
    """Return the nearest float32, ties to even, as Java's `(float)` cast of a double does.

    A value that is too large becomes infinite.
    """
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def stored(weight: float) -> float:
    """Return the weight that Lucene stores: 8 bits of exponent and 8 of mantissa."""
    bits: int = struct.unpack("<I", struct.pack("<f", weight))[0]
    return float(struct.unpack("<f", struct.pack("<I", bits >> 15 << 15))[0])


class Score(NamedTuple):
    """A predicted score: every float32 from `low` to `high` is right. `nearest` is the exact sum, rounded once."""

    nearest: float
    low: float
    high: float

    def allows(self, score: float) -> bool:
        return self.low <= score <= self.high


def score(query: Vector, document: Vector) -> Score | None:
    """Return the score of a document for query weights by id.

    Return None if they share no id, because the document is then no hit.
    """
    small, large = sorted((query, document), key=len)
    shared = [i for i in small if i in large]
    if not shared:
        return None
    parts = [float32(float32(query[i]) * stored(document[i])) for i in shared]
    total = math.fsum(parts)
    # The sum of n positive numbers has n - 1 roundings in any order.
    slack = 1.0 + (len(parts) - 1) * _HALF_ULP
    return Score(float32(total), float32(total / slack), float32(total * slack))


class Oracle:
    """Predict the scores of many documents."""

    def __init__(self, documents: Mapping[str, Vector]) -> None:
        self._names = list(documents)
        holders: dict[int, tuple[list[int], list[float]]] = {}
        for position, document in enumerate(documents.values()):
            for i, weight in document.items():
                positions, weights = holders.setdefault(i, ([], []))
                positions.append(position)
                weights.append(weight)
        self._postings = {
            i: (np.array(positions, np.int64), _stored_all(weights)) for i, (positions, weights) in holders.items()
        }

    def scores(self, query: Vector) -> dict[str, Score]:
        """Return the score of every document that shares a token with the query, as `score` computes it."""
        shared = [(*self._postings[i], weight) for i, weight in query.items() if i in self._postings]
        if not shared:
            return {}
        # A product beyond float32 is infinite, and a product below its normal numbers is denormal. Java gives the same
        # results.
        with np.errstate(over="ignore", under="ignore"):
            products = np.concatenate([np.float32(weight) * stored for _, stored, weight in shared])
        holders = np.concatenate([positions for positions, _, _ in shared])
        order = np.argsort(holders, kind="stable")
        found, starts, counts = np.unique(holders[order], return_index=True, return_counts=True)
        parts: list[float] = products[order].tolist()
        ends = (starts + counts).tolist()
        totals = np.array([math.fsum(parts[start:end]) for start, end in zip(starts.tolist(), ends, strict=True)])
        slack = 1.0 + (counts - 1) * _HALF_ULP
        with np.errstate(over="ignore", under="ignore"):
            nearest, low, high = (
                value.astype(np.float32).tolist() for value in (totals, totals / slack, totals * slack)
            )
        names = (self._names[n] for n in found.tolist())
        return dict(zip(names, map(Score, nearest, low, high), strict=True))


def _stored_all(weights: Sequence[float]) -> NDArray[np.float32]:
    """Return `stored` of each weight."""
    return (np.array(weights, np.float32).view(np.uint32) >> 15 << 15).view(np.float32)


def check(expected: Mapping[str, Score], hits: Sequence[tuple[str, float]], size: int) -> None:
    """Assert that `hits` (id and score in the order of the response) are the `size` best documents of `expected`.

    Every score is exact up to the order of addition. The order is right up to ties. No better document is missing, and
    no document occurs twice.
    """
    names = [name for name, _ in hits]
    assert len(hits) == min(size, len(expected)), f"{len(hits)} hits of {len(expected)}, asked for {size}"
    assert len(set(names)) == len(names), "the same document twice"
    for name, value in hits:
        assert name in expected, f"{name} shares no piece with the query"
        assert expected[name].allows(value), f"{name}: {value!r} is not in {expected[name]}"
    values = [value for _, value in hits]
    assert values == sorted(values, reverse=True), "not in order of score"
    if len(hits) < len(expected):
        rest = max(expected[name].low for name in expected.keys() - set(names))
        assert rest <= values[-1], f"a document with at least {rest!r} was left out; the last hit has {values[-1]!r}"
