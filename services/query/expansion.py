"""Earlier turns of a conversation as context of a query, without a model that would rewrite it.

A follow-up leaves out what was said before ("and on windows?"). So pieces of earlier turns that it does not have itself
are added to it, the lighter the longer ago they were said and the more common they are:

    weight = table weight * share * decay^age * (table weight / heaviest of the table)^rarity

Pieces that the follow-up has keep their weight: to say a word twice made the ranking worse (docs/decisions/0156). A
learned query encoder for conversations (DiSCo, arXiv 2410.14609) does more, and needs a model at query time. Pure.

Query pieces that weigh little: left out, or kept for a second phase.

A sparse search costs what the postings of the query's pieces are long, and light pieces have the longest. Leaving out
those below a share of the heaviest weight is called `max_ratio` in OpenSearch's neural-search. Scoring them only for
the documents that the heavy ones found is that plugin's two-phase processor, and the second step of Two-Step SPLADE
(Lassance et al., ECIR 2024).

A query vector whose weights come from several origins: the words, earlier turns, documents that were fed back.

What each origin gave to a piece is kept, so that an explanation can say why a piece is in the query at all. Pure.

Feedback: a query moved towards documents that are liked and away from those that are not (Rocchio, sparse).

    new query = alpha * query + beta * centroid(liked) - gamma * centroid(unliked)

Documents live in another space than queries, whose weights are the table's. So a document becomes a query by weighing
each of its pieces with the table too, as if it had been typed, and has unit length before documents are averaged. A
centroid is cut to its heaviest pieces and scaled: with beta 0.5 they weigh together half of what the query weighs,
however many documents and pieces there are. What was measured: docs/decisions/0155. Pure.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from services.encoders.query_table import MAX_QUERY_WEIGHT, QueryTable, QueryVector
from services.encoders.vectors import SMALLEST_WEIGHT, SparseVector


def prune_query(query: QueryVector, share: float) -> QueryVector:
    """The query without pieces that weigh less than `share` (0 to 1) of its heaviest; `pruned` of it names them.

    The heaviest piece always stays. 0 leaves the query as it is.
    """
    if share == 0 or not query.ids:
        return query
    kept, dropped = split_query(query, share)
    return replace(kept, pruned=query.pruned + tuple(zip(dropped.ids, dropped.weights, strict=True)))


def split_query(query: QueryVector, threshold: float) -> tuple[QueryVector, QueryVector]:
    """The pieces of at least `threshold` (0 to 1) of the heaviest weight, and the others. Both keep their order."""
    least = threshold * max(query.weights, default=0.0)
    return (
        _select_pieces(query, [at for at, weight in enumerate(query.weights) if weight >= least]),
        _select_pieces(query, [at for at, weight in enumerate(query.weights) if weight < least]),
    )


def _select_pieces(query: QueryVector, places: list[int]) -> QueryVector:
    return replace(
        query, ids=tuple([query.ids[at] for at in places]), weights=tuple([query.weights[at] for at in places])
    )


PieceWeights = Mapping[int, float]

QUERY_ORIGIN = "query"


@dataclass(frozen=True, slots=True)
class OriginWeights:
    """What one origin gives: weights by vocabulary id. Negative ones take away from what others give."""

    origin: str
    weights: PieceWeights


@dataclass(frozen=True, slots=True)
class QueryBlend:
    """A query and, of each of its pieces, what every origin gave to the weight; those add up to it."""

    vector: QueryVector
    origins: Mapping[int, Mapping[str, float]]

    @classmethod
    def of(cls, words: QueryVector) -> Self:
        """A query as the table made it."""
        return cls(words, {piece: {QUERY_ORIGIN: weight} for piece, weight in words.by_id().items()})

    @property
    def weight(self) -> float:
        """Of all pieces together (L1): what shares are measured by."""
        return sum(self.vector.weights)

    def plus(self, shares: Sequence[OriginWeights], most: int, factor: float = 1.0) -> "QueryBlend":
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
        sums = {piece: min(sum(given.values()), MAX_QUERY_WEIGHT) for piece, given in origins.items()}
        kept = [piece for piece in origins if sums[piece] >= SMALLEST_WEIGHT]
        old = [piece for piece in kept if piece in self.origins]
        new = sorted((piece for piece in kept if piece not in self.origins), key=lambda piece: (-sums[piece], piece))
        order = (old + new)[:most]
        vector = replace(self.vector, ids=tuple(order), weights=tuple([sums[piece] for piece in order]))
        return QueryBlend(vector, {piece: origins[piece] for piece in order})


def heaviest_pieces(weights: PieceWeights, count: int) -> dict[int, float]:
    """The `count` heaviest pieces, heaviest first; of equal weights the lower id stays."""
    kept = sorted(weights, key=lambda piece: (-weights[piece], piece))[:count]
    return {piece: weights[piece] for piece in kept}


TableWeight = Callable[[int], float]

LIKE_ORIGIN, UNLIKE_ORIGIN, FEEDBACK_ORIGIN = "like", "unlike", "feedback"
# How many of the best documents are taken for relevant unasked. Chosen by measurement, as all here: decision 0155.
FEEDBACK_DOCUMENTS: Final = 3


@dataclass(frozen=True, slots=True)
class RocchioParameters:
    """The parameters, none below zero. `pieces`: of each centroid, the heaviest."""

    alpha: float = 1.0
    beta: float = 0.5
    gamma: float = 0.25
    pieces: int = 20


def apply_rocchio(
    query: QueryBlend,
    rocchio: RocchioParameters,
    table: TableWeight,
    most: int,
    *,
    liked: Sequence[SparseVector] = (),
    unliked: Sequence[SparseVector] = (),
    origin: str = LIKE_ORIGIN,
) -> QueryBlend:
    """The query after feedback, at most `most` pieces; `origin` says where liked documents come from.

    `table` gives the query weight of a vocabulary id, 0 for one that it does not have. A weight below zero cannot be
    searched with, so what is unliked takes from the weights that are there, down to nothing, and adds nothing. A query
    without pieces of its own weighs what the liked pieces would had they been typed.
    """
    towards, away = compute_centroid(liked, table), compute_centroid(unliked, table)
    weight = query.weight or sum(map(table, heaviest_pieces(towards, rocchio.pieces)))
    shares = [
        scale_to_weight(origin, towards, rocchio.pieces, rocchio.beta * weight),
        scale_to_weight(UNLIKE_ORIGIN, away, rocchio.pieces, -rocchio.gamma * weight),
    ]
    return query.plus(shares, most, rocchio.alpha)


def compute_centroid(vectors: Sequence[SparseVector], table: TableWeight) -> dict[int, float]:
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


def scale_to_weight(origin: str, towards: PieceWeights, pieces: int, weight: float) -> OriginWeights:
    """The heaviest `pieces` of a centroid, scaled so that they weigh `weight` together."""
    kept = heaviest_pieces(towards, pieces)
    together = sum(kept.values())
    if together <= 0 or weight == 0:
        return OriginWeights(origin, {})
    return OriginWeights(origin, {piece: own / together * weight for piece, own in kept.items()})


CONTEXT_ORIGIN = "context"
# A script without spaces has no words for this; it is cut, so that no clause grows beyond what Lucene takes.
_WORD = re.compile(r"\w{1,32}")
# Words of earlier turns that keyword search gets; each is a clause or, in a script without spaces, up to 32.
MAX_CONTEXT_WORDS: Final = 20
# Of what the query's own weigh (its heaviest piece; a word's 1). What weighs less costs clauses and changes no ranking:
# a third fewer pieces, and the same NDCG@10 to a thousandth.
_MIN_RELATIVE_WEIGHT = 0.05


@dataclass(frozen=True, slots=True)
class ConversationMemory:
    """How much of earlier turns counts: `share` and `decay` from 0 to 1, `rarity` not below 0."""

    share: float = 0.5
    decay: float = 0.5
    rarity: float = 1.0

    def factor(self, age: int, relative: float) -> float:
        """What is left of a weight that was said `age` turns before the last; `relative` to the table's heaviest."""
        return self.share * self.decay**age * float(relative**self.rarity)


def context_pieces(
    now: PieceWeights, turns: Sequence[PieceWeights], top: float, memory: ConversationMemory, most: int
) -> OriginWeights:
    """What earlier turns give to a query: the heaviest `most` pieces that it does not have.

    `turns` are oldest first, each as the table weighs it; `top` is the largest weight of the table. Of a piece that was
    said several times the heaviest counts. What would weigh less than a twentieth of the query's heaviest is left out.
    """
    found: dict[int, float] = {}
    least = _MIN_RELATIVE_WEIGHT * max(now.values(), default=0.0)
    for age, turn in enumerate(reversed(turns)):
        for piece, weight in turn.items():
            carried = weight * memory.factor(age, weight / top)
            if piece not in now and carried > max(least, found.get(piece, 0.0)):
                found[piece] = carried
    return OriginWeights(CONTEXT_ORIGIN, heaviest_pieces(found, most))


def context_words(
    now: str, turns: Sequence[str], relative: Mapping[str, float], memory: ConversationMemory
) -> dict[str, float]:
    """What earlier turns give to keyword search: words that the query does not have, with their boosts, heaviest first.

    `relative` is what `word_weights` says of the turns. BM25 weighs rare words itself; that common ones are carried
    less far is the same rule as for pieces.
    """
    own = set(distinct_words(now))
    found: dict[str, float] = {}
    for age, turn in enumerate(reversed(turns)):
        for word in distinct_words(turn):
            carried = memory.factor(age, relative.get(word, 0.0))
            if word not in own and carried > max(_MIN_RELATIVE_WEIGHT, found.get(word, 0.0)):
                found[word] = carried
    best = sorted(found, key=lambda word: (-found[word], word))[:MAX_CONTEXT_WORDS]
    return {word: found[word] for word in best}


def word_weights(table: QueryTable, turns: Sequence[str]) -> dict[str, float]:
    """How heavy the heaviest piece of each word of the turns is, the table's heaviest being 1."""
    said = dict.fromkeys(word for turn in turns for word in distinct_words(turn))
    return {word: max(table.encode(word).weights, default=0.0) / (table.heaviest or 1.0) for word in said}


def distinct_words(text: str) -> list[str]:
    """The distinct words of a text in lower case, in order."""
    return list(dict.fromkeys(_WORD.findall(text.casefold())))
