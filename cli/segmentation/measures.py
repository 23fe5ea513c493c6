"""Pk, WindowDiff and boundary similarity (segeval), ROUGE-L (rouge-score) and likeness by sparse vectors of titles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from models.encoder import Encoder
from services.errors import ConfigurationError
from services.talk.chapters import Chapter
from services.vectors import SparseVector, merge_max


@dataclass(frozen=True, slots=True)
class Likeness:
    """Pk and WindowDiff are errors, boundary similarity is none (1 is the same); `share` of as many chapters."""

    pk: float
    window_diff: float
    boundary_similarity: float
    share: float


def likeness(human: Sequence[int], made: Sequence[int], count: int) -> Likeness | None:
    """Of two divisions of `count` segments by the segments where chapters begin after the first one.

    None where there are fewer segments than the windows of Pk and WindowDiff need. The window is half a mean chapter
    of `human`, as published. Raises ConfigurationError (`missing_extra`).
    """
    reference, hypothesis = _masses(human, count), _masses(made, count)
    if count <= max(2, round(count / len(reference) / 2)):
        return None
    segeval = _package("segeval", "segeval")
    return Likeness(
        float(segeval.pk(hypothesis, reference)),
        float(segeval.window_diff(hypothesis, reference)),
        # segeval has no answer where neither has a boundary
        1.0 if len(hypothesis) == len(reference) == 1 else float(segeval.boundary_similarity(hypothesis, reference)),
        len(hypothesis) / len(reference),
    )


def _masses(starts: Sequence[int], count: int) -> tuple[int, ...]:
    inside = sorted({start for start in starts if 0 < start < count})
    return tuple(b - a for a, b in zip([0, *inside], [*inside, count], strict=True))


def rouge_l(human: str, made: str) -> float:
    """F of the longest common subsequence of stems. Raises ConfigurationError (`missing_extra`)."""
    return float(_rouge().score(human, made)["rougeL"].fmeasure)


class Titles:
    """Compares titles by the vectors of an encoder; each title is encoded once."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._vectors: dict[str, SparseVector] = {}

    def likeness(self, human: str, made: str) -> float:
        """Cosine of the vectors of two titles; 0 where one says nothing."""
        first, second = self._vector(human), self._vector(made)
        norm = math.sqrt(_dot(first, first) * _dot(second, second))
        return _dot(first, second) / norm if norm else 0.0

    def _vector(self, title: str) -> SparseVector:
        if title not in self._vectors:
            self._vectors[title] = merge_max(self._encoder.encode(self._encoder.windows(title)))
        return self._vectors[title]


def paired(human: Sequence[tuple[int, int, str]], made: Sequence[Chapter]) -> list[tuple[str, str]]:
    """Each title that people gave, with that of the chapter that shares most of its text; stretches are characters."""
    pairs = []
    for start, end, title in human:
        if title and made:
            shared = [min(end, one.end) - max(start, one.start) for one in made]
            pairs.append((title, made[int(np.argmax(shared))].title))
    return pairs


def _dot(first: SparseVector, second: SparseVector) -> float:
    _, i, j = np.intersect1d(first.ids, second.ids, assume_unique=True, return_indices=True)
    return float(first.weights[i].astype(np.float64) @ second.weights[j].astype(np.float64))


@cache
def _rouge() -> Any:
    return _package("rouge_score.rouge_scorer", "rouge-score").RougeScorer(["rougeL"], use_stemmer=True)


def _package(module: str, package: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise ConfigurationError(
            "missing_extra", f"Measuring chapters needs the package {package}: pip install -e '.[eval]'."
        ) from None
