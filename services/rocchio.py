"""Feedback: a query moved towards documents that are liked and away from those that are not (Rocchio, sparse).

    new query = alpha * query + beta * centroid(liked) - gamma * centroid(unliked)

Documents live in another space than queries, whose weights are the table's. So a document becomes a query by weighing
each of its pieces with the table too, as if it had been typed, and has unit length before documents are averaged. A
centroid is cut to its heaviest pieces and scaled: with beta 0.5 they weigh together half of what the query weighs,
however many documents and pieces there are. What was measured: docs/decisions/0155. Pure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.query_blend import Blend, Share, Weights, heaviest
from services.vectors import SparseVector

TableWeight = Callable[[int], float]

LIKE, UNLIKE, FEEDBACK = "like", "unlike", "feedback"
# How many of the best documents are taken for relevant unasked. Chosen by measurement, as all here: decision 0155.
DOCUMENTS: Final = 3


@dataclass(frozen=True, slots=True)
class Rocchio:
    """The parameters, none below zero. `pieces`: of each centroid, the heaviest."""

    alpha: float = 1.0
    beta: float = 0.5
    gamma: float = 0.25
    pieces: int = 20


def moved(
    query: Blend,
    rocchio: Rocchio,
    table: TableWeight,
    most: int,
    *,
    liked: Sequence[SparseVector] = (),
    unliked: Sequence[SparseVector] = (),
    origin: str = LIKE,
) -> Blend:
    """The query after feedback, at most `most` pieces; `origin` says where liked documents come from.

    `table` gives the query weight of a vocabulary id, 0 for one that it does not have. A weight below zero cannot be
    searched with, so what is unliked takes from the weights that are there, down to nothing, and adds nothing. A query
    without pieces of its own weighs what the liked pieces would had they been typed.
    """
    towards, away = centroid(liked, table), centroid(unliked, table)
    weight = query.weight or sum(map(table, heaviest(towards, rocchio.pieces)))
    shares = [
        share_of(origin, towards, rocchio.pieces, rocchio.beta * weight),
        share_of(UNLIKE, away, rocchio.pieces, -rocchio.gamma * weight),
    ]
    return query.plus(shares, most, rocchio.alpha)


def centroid(vectors: Sequence[SparseVector], table: TableWeight) -> dict[int, float]:
    """The mean of the vectors as queries, each of unit length; pieces of no weight in the table are left out.

    Empty without vectors. The order of the vectors does not matter, to the last bit.
    """
    ids, weights = [], []
    for vector in vectors:
        as_query = vector.weights.astype(np.float64) * np.array([table(i) for i in vector.ids.tolist()], np.float64)
        length = float(np.sqrt(np.square(as_query).sum()))
        if length > 0:
            ids.append(vector.ids[as_query > 0])
            weights.append(as_query[as_query > 0] / length)
    if not ids:
        return {}
    every_id, every_weight = np.concatenate(ids), np.concatenate(weights)
    # A sum of floats depends on the order of its terms; sorted terms have one order.
    order = np.lexsort((every_weight, every_id))
    pieces, starts = np.unique(every_id[order], return_index=True)
    means = np.add.reduceat(every_weight[order], starts) / len(ids)
    return dict(zip(pieces.tolist(), means.tolist(), strict=True))


def share_of(origin: str, towards: Weights, pieces: int, weight: float) -> Share:
    """The heaviest `pieces` of a centroid, scaled so that they weigh `weight` together."""
    kept = heaviest(towards, pieces)
    together = sum(kept.values())
    if together <= 0 or weight == 0:
        return Share(origin, {})
    return Share(origin, {piece: own / together * weight for piece, own in kept.items()})
