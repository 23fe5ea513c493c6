"""Consistency filter: a pair stays when the teachers rank its passage high for its query.

Pairs that were extracted from pages or speech often do not belong together: any passage answers "What does that mean?".
A teacher that cannot distinguish a pair's passage from others has no useful target for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.training.batches import Mask, PositiveLinks
from models.training.pairs import PairSet, Rows
from models.training.teacher_vectors import BLOCK_SCORES, Scores, TeacherVectors
from models.training.teachers import require_teacher_weights, scale_scores
from services.errors import InvalidInput


@dataclass(frozen=True, slots=True, eq=False)
class FilteredLinks:
    """Result of the consistency filter. `links` bool [links]: kept. `ranks` int32 [links]: passages before the pair's
    own.
    """

    links: Mask
    ranks: Rows
    by_origin: dict[str, tuple[int, int]]

    def as_json(self) -> dict[str, Any]:
        """Return the counts of kept and all links, by origin and together."""
        return {
            "kept": int(self.links.sum()),
            "of": int(self.links.size),
            "origins": {name: {"kept": kept, "of": count} for name, (kept, count) in self.by_origin.items()},
        }


def filter_consistent(
    pairs: PairSet,
    vectors: Sequence[TeacherVectors],
    weights: Sequence[float],
    within: int,
    *,
    sample: int | None = 20_000,
    seed: int = 0,
    done: Callable[[int], object] = lambda links: None,
) -> FilteredLinks:
    """Keep the pairs whose passage is among the first `within`, by the weighted sum of the teachers' scaled scores.

    All passages are ranked, or `sample` random passages if there are more; other answers of the query are left out.
    Passages with the same score as the pair's own count before it: a teacher without information on a query, as BM25
    for words that no passage has, must not let it pass. `done` receives the number of ranked links.

    Raises InvalidInput: `bad_ensemble` for weights, `bad_filter` for a `within` or a sample below 1.
    """
    require_teacher_weights(len(vectors), weights)
    if within < 1 or (sample is not None and sample < 1):
        raise InvalidInput("bad_filter", f"`within` and the sample must be at least 1, not {within} and {sample}.")
    count = len(pairs.passages)
    rows = np.arange(count)
    if sample is not None and sample < count:
        rows = np.sort(np.random.default_rng(seed).choice(count, sample, replace=False))
    positives = PositiveLinks(pairs)
    ranks = np.zeros(len(pairs), dtype=np.int32)
    step = max(1, BLOCK_SCORES // max(1, rows.size))
    for start in range(0, len(pairs), step):
        links = np.arange(start, min(start + step, len(pairs)))
        ranks[links] = _ranks(pairs, links, rows, positives, vectors, weights)
        done(int(links[-1]) + 1)
    kept = ranks < within
    return FilteredLinks(kept, ranks, _count_by_origin(pairs, kept))


def _ranks(
    pairs: PairSet,
    links: NDArray[np.int64],
    rows: NDArray[np.int64],
    positives: PositiveLinks,
    vectors: Sequence[TeacherVectors],
    weights: Sequence[float],
) -> Rows:
    """Return int32 [links]. A pair's own passage is column 0, so that a sample without it can be ranked too."""
    queries = pairs.query_rows[links]
    answers = positives.holds(queries[:, None], rows[None, :])
    total = np.zeros((links.size, rows.size + 1), dtype=np.float32)
    left_out = np.concatenate([np.zeros((links.size, 1), dtype=np.bool_), answers], axis=1)
    for teacher, weight in zip(vectors, weights, strict=True):
        if weight:
            others = teacher.scores(queries, rows)
            own = _own_scores(teacher, queries, pairs.passage_rows[links])
            total += np.float32(weight) * scale_scores(np.concatenate([own[:, None], others], axis=1), left_out)
    return np.asarray(((total[:, 1:] >= total[:, :1]) & ~answers).sum(axis=1), dtype=np.int32)


def _own_scores(vectors: TeacherVectors, queries: Rows, passages: Rows) -> Scores:
    """Return float32 [links]: each query's score for its own passage, from the diagonals of small matrices."""
    blocks = [
        np.diagonal(vectors.scores(queries[start : start + 64], passages[start : start + 64]))
        for start in range(0, queries.size, 64)
    ]
    return np.concatenate(blocks)


def _count_by_origin(pairs: PairSet, kept: Mask) -> dict[str, tuple[int, int]]:
    counts = pairs.counts()
    kept_counts = np.bincount(pairs.origin_rows[kept], minlength=len(pairs.origins)).tolist()
    return {name: (kept_counts[number], counts[name]) for number, name in enumerate(pairs.origins)}
