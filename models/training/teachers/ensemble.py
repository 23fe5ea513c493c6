"""Targets from several teachers: heterogeneous distillation of arXiv 2411.04403, section 3.3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.training.vectors import Scores, TeacherVectors
from services.errors import InvalidInput


def scaled(scores: NDArray[np.floating], left_out: NDArray[np.bool_] | None = None) -> Scores:
    """Each row to [0, 1]: its lowest candidate 0, its highest 1; float32 [B, M].

    What is not finite, and what `left_out` names, is no candidate: it sets no bound and becomes 0. So does a row whose
    candidates all have one score, since a teacher that cannot tell them apart says nothing.
    """
    # (in float64 the difference of two float32 cannot overflow)
    given = np.asarray(scores, dtype=np.float64)
    candidate = np.isfinite(given) if left_out is None else np.isfinite(given) & ~left_out
    lowest = np.where(candidate, given, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    highest = np.where(candidate, given, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    told = candidate & (highest > lowest)
    shifted = np.where(told, given, 0.0) - np.where(told, lowest, 0.0)
    span = np.where(told, highest, 1.0) - np.where(told, lowest, 0.0)
    found: Scores = np.divide(shifted, span, out=np.zeros(given.shape), where=told).astype(np.float32)
    return found


def targets(
    score_matrices: Sequence[NDArray[np.floating]],
    weights: Sequence[float],
    scale: float,
    left_out: NDArray[np.bool_] | None = None,
) -> Scores:
    """Float32 [B, M]: scale x the weighted sum of every teacher's scores, each scaled within a query's candidates.

    The student's distribution over a row is drawn to softmax of this one; the paper takes weights .5 and .5, scale 10
    in pre-training and 30 in fine-tuning. Columns in `left_out` (bool [B, M], see `models.training.masks`) come out as
    0 and must be left out of both distributions by the caller. See `scaled` for ties and for what is not finite.

    Raises InvalidInput (`bad_ensemble`) for no teachers, shapes that differ, as many weights as not, a negative or
    infinite weight, weights that are all 0, and a scale that is not positive.
    """
    checked_weights(len(score_matrices), weights)
    if not (np.isfinite(scale) and scale > 0):
        raise InvalidInput("bad_ensemble", f"The scale of the targets is above 0, not {scale}.")
    shapes = {np.shape(scores) for scores in score_matrices} | ({left_out.shape} if left_out is not None else set())
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise InvalidInput("bad_ensemble", f"Teachers' scores have one shape [queries, passages], not {shapes}.")
    total = np.zeros(next(iter(shapes)), dtype=np.float32)
    for scores, weight in zip(score_matrices, weights, strict=True):
        if weight:
            total += np.float32(weight) * scaled(scores, left_out)
    return total * np.float32(scale)


def checked_weights(teachers: int, weights: Sequence[float]) -> None:
    """Raises InvalidInput (`bad_ensemble`) unless there is a teacher and a sound weight for each."""
    if not teachers or len(weights) != teachers:
        raise InvalidInput("bad_ensemble", f"{teachers} teachers need as many weights and there are {len(weights)}.")
    if not all(np.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
        raise InvalidInput("bad_ensemble", f"Weights of teachers are 0 or more and not all 0: {list(weights)}.")


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Teachers' vectors over the same texts, with their weights and the scale of the targets."""

    vectors: Sequence[TeacherVectors]
    weights: Sequence[float]
    scale: float

    def targets(
        self,
        query_rows: NDArray[np.integer],
        passage_rows: NDArray[np.integer],
        left_out: NDArray[np.bool_] | None = None,
    ) -> Scores:
        """See `targets`."""
        used = [(v, w) for v, w in zip(self.vectors, self.weights, strict=True) if w]
        return targets(
            [v.scores(query_rows, passage_rows) for v, _ in used], [w for _, w in used], self.scale, left_out
        )
