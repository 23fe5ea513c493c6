"""Consistency filtering: a pair stays when the teachers find its passage for its query among a whole collection.

What pairs were cut out of pages or spoken words often do not belong together: the answer to "What does that mean?" is
any passage. A teacher that cannot tell a pair's passage from others has nothing to say about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.training.masks import Mask, Positives
from models.training.pairs import PairSet, Rows
from models.training.teachers.ensemble import checked_weights, scaled
from models.training.vectors import Scores, TeacherVectors
from services.errors import InvalidInput

# A block's scores take 4 bytes each and teacher: 64 MB.
BLOCK_SCORES = 16 * 1024**2


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """`links` bool [links]; `ranks` int32 [links]: how many passages are found before the pair's own (0: none)."""

    links: Mask
    ranks: Rows
    by_origin: dict[str, tuple[int, int]]

    def as_json(self) -> dict[str, Any]:
        """For reports: kept and all, by origin and together."""
        return {
            "kept": int(self.links.sum()),
            "of": int(self.links.size),
            "origins": {name: {"kept": kept, "of": count} for name, (kept, count) in self.by_origin.items()},
        }


def consistent(
    pairs: PairSet,
    vectors: Sequence[TeacherVectors],
    weights: Sequence[float],
    within: int,
    *,
    sample: int | None = 20_000,
    seed: int = 0,
    done: Callable[[int], object] = lambda links: None,
) -> Kept:
    """Which pairs have their passage among the first `within`, by the weighted sum of teachers' scaled scores.

    Ranked are all passages, or `sample` of them by chance when there are more; other answers of the query do not
    count, passages that score the same as the pair's own do (a teacher that knows nothing of a query, as BM25 of words
    that no passage has, must not let it pass). `done` hears how many links are ranked.

    Raises InvalidInput: `bad_ensemble` for weights, `bad_filter` for a `within` or a sample below 1.
    """
    checked_weights(len(vectors), weights)
    if within < 1 or (sample is not None and sample < 1):
        raise InvalidInput("bad_filter", f"A passage is looked for among 1 or more, not {within} of {sample}.")
    count = len(pairs.passages)
    rows = np.arange(count)
    if sample is not None and sample < count:
        rows = np.sort(np.random.default_rng(seed).choice(count, sample, replace=False))
    positives = Positives(pairs)
    ranks = np.zeros(len(pairs), dtype=np.int32)
    step = max(1, BLOCK_SCORES // max(1, rows.size))
    for start in range(0, len(pairs), step):
        links = np.arange(start, min(start + step, len(pairs)))
        ranks[links] = _ranks(pairs, links, rows, positives, vectors, weights)
        done(int(links[-1]) + 1)
    kept = ranks < within
    return Kept(kept, ranks, _by_origin(pairs, kept))


def _ranks(
    pairs: PairSet,
    links: NDArray[np.int64],
    rows: NDArray[np.int64],
    positives: Positives,
    vectors: Sequence[TeacherVectors],
    weights: Sequence[float],
) -> Rows:
    """Int32 [links]. A pair's own passage is the first column, so that a sample without it can be ranked too."""
    queries = pairs.query_rows[links]
    answers = positives.holds(queries[:, None], rows[None, :])
    total = np.zeros((links.size, rows.size + 1), dtype=np.float32)
    out = np.concatenate([np.zeros((links.size, 1), dtype=np.bool_), answers], axis=1)
    for one, weight in zip(vectors, weights, strict=True):
        if weight:
            others = one.scores(queries, rows)
            own = _own(one, queries, pairs.passage_rows[links])
            total += np.float32(weight) * scaled(np.concatenate([own[:, None], others], axis=1), out)
    return np.asarray(((total[:, 1:] >= total[:, :1]) & ~answers).sum(axis=1), dtype=np.int32)


def _own(vectors: TeacherVectors, queries: Rows, passages: Rows) -> Scores:
    """Float32 [links]: each query's score for its own passage, computed a few at a time off a small matrix."""
    found = [
        np.diagonal(vectors.scores(queries[start : start + 64], passages[start : start + 64]))
        for start in range(0, queries.size, 64)
    ]
    return np.concatenate(found)


def _by_origin(pairs: PairSet, kept: Mask) -> dict[str, tuple[int, int]]:
    counts = pairs.counts()
    held = np.bincount(pairs.origin_rows[kept], minlength=len(pairs.origins)).tolist()
    return {name: (held[number], counts[name]) for number, name in enumerate(pairs.origins)}
