"""Human and generated chapter titles: pairs that a measure compares, and their similarity as vectors.

Both directions count: `pair_titles` finds human titles without a counterpart, `pair_generated_titles` finds generated
titles without one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from models.encoder import Encoder
from services.encoders.vectors import SparseVector, merge_max
from services.talk.model import Chapter


def pair_titles(human: Sequence[tuple[int, int, str]], generated: Sequence[Chapter]) -> list[tuple[str, str]]:
    """Pair each human title with the title of the generated chapter that shares most characters with its chapter.

    `human`: start, end (exclusive) and title of each chapter, in characters. Untitled ones are left out. A generated
    title may occur in several pairs.
    """
    pairs = []
    for start, end, title in human:
        if title and generated:
            shared = [min(end, chapter.end) - max(start, chapter.start) for chapter in generated]
            pairs.append((title, generated[int(np.argmax(shared))].title))
    return pairs


def pair_generated_titles(human: Sequence[tuple[int, int, str]], generated: Sequence[Chapter]) -> list[tuple[str, str]]:
    """Pair each generated title with the human title of the chapter that shares most characters.

    A human title counts once: for its generated chapter that shares most characters. Further generated chapters of the
    same human chapter are paired with the empty title, which scores 0. Chapters over untitled human ones are left out.
    """
    if not human:
        return []
    best = []
    for chapter in generated:
        shared = [min(end, chapter.end) - max(start, chapter.start) for start, end, _ in human]
        number = int(np.argmax(shared))
        best.append((number, shared[number]))
    largest: dict[int, int] = {}
    for number, size in best:
        largest[number] = max(size, largest.get(number, size))
    pairs, used = [], set()
    for (number, size), chapter in zip(best, generated, strict=True):
        title = human[number][2]
        if not title:
            continue
        first = size == largest[number] and number not in used
        if first:
            used.add(number)
        pairs.append((title if first else "", chapter.title))
    return pairs


class TitleSimilarity:
    """Similarity of titles by the vectors of an encoder. Each title is encoded once."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._vectors: dict[str, SparseVector] = {}

    def cosine(self, human: str, generated: str) -> float:
        """Return the cosine of the vectors of two titles; 0 if a vector is empty."""
        first, second = self._vector(human), self._vector(generated)
        norm = math.sqrt(_dot_product(first, first) * _dot_product(second, second))
        return _dot_product(first, second) / norm if norm else 0.0

    def _vector(self, title: str) -> SparseVector:
        if title not in self._vectors:
            self._vectors[title] = merge_max(self._encoder.encode(self._encoder.windows(title)))
        return self._vectors[title]


def _dot_product(first: SparseVector, second: SparseVector) -> float:
    _, i, j = np.intersect1d(first.ids, second.ids, assume_unique=True, return_indices=True)
    return float(first.weights[i].astype(np.float64) @ second.weights[j].astype(np.float64))
