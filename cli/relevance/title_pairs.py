"""Pairs of human and generated chapter titles, which a title measure compares.

Both directions count: `pair_titles` finds human titles without a counterpart, `pair_generated_titles` finds generated
titles without one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.talk.model import Chapter


def pair_titles(human: Sequence[tuple[int, int, str]], generated: Sequence[Chapter]) -> list[tuple[str, str]]:
    """Pair each human title with the title of the generated chapter that shares most characters with its chapter."""
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
