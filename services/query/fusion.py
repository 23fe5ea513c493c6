"""Score fusion: several ranked lists combined into one, and the scores of a model interpolated into a list.

Scores of different kinds are scaled within each list first. The three methods (min-max, z-score, reciprocal ranks)
share one rule: the result holds every document of every list, a list contributes nothing to a document that it lacks,
and an empty list contributes nothing at all. The result depends on scores and weights alone, never on the order of
documents or lists. Min-max has the best mean NDCG@10 of the three (docs/decisions/0150).
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, count
from operator import eq, itemgetter
from typing import Final, Literal, TypeVar

FusionMethodName = Literal["min_max", "z_score", "rrf"]
# The key of a hit: a document by its id, or by its index and its id; or a chapter or passage by the document's
# id and its number.
K = TypeVar("K", str, tuple[str, str], tuple[str, int])

# Default weights of the lists of hybrid search (docs/decisions/0070).
DEFAULT_WEIGHTS: Final[Mapping[str, float]] = {"sparse": 0.5, "lexical": 0.5}
# The usual constant of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009).
DEFAULT_RANK_CONSTANT: Final = 60
# Default share of the scores of a model that reads the query (docs/decisions/0143), and of those of the dense query
# table (docs/decisions/0243).
DEFAULT_MODEL_WEIGHT: Final = 0.7
DEFAULT_TABLE_WEIGHT: Final = 0.4
DEFAULT_RERANK_DEPTH: Final = 100


@dataclass(frozen=True, slots=True)
class Fusion:
    """A fusion method.

    `k` is the constant of reciprocal ranks: the larger it is, the less the first ranks stand out.
    """

    method: FusionMethodName = "min_max"
    k: int = DEFAULT_RANK_CONSTANT


DEFAULT_FUSION: Final = Fusion()


def fuse_lists(
    lists: Mapping[str, Mapping[K, float]], weights: Mapping[str, float], fusion: Fusion = DEFAULT_FUSION
) -> list[tuple[K, float]]:
    """Return the weighted sum of the lists, each scaled by the method, best first, equal scores by id.

    Scores must be finite. Weights must not be negative, and those of the given lists not all zero; they are scaled to a
    sum of 1. So with min_max and rrf a fused score lies in [0, 1]; with z_score it is a number of standard deviations.
    """
    total = sum(weights[name] for name in lists)
    fused: dict[K, float] = {}
    for name, scores in lists.items():
        share = weights[name] / total
        weighted = {document: share * score for document, score in _scale_scores(scores, fusion).items()}
        # Only the few documents of both lists need an addition in Python.
        common = fused.keys() & weighted.keys()
        fused |= weighted | {document: fused[document] + weighted[document] for document in common}
    return _rank(fused)


def _rank(scores: Mapping[K, float]) -> list[tuple[K, float]]:
    """Return the documents best first, equal scores by id.

    Sorting all pairs by (-score, id) takes 40 microseconds of a search's 500, so only documents of equal scores are
    sorted by id: the best of each list, and the last.
    """
    ranking = sorted(scores.items(), key=itemgetter(1), reverse=True)
    in_order = [score for _, score in ranking]
    firsts = compress(count(), map(eq, in_order, in_order[1:]))
    tied_positions = sorted({tied for first in firsts for tied in (first, first + 1)})
    tied = sorted(sorted(ranking[position] for position in tied_positions), key=itemgetter(1), reverse=True)
    for position, pair in zip(tied_positions, tied, strict=True):
        ranking[position] = pair
    return ranking


def fusion_shares(
    lists: Mapping[str, Mapping[K, float]],
    weights: Mapping[str, float],
    fusion: Fusion,
    documents: Collection[K],
) -> dict[K, dict[str, tuple[float, float]]]:
    """Return the share and the scaled score of each list that holds a document, whose products `fuse_lists` adds up.

    Only explanations need this, so the scaling is repeated here instead of kept in every search.
    """
    total = sum(weights[name] for name in lists)
    shares: dict[K, dict[str, tuple[float, float]]] = {document: {} for document in documents}
    for name, scores in lists.items():
        scaled = _scale_scores(scores, fusion)
        for document in shares.keys() & scaled.keys():
            shares[document][name] = (weights[name] / total, scaled[document])
    return shares


def _scale_scores(scores: Mapping[K, float], fusion: Fusion) -> dict[K, float]:
    if fusion.method == "min_max":
        return min_max(scores)
    return z_score(scores) if fusion.method == "z_score" else reciprocal_ranks(scores, fusion.k)


def min_max(scores: Mapping[K, float]) -> dict[K, float]:
    """Scale the scores of one list to [0, 1]. A list of equal scores becomes all 1."""
    if not scores:
        return {}
    low, high = min(scores.values()), max(scores.values())
    if high == low:
        return dict.fromkeys(scores, 1.0)
    return {document: (score - low) / (high - low) for document, score in scores.items()}


def z_score(scores: Mapping[K, float]) -> dict[K, float]:
    """Express the scores of one list in the list's standard deviations above its last hit. Equal scores become 1.

    The usual form is relative to the mean. It differs by a constant and would rank a document that the list lacks (0)
    above most of those that it holds. Unlike the other methods this one is not monotone: an outlier increases the
    deviation and so shrinks every distance in the list.
    """
    scaled = min_max(scores)
    # Computed on scores scaled to [0, 1], because the square of a tiny difference would underflow to 0. `fsum` rounds
    # once, so the result does not depend on the order of the documents.
    mean = math.fsum(scaled.values()) / max(len(scaled), 1)
    spread = math.sqrt(math.fsum((score - mean) ** 2 for score in scaled.values()) / max(len(scaled), 1))
    return scaled if spread == 0 else {document: score / spread for document, score in scaled.items()}


def reciprocal_ranks(scores: Mapping[K, float], k: int = DEFAULT_RANK_CONSTANT) -> dict[K, float]:
    """Return (k + 1) / (k + rank) with ranks from 1, so the first has 1. Equal scores share their best rank."""
    ranks: dict[float, int] = {}
    for rank, score in enumerate(sorted(scores.values(), reverse=True), 1):
        ranks.setdefault(score, rank)
    return {document: (k + 1) / (k + ranks[score]) for document, score in scores.items()}


def interpolate_scores(
    ranked: Sequence[tuple[str, float]], model_scores: Mapping[str, float], weight: float
) -> list[tuple[str, float]]:
    """Return the documents of `ranked` in their new order, best first, equal scores by id. Scores lie in [0, 1].

    Both scores are min-max scaled within these documents and summed: (1 - weight) x list + weight x model. For a
    document that the model did not score, the score of the list stands in for it.
    """
    scaled, second = _scale_both(ranked, model_scores)
    scores = {name: (1 - weight) * score + weight * second.get(name, score) for name, score in scaled.items()}
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


def interpolation_shares(
    ranked: Sequence[tuple[str, float]], model_scores: Mapping[str, float], weight: float
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return each document's shares and scaled scores, whose products `interpolate_scores` adds up.

    Only explanations need this, so the scaling is repeated here.
    """
    scaled, second = _scale_both(ranked, model_scores)
    return {
        name: {"list": (1 - weight, score), "opinion": (weight, second.get(name, score))}
        for name, score in scaled.items()
    }


def _scale_both(
    ranked: Sequence[tuple[str, float]], model_scores: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    scaled = min_max(dict(ranked))
    return scaled, min_max({name: model_scores[name] for name in scaled if name in model_scores})
