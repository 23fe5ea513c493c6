"""A query vector whose weights come from several origins: the words, earlier turns, documents that were fed back.

What each origin gave to a piece is kept, so that an explanation can say why a piece is in the query at all. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from services.query_table import HEAVIEST, QueryVector
from services.vectors import SMALLEST_WEIGHT

Weights = Mapping[int, float]

WORDS = "query"


@dataclass(frozen=True, slots=True)
class Share:
    """What one origin gives: weights by vocabulary id. Negative ones take away from what others give."""

    origin: str
    weights: Weights


@dataclass(frozen=True, slots=True)
class Blend:
    """A query and, of each of its pieces, what every origin gave to the weight; those add up to it."""

    vector: QueryVector
    origins: Mapping[int, Mapping[str, float]]

    @classmethod
    def of(cls, words: QueryVector) -> Self:
        """A query as the table made it."""
        return cls(words, {piece: {WORDS: weight} for piece, weight in words.by_id().items()})

    @property
    def weight(self) -> float:
        """Of all pieces together (L1): what shares are measured by."""
        return sum(self.vector.weights)

    def plus(self, shares: Sequence[Share], most: int, factor: float = 1.0) -> "Blend":
        """`factor` times this, and the shares. Shares without weights and the factor 1 change nothing.

        Pieces whose sum is not above zero are dropped: OpenSearch refuses a boost below zero, and Lucene takes one
        below the smallest normal float32 for zero. At most `most` pieces are kept: those that were there, then the
        heaviest new ones, of equal ones the lower id.
        """
        origins = {
            piece: {origin: weight * factor for origin, weight in given.items()}
            for piece, given in self.origins.items()
        }
        for share in shares:
            for piece, weight in share.weights.items():
                given = origins.setdefault(piece, {})
                given[share.origin] = given.get(share.origin, 0.0) + weight
        sums = {piece: min(sum(given.values()), HEAVIEST) for piece, given in origins.items()}
        kept = [piece for piece in origins if sums[piece] >= SMALLEST_WEIGHT]
        old = [piece for piece in kept if piece in self.origins]
        new = sorted((piece for piece in kept if piece not in self.origins), key=lambda piece: (-sums[piece], piece))
        order = (old + new)[:most]
        vector = replace(self.vector, ids=tuple(order), weights=tuple([sums[piece] for piece in order]))
        return Blend(vector, {piece: origins[piece] for piece in order})


def heaviest(weights: Weights, count: int) -> dict[int, float]:
    """The `count` heaviest pieces, heaviest first; of equal weights the lower id stays."""
    kept = sorted(weights, key=lambda piece: (-weights[piece], piece))[:count]
    return {piece: weights[piece] for piece in kept}
