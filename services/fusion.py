"""Puts two ranked lists together. Scores of different kinds are brought to one scale within each list first."""

from collections.abc import Mapping
from typing import Final

# What hybrid search weighs its lists with when nobody says otherwise (docs/decisions/0070).
DEFAULT_WEIGHTS: Final[Mapping[str, float]] = {"sparse": 0.5, "lexical": 0.5}


def min_max(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores of one list scaled to [0, 1]; a list in which all are equal counts as 1."""
    if not scores:
        return {}
    low, high = min(scores.values()), max(scores.values())
    if high == low:
        return dict.fromkeys(scores, 1.0)
    return {document: (score - low) / (high - low) for document, score in scores.items()}


def fuse(lists: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]) -> list[tuple[str, float]]:
    """Weighted sum of the min-max scaled lists, best first, equal scores by id.

    A document that a list does not name gets 0 from it, as its last one does. The weights are scaled to sum to 1, so
    a fused score lies in [0, 1]. Min-max beat reciprocal ranks on each of nine collections (docs/decisions/0070).
    """
    total = sum(weights[name] for name in lists)
    fused: dict[str, float] = {}
    for name, scores in lists.items():
        share = weights[name] / total
        for document, score in min_max(scores).items():
            fused[document] = fused.get(document, 0.0) + share * score
    return sorted(fused.items(), key=lambda pair: (-pair[1], pair[0]))
