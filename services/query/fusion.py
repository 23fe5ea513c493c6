"""Puts ranked lists together. Scores of different kinds are brought to one scale within each list first.

Three methods, one rule for all of them: every document of every list is in the result. One that a list does not name
gets nothing from it, as if it came after that list's last hit. An empty list gives nothing to anybody. The result
depends on scores and weights alone, never on the order in which documents or lists are given.

A second opinion on the best of a list: its scores and the list's own, brought to one scale and summed.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

FusionMethodName = Literal["min_max", "z_score", "rrf"]
# A document by its id, or by its index and its id.
D = TypeVar("D", str, tuple[str, str])
# Or a part of a document, by that one's id and its number.
K = TypeVar("K", str, tuple[str, str], tuple[str, int])

# What hybrid search weighs its lists with when nobody says otherwise (docs/decisions/0070).
DEFAULT_WEIGHTS: Final[Mapping[str, float]] = {"sparse": 0.5, "lexical": 0.5}
# Reciprocal ranks: the constant of Cormack, Clarke and Buettcher (SIGIR 2009), and of everybody since.
DEFAULT_RANK_CONSTANT: Final = 60


@dataclass(frozen=True, slots=True)
class Fusion:
    """How lists are put together. `k` is for reciprocal ranks only: the larger, the less the first places stand out."""

    method: FusionMethodName = "min_max"
    k: int = DEFAULT_RANK_CONSTANT


# Min-max has the best mean NDCG@10 of the three (docs/decisions/0150).
DEFAULT_FUSION: Final = Fusion()


def min_max(scores: Mapping[K, float]) -> dict[K, float]:
    """Scores of one list scaled to [0, 1]; a list in which all are equal counts as 1."""
    if not scores:
        return {}
    low, high = min(scores.values()), max(scores.values())
    if high == low:
        return dict.fromkeys(scores, 1.0)
    return {document: (score - low) / (high - low) for document, score in scores.items()}


def z_score(scores: Mapping[K, float]) -> dict[K, float]:
    """Scores of one list in standard deviations (of the list) above its last hit; all equal: 1 each.

    The usual form counts from the mean. That differs by a constant, which would put a document that the list does
    not name (0) before most of those that it names. Not monotone, unlike the others: a score that stands out further
    makes the deviation larger, and with it every distance of the list smaller.
    """
    scaled = min_max(scores)
    # Of the scaled scores, which lie in [0, 1]: the square of a tiny difference would be 0. A sum that is rounded once
    # does not depend on the order of the documents.
    mean = math.fsum(scaled.values()) / max(len(scaled), 1)
    spread = math.sqrt(math.fsum((score - mean) ** 2 for score in scaled.values()) / max(len(scaled), 1))
    return scaled if spread == 0 else {document: score / spread for document, score in scaled.items()}


def reciprocal_ranks(scores: Mapping[K, float], k: int = DEFAULT_RANK_CONSTANT) -> dict[K, float]:
    """(k + 1) / (k + rank), ranks from 1: the first of a list has 1. Equal scores share the best rank of theirs."""
    ranks: dict[float, int] = {}
    for rank, score in enumerate(sorted(scores.values(), reverse=True), 1):
        ranks.setdefault(score, rank)
    return {document: (k + 1) / (k + ranks[score]) for document, score in scores.items()}


def fuse_lists(
    lists: Mapping[str, Mapping[K, float]], weights: Mapping[str, float], fusion: Fusion = DEFAULT_FUSION
) -> list[tuple[K, float]]:
    """Weighted sum of the lists, each scaled by the method, best first, equal scores by id.

    Scores are finite. The weights are zero or more, those of the given lists not all zero; they are scaled to sum to
    1, so with min_max and rrf a fused score lies in [0, 1]. With z_score it is a number of standard deviations.
    """
    total = sum(weights[name] for name in lists)
    fused: dict[K, float] = {}
    for name, scores in lists.items():
        share = weights[name] / total
        for document, score in _scale_scores(scores, fusion).items():
            fused[document] = fused.get(document, 0.0) + share * score
    return sorted(fused.items(), key=lambda pair: (-pair[1], pair[0]))


def fusion_shares(
    lists: Mapping[str, Mapping[K, float]],
    weights: Mapping[str, float],
    fusion: Fusion,
    documents: Collection[K],
) -> dict[K, dict[str, tuple[float, float]]]:
    """Of some fused documents, for each list that names them, its share and the scaled score: `fuse` adds the products.

    For explanations: the scaling is done again, by those who ask only.
    """
    total = sum(weights[name] for name in lists)
    found: dict[K, dict[str, tuple[float, float]]] = {document: {} for document in documents}
    for name, scores in lists.items():
        scaled = _scale_scores(scores, fusion)
        for document in found.keys() & scaled.keys():
            found[document][name] = (weights[name] / total, scaled[document])
    return found


def _scale_scores(scores: Mapping[K, float], fusion: Fusion) -> dict[K, float]:
    if fusion.method == "min_max":
        return min_max(scores)
    return z_score(scores) if fusion.method == "z_score" else reciprocal_ranks(scores, fusion.k)


# The opinion's share when nobody says otherwise; measured for dense vectors (docs/decisions/0143).
DEFAULT_INTERPOLATION_WEIGHT: Final = 0.7


def interpolate_scores(
    found: Sequence[tuple[str, float]], opinion: Mapping[str, float], weight: float
) -> list[tuple[str, float]]:
    """The documents of `found` in their new order, best first, equal scores by id; scores lie in [0, 1].

    Both scores are min-max scaled within these documents: (1 - weight) x the list's + weight x the opinion's. A
    document without an opinion keeps its place as far as that goes: the list's score stands in for the missing one.
    """
    own, other = _scale_both(found, opinion)
    scores = {name: (1 - weight) * score + weight * other.get(name, score) for name, score in own.items()}
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


def interpolation_shares(
    found: Sequence[tuple[str, float]], opinion: Mapping[str, float], weight: float
) -> dict[str, dict[str, tuple[float, float]]]:
    """Of each document, share and scaled score of the list and of the opinion: `interpolate_scores` adds the products.

    For explanations: the scaling is done again, by those who ask only.
    """
    own, other = _scale_both(found, opinion)
    return {
        name: {"list": (1 - weight, score), "opinion": (weight, other.get(name, score))} for name, score in own.items()
    }


def _scale_both(
    found: Sequence[tuple[str, float]], opinion: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    own = min_max(dict(found))
    return own, min_max({name: opinion[name] for name in own if name in opinion})
