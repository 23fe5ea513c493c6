"""Simpler ways to divide a talk, for comparison: equal lengths, chance, and TextTiling twice.

Each gives the segments where chapters begin after the first one. TextTiling's parameters were chosen on the tuning half
of two sets, as the engine's were (docs/decisions/0194-chapters-by-tiling.md); of equal lengths one chapter is best.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from models.chapters.engine import Episode
from models.chapters.tiling.blocks import Block, length
from models.chapters.tiling.engine import cut_blocks
from models.chapters.titles.words import common_words, words
from services.errors import ConfigurationError

Division = Callable[[Episode], Sequence[int]]


def one_chapter(episode: Episode) -> list[int]:
    """No division at all: what Pk and WindowDiff say of it is what a division must beat to be of use."""
    return []


def equal(episode: Episode, words_each: float = 1200) -> list[int]:
    """As many chapters of equal length as fit."""
    said = _words_before(episode)
    count = max(1, round(said[-1] / words_each))
    return _inner((int(np.searchsorted(said, said[-1] * i / count)) for i in range(1, count)), len(said) - 1)


def chance(episode: Episode, words_each: float = 1200) -> list[int]:
    """As many as in `equal`, anywhere; the same for the same text."""
    said = _words_before(episode)
    count = max(1, round(said[-1] / words_each))
    drawn = random.Random(episode.text)  # noqa: S311 (a division, not a secret)
    return _inner((int(np.searchsorted(said, drawn.uniform(0, said[-1]))) for _ in range(count - 1)), len(said) - 1)


def texttiling_nltk(episode: Episode) -> list[int]:
    """NLTK's TextTilingTokenizer with its defaults; segments are its paragraphs."""
    try:
        from nltk.tokenize.texttiling import TextTilingTokenizer
    except ImportError:
        raise ConfigurationError(
            "missing_extra", "TextTiling needs the package nltk: pip install -e '.[eval]'."
        ) from None
    offsets = episode.segments.offsets
    parts = [
        " ".join(episode.text[start:end].split()) or "-"
        for start, end in zip(offsets, [*offsets[1:], len(episode.text)], strict=True)
    ]
    try:
        tiles = TextTilingTokenizer(stopwords=sorted(common_words())).tokenize("\n\n".join(parts))
    except ValueError:  # too short for it
        return []
    found, segments = [], 0
    for tile in tiles[:-1]:
        segments += len([part for part in tile.split("\n\n") if part.strip()])
        found.append(segments)
    return _inner(found, len(offsets))


def texttiling(episode: Episode, *, reach: int = 16, rounds: int = 1, above: float = 3.0) -> list[int]:
    """Hearst's TextTiling on the engine's own blocks: valleys of word cosine between so many blocks on each side.

    A valley counts when it is deeper than the mean by `above` standard deviations; `rounds` of smoothing come before.
    """
    cut = cut_blocks(episode)
    return valleys(episode, cut, word_counts(episode, cut), reach=reach, rounds=rounds, above=above)


def valleys(
    episode: Episode, blocks: Sequence[Block], counts: npt.NDArray[np.float32], *, reach: int, rounds: int, above: float
) -> list[int]:
    """`texttiling` of words that have been counted."""
    if len(blocks) < 3:
        return []
    depths = _depths(_likeness(counts, reach, rounds))
    least = depths.mean() + above * depths.std()
    open_ = np.array([i for i, block in enumerate(blocks) if block.opens and i])
    chosen: list[int] = []
    for gap in np.argsort(-depths, kind="stable"):
        if depths[gap] <= max(least, 0):
            break
        if all(abs(gap - other) > 1 for other in chosen):
            chosen.append(int(gap))
    if not len(open_):
        return []
    starts = {blocks[int(open_[np.argmin(np.abs(open_ - gap - 1))])].start for gap in chosen}
    return _inner((episode.segments.at(start) for start in starts), len(episode.segments))


def word_counts(episode: Episode, blocks: Sequence[Block]) -> npt.NDArray[np.float32]:
    """Counts of words that mean something, up to each block."""
    places: dict[str, int] = {}
    counted = [
        [
            places.setdefault(word.plain, len(places))
            for word in words(episode.text[block.start : block.end])
            if word.plain not in common_words()
        ]
        for block in blocks
    ]
    counts = np.zeros((len(blocks) + 1, max(1, len(places))), np.float32)
    for i, ids in enumerate(counted, 1):
        np.add.at(counts[i], ids, 1)
    return np.cumsum(counts, axis=0, out=counts)


def _likeness(counts: npt.NDArray[np.float32], reach: int, rounds: int) -> npt.NDArray[np.float64]:
    gaps = np.arange(1, len(counts) - 1)
    sides = np.minimum(reach, np.minimum(gaps, len(counts) - 1 - gaps))
    left, right = counts[gaps] - counts[gaps - sides], counts[gaps + sides] - counts[gaps]
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found: npt.NDArray[np.float64] = ((left * right).sum(axis=1) / np.maximum(norms, 1e-9)).astype(np.float64)
    for _ in range(rounds):
        padded = np.pad(found, 1, mode="edge")
        found = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    return found


def _depths(likeness: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How far up it goes from each gap on both sides."""
    depths = np.zeros(len(likeness))
    for i, value in enumerate(likeness):
        left = right = i
        while left > 0 and likeness[left - 1] >= likeness[left]:
            left -= 1
        while right < len(likeness) - 1 and likeness[right + 1] >= likeness[right]:
            right += 1
        depths[i] = likeness[left] + likeness[right] - 2 * value
    return depths


def _words_before(episode: Episode) -> npt.NDArray[np.int64]:
    """Words up to the beginning of each segment, and all of them."""
    offsets = episode.segments.offsets
    sizes = [length(episode.text, a, b) for a, b in zip(offsets, [*offsets[1:], len(episode.text)], strict=True)]
    return np.concatenate([[0], np.cumsum(sizes)])


def _inner(segments: Iterable[int], count: int) -> list[int]:
    """In order, each once, without the one that the talk begins with."""
    return sorted({segment for segment in segments if 0 < segment < count})
