"""Query expansion: pieces that feedback and earlier turns add to a sparse query, and pruning of light pieces.

A `QueryBlend` keeps the weight of each piece by origin, so that an explanation can say why a piece is in the query.

- Feedback is Rocchio on sparse vectors: new query = alpha * query + beta * centroid(liked) - gamma * centroid(unliked).
  Documents are weighted with the query table as if they had been typed, and have unit length before they are averaged.
  The parameters were measured (docs/decisions/0155).
- Context adds pieces of earlier turns that the follow-up lacks: weight = table weight * share * decay^age *
  (table weight / heaviest of the table)^rarity. Pieces that the follow-up has keep their weight: counting them twice
  made the ranking worse (docs/decisions/0156). DiSCo (arXiv 2410.14609) does more, with a model at query time.
- Pruning leaves out pieces below a share of the heaviest weight (`max_ratio` in OpenSearch's neural-search). Two-phase
  search scores them only for the documents that the heavy pieces found (Two-Step SPLADE, Lassance et al., ECIR 2024).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from services.encoders.query_table import MAX_QUERY_WEIGHT, QueryTable, QueryVector
from services.encoders.vectors import SMALLEST_WEIGHT, SparseVector

PieceWeights = Mapping[int, float]

TableWeight = Callable[[int], float]

QUERY_ORIGIN = "query"

LIKE_ORIGIN, UNLIKE_ORIGIN, FEEDBACK_ORIGIN = "like", "unlike", "feedback"

CONTEXT_ORIGIN = "context"
# Pseudo-relevance feedback treats this many of the best documents as relevant (measured: docs/decisions/0155).
FEEDBACK_DOCUMENTS: Final = 3
# Words of earlier turns that are added to the lexical query. Each is one clause, or up to 32 in a script without
# spaces.
MAX_CONTEXT_WORDS: Final = 20
# Context below this share of the query's heaviest piece (or of a query word's boost, 1) is left out. That removes a
# third of the pieces and changes NDCG@10 by less than 0.001.
_MIN_RELATIVE_WEIGHT = 0.05
# Text in a script without spaces is cut at 32 characters, so that no clause exceeds Lucene's limit.
_WORD = re.compile(r"\w{1,32}")


@dataclass(frozen=True, slots=True)
class OriginWeights:
    """Weights by vocabulary id that one origin adds to a query. A negative weight reduces other origins' weights."""

    origin: str
    weights: PieceWeights


@dataclass(frozen=True, slots=True)
class QueryBlend:
    """A query vector with each piece's weight broken down by origin. The parts of a piece add up to its weight."""

    vector: QueryVector
    origins: Mapping[int, Mapping[str, float]]

    @classmethod
    def of(cls, query: QueryVector) -> Self:
        """Wrap a query vector whose weights all come from the query's own words."""
        return cls(query, {piece: {QUERY_ORIGIN: weight} for piece, weight in query.by_id().items()})

    @property
    def weight(self) -> float:
        """Return the sum of all weights (L1), which the shares of feedback are relative to."""
        return sum(self.vector.weights)

    def plus(self, shares: Sequence[OriginWeights], max_pieces: int, factor: float = 1.0) -> "QueryBlend":
        """Return this blend times `factor` plus the shares. Empty shares and a factor of 1 change nothing.

        Pieces whose sum is not positive are dropped: OpenSearch refuses a negative boost, and Lucene treats a boost
        below the smallest normal float32 as zero. At most `max_pieces` pieces are kept: the existing ones, then the
        heaviest new ones, at equal weight the lower id.
        """
        origins = {
            piece: {origin: weight * factor for origin, weight in parts.items()}
            for piece, parts in self.origins.items()
        }
        for share in shares:
            for piece, weight in share.weights.items():
                parts = origins.setdefault(piece, {})
                parts[share.origin] = parts.get(share.origin, 0.0) + weight
        sums = {piece: min(sum(parts.values()), MAX_QUERY_WEIGHT) for piece, parts in origins.items()}
        kept = [piece for piece in origins if sums[piece] >= SMALLEST_WEIGHT]
        old = [piece for piece in kept if piece in self.origins]
        new = sorted((piece for piece in kept if piece not in self.origins), key=lambda piece: (-sums[piece], piece))
        order = (old + new)[:max_pieces]
        vector = replace(self.vector, ids=tuple(order), weights=tuple([sums[piece] for piece in order]))
        return QueryBlend(vector, {piece: origins[piece] for piece in order})


def heaviest_pieces(weights: PieceWeights, count: int) -> dict[int, float]:
    """Return the `count` heaviest pieces, heaviest first; at equal weight the lower id wins."""
    kept = sorted(weights, key=lambda piece: (-weights[piece], piece))[:count]
    return {piece: weights[piece] for piece in kept}


@dataclass(frozen=True, slots=True)
class RocchioParameters:
    """Weights of Rocchio feedback, none negative.

    `pieces`: how many pieces of each centroid are used, the heaviest first.
    """

    alpha: float = 1.0
    beta: float = 0.5
    gamma: float = 0.25
    pieces: int = 20


def apply_rocchio(
    query: QueryBlend,
    rocchio: RocchioParameters,
    table: TableWeight,
    max_pieces: int,
    *,
    liked: Sequence[SparseVector] = (),
    unliked: Sequence[SparseVector] = (),
    origin: str = LIKE_ORIGIN,
) -> QueryBlend:
    """Return the query after feedback with at most `max_pieces` pieces.

    `origin` names the source of the liked documents.

    `table` returns the query weight of a vocabulary id, 0 for an unknown id. OpenSearch takes no negative weights, so
    unliked documents only reduce existing weights, at most to zero. For a query without pieces of its own, the scale is
    the weight that the liked pieces would have if they had been typed.
    """
    liked_centroid, unliked_centroid = compute_centroid(liked, table), compute_centroid(unliked, table)
    weight = query.weight or sum(map(table, heaviest_pieces(liked_centroid, rocchio.pieces)))
    shares = [
        scale_to_weight(origin, liked_centroid, rocchio.pieces, rocchio.beta * weight),
        scale_to_weight(UNLIKE_ORIGIN, unliked_centroid, rocchio.pieces, -rocchio.gamma * weight),
    ]
    return query.plus(shares, max_pieces, rocchio.alpha)


def compute_centroid(vectors: Sequence[SparseVector], table: TableWeight) -> dict[int, float]:
    """Return the mean of the vectors, each weighted as a query and scaled to unit length. Empty without vectors.

    Pieces without a weight in the table are left out. The result does not depend on the order of the vectors.
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
    # A floating-point sum depends on the order of its terms, so they are sorted first.
    order = np.lexsort((every_weight, every_id))
    pieces, starts = np.unique(every_id[order], return_index=True)
    means = np.add.reduceat(every_weight[order], starts) / len(ids)
    return dict(zip(pieces.tolist(), means.tolist(), strict=True))


def scale_to_weight(origin: str, centroid: PieceWeights, pieces: int, weight: float) -> OriginWeights:
    """Return the heaviest `pieces` of a centroid, scaled so that their weights add up to `weight`."""
    kept = heaviest_pieces(centroid, pieces)
    total = sum(kept.values())
    if total <= 0 or weight == 0:
        return OriginWeights(origin, {})
    return OriginWeights(origin, {piece: piece_weight / total * weight for piece, piece_weight in kept.items()})


@dataclass(frozen=True, slots=True)
class ConversationMemory:
    """Parameters of how much earlier turns count: `share` and `decay` from 0 to 1, `rarity` not negative."""

    share: float = 0.5
    decay: float = 0.75
    rarity: float = 1.0

    def factor(self, age: int, relative: float) -> float:
        """Return the share of a weight that remains after `age` turns.

        `relative`: the weight over the table's heaviest.
        """
        return self.share * self.decay**age * float(relative**self.rarity)


def context_pieces(
    query: PieceWeights,
    turns: Sequence[PieceWeights],
    heaviest: float,
    memory: ConversationMemory,
    max_pieces: int,
) -> OriginWeights:
    """Return the heaviest `max_pieces` pieces of earlier turns that the query lacks.

    `turns` are oldest first and weighted by the table; `heaviest` is the largest weight of the table. A repeated piece
    counts once, with its largest weight. Pieces below a twentieth of the query's heaviest are left out.
    """
    added: dict[int, float] = {}
    least = _MIN_RELATIVE_WEIGHT * max(query.values(), default=0.0)
    for age, turn in enumerate(reversed(turns)):
        for piece, weight in turn.items():
            carried = weight * memory.factor(age, weight / heaviest)
            if piece not in query and carried > max(least, added.get(piece, 0.0)):
                added[piece] = carried
    return OriginWeights(CONTEXT_ORIGIN, heaviest_pieces(added, max_pieces))


def context_words(
    query: str, turns: Sequence[str], relative: Mapping[str, float], memory: ConversationMemory
) -> dict[str, float]:
    """Return the words of earlier turns that the query lacks, with their boosts, heaviest first.

    `relative` is the result of `word_weights` for the turns. BM25 itself favours rare words; `rarity` damps common ones
    as it does for pieces.
    """
    query_words = set(distinct_words(query))
    added: dict[str, float] = {}
    for age, turn in enumerate(reversed(turns)):
        for word in distinct_words(turn):
            carried = memory.factor(age, relative.get(word, 0.0))
            if word not in query_words and carried > max(_MIN_RELATIVE_WEIGHT, added.get(word, 0.0)):
                added[word] = carried
    best = sorted(added, key=lambda word: (-added[word], word))[:MAX_CONTEXT_WORDS]
    return {word: added[word] for word in best}


def word_weights(table: QueryTable, turns: Sequence[str]) -> dict[str, float]:
    """Return the weight of the heaviest piece of each word of the turns, relative to the table's heaviest."""
    words = dict.fromkeys(word for turn in turns for word in distinct_words(turn))
    return {word: max(table.encode(word).weights, default=0.0) / (table.heaviest or 1.0) for word in words}


def distinct_words(text: str) -> list[str]:
    """Return the distinct words of a text in lower case, in order of appearance."""
    return list(dict.fromkeys(_WORD.findall(text.casefold())))


def prune_query(query: QueryVector, share: float) -> QueryVector:
    """Drop the pieces that weigh less than `share` (0 to 1) of the heaviest and list them in `pruned`.

    The heaviest piece always stays. A share of 0 leaves the query as it is.
    """
    if share == 0 or not query.ids:
        return query
    kept, dropped = split_query(query, share)
    pruned = query.pruned + tuple(zip(dropped.ids, dropped.weights, strict=True))
    return QueryVector(kept.ids, kept.weights, query.pieces, pruned)


def split_query(query: QueryVector, threshold: float) -> tuple[QueryVector, QueryVector]:
    """Split a query into the pieces of at least `threshold` (0 to 1) of the heaviest weight and the rest, both in
    order.
    """
    least = threshold * max(query.weights, default=0.0)
    return (
        _select_pieces(query, [at for at, weight in enumerate(query.weights) if weight >= least]),
        _select_pieces(query, [at for at, weight in enumerate(query.weights) if weight < least]),
    )


def _select_pieces(query: QueryVector, positions: list[int]) -> QueryVector:
    # Every search passes here, so the vector is not copied by `replace`.
    ids, weights = tuple([query.ids[at] for at in positions]), tuple([query.weights[at] for at in positions])
    return QueryVector(ids, weights, query.pieces, query.pruned)
