"""What OpenSearch must answer, computed from nothing but the definition, in plain Python.

Sources, Lucene 10: FeatureField (a weight is the frequency `floatToIntBits(w) >>> 15`), FeatureField.LinearFunction
(`boost * weight` in float32), DisjunctionSumScorer, WANDScorer and MaxScoreBulkScorer (clause scores are added in
double and the sum is cast to float32). The order of addition is the scorer's business, so a predicted score is the
short interval of float32 values that some order can give: of a single value nearly always.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Vector = Mapping[int, float]

# Largest relative error of one addition of doubles.
_HALF_ULP = 2.0**-53


def float32(value: float) -> float:
    """The nearest float32, ties to even, as Java's `(float)` of a double; too large becomes infinite."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def stored(weight: float) -> float:
    """The weight that comes back from Lucene: 8 bits of exponent and 8 of mantissa."""
    bits: int = struct.unpack("<I", struct.pack("<f", weight))[0]
    return float(struct.unpack("<f", struct.pack("<I", bits >> 15 << 15))[0])


@dataclass(frozen=True)
class Score:
    """A predicted score: every float32 from `low` to `high` is right; `nearest` is the exact sum, rounded once."""

    nearest: float
    low: float
    high: float

    def allows(self, score: float) -> bool:
        return self.low <= score <= self.high


def score(query: Vector, document: Vector) -> Score | None:
    """The score of a document for query weights by id; None when they share no id, because then it is no hit."""
    small, large = sorted((query, document), key=len)
    shared = [i for i in small if i in large]
    if not shared:
        return None
    parts = [float32(float32(query[i]) * stored(document[i])) for i in shared]
    total = math.fsum(parts)
    # n positive numbers, in any order: n - 1 roundings.
    slack = 1.0 + (len(parts) - 1) * _HALF_ULP
    return Score(float32(total), float32(total / slack), float32(total * slack))


class Oracle:
    """The scores of many documents."""

    def __init__(self, documents: Mapping[str, Vector]) -> None:
        self._documents = documents
        self._holders: dict[int, list[str]] = {}
        for name, document in documents.items():
            for i in document:
                self._holders.setdefault(i, []).append(name)

    def scores(self, query: Vector) -> dict[str, Score]:
        """The score of every document that shares a piece with the query."""
        names = {name for i in query for name in self._holders.get(i, ())}
        found = {name: score(query, self._documents[name]) for name in names}
        return {name: value for name, value in found.items() if value is not None}


def check(expected: Mapping[str, Score], hits: Sequence[tuple[str, float]], size: int) -> None:
    """Asserts that `hits` (id and score in the order of the answer) are the `size` best of `expected`.

    Every score is right to the bit (up to the order of addition), the order is right up to ties, nothing better was
    left out, and nothing is there twice.
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
