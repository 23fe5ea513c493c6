"""Hard negatives: passages that a first search takes for an answer and that are none, as far as is known.

Consistency filtering: a pair stays when the teachers find its passage for its query among a whole collection.

What pairs were cut out of pages or spoken words often do not belong together: the answer to "What does that mean?" is
any passage. A teacher that cannot tell a pair's passage from others has nothing to say about it.

The best passages of a whole collection for each query, by a teacher's vectors: exact, in blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.training.batches import Mask, PositiveLinks
from models.training.pairs import PairSet, Rows, texts_fingerprint
from models.training.storage import load_or_make_rows
from models.training.teacher_vectors import (
    DenseTeacherVectors,
    Scores,
    SparseRows,
    SparseTeacherVectors,
    TeacherVectors,
)
from models.training.teachers import require_teacher_weights, scale_scores
from services.errors import InvalidInput

# A block's scores take 4 bytes each and teacher: 64 MB.
BLOCK_SCORES = 16 * 1024**2


@dataclass(frozen=True, slots=True, eq=False)
class FilteredLinks:
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
    """Which pairs have their passage among the first `within`, by the weighted sum of teachers' scaled scores.

    Ranked are all passages, or `sample` of them by chance when there are more; other answers of the query do not
    count, passages that score the same as the pair's own do (a teacher that knows nothing of a query, as BM25 of words
    that no passage has, must not let it pass). `done` hears how many links are ranked.

    Raises InvalidInput: `bad_ensemble` for weights, `bad_filter` for a `within` or a sample below 1.
    """
    require_teacher_weights(len(vectors), weights)
    if within < 1 or (sample is not None and sample < 1):
        raise InvalidInput("bad_filter", f"A passage is looked for among 1 or more, not {within} of {sample}.")
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
    """Int32 [links]. A pair's own passage is the first column, so that a sample without it can be ranked too."""
    queries = pairs.query_rows[links]
    answers = positives.holds(queries[:, None], rows[None, :])
    total = np.zeros((links.size, rows.size + 1), dtype=np.float32)
    out = np.concatenate([np.zeros((links.size, 1), dtype=np.bool_), answers], axis=1)
    for one, weight in zip(vectors, weights, strict=True):
        if weight:
            others = one.scores(queries, rows)
            own = _own_scores(one, queries, pairs.passage_rows[links])
            total += np.float32(weight) * scale_scores(np.concatenate([own[:, None], others], axis=1), out)
    return np.asarray(((total[:, 1:] >= total[:, :1]) & ~answers).sum(axis=1), dtype=np.int32)


def _own_scores(vectors: TeacherVectors, queries: Rows, passages: Rows) -> Scores:
    """Float32 [links]: each query's score for its own passage, computed a few at a time off a small matrix."""
    found = [
        np.diagonal(vectors.scores(queries[start : start + 64], passages[start : start + 64]))
        for start in range(0, queries.size, 64)
    ]
    return np.concatenate(found)


def _count_by_origin(pairs: PairSet, kept: Mask) -> dict[str, tuple[int, int]]:
    counts = pairs.counts()
    held = np.bincount(pairs.origin_rows[kept], minlength=len(pairs.origins)).tolist()
    return {name: (held[number], counts[name]) for number, name in enumerate(pairs.origins)}


NO_PASSAGE = -1
# A block's scores take 4 bytes each: 64 MB.


class CandidateSource(Protocol):
    """Something that ranks passages for the queries of a set. `name` and `fingerprint` are as those of a teacher."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def best(self, query_rows: NDArray[np.integer], depth: int) -> Rows:
        """Int32 [B, depth]: rows of passages, best first, -1 where there are no more."""
        ...


class VectorCandidates:
    """Exact ranking by dense or sparse vectors. By sparse ones a passage that shares nothing is no candidate."""

    def __init__(self, vectors: TeacherVectors, fingerprint: str) -> None:
        """Raises InvalidInput (`bad_teacher`) for vectors of neither form."""
        self.name, self.fingerprint = vectors.name, fingerprint
        self._rank: _DenseScores | PassagePostings
        if isinstance(vectors, DenseTeacherVectors):
            self._rank = _DenseScores(vectors)
        elif isinstance(vectors, SparseTeacherVectors):
            self._rank = PassagePostings(vectors)
        else:
            raise InvalidInput("bad_teacher", f"{vectors.name} has neither dense nor sparse vectors to rank by.")

    def best(self, query_rows: NDArray[np.integer], depth: int) -> Rows:
        return self._rank.best(np.asarray(query_rows), depth)


class _DenseScores:
    def __init__(self, vectors: DenseTeacherVectors) -> None:
        self._vectors = vectors

    def best(self, query_rows: NDArray[np.integer], depth: int) -> Rows:
        count = self._vectors.passages_count
        width = max(1, BLOCK_SCORES // max(1, query_rows.size))
        rows = np.full((query_rows.size, depth), NO_PASSAGE, dtype=np.int32)
        scores = np.full((query_rows.size, depth), -np.inf, dtype=np.float32)
        for start in range(0, count, width):
            block = np.arange(start, min(start + width, count), dtype=np.int32)
            found = np.concatenate([scores, self._vectors.scores(query_rows, block)], axis=1)
            named = np.concatenate([rows, np.broadcast_to(block, (query_rows.size, block.size))], axis=1)
            order = _top_positions(found, depth)
            rows = np.take_along_axis(named, order, axis=1)
            scores = np.take_along_axis(found, order, axis=1)
        return rows


class PassagePostings:
    """Sparse rows turned around: for each piece the passages that have it. One query takes a walk through its lists."""

    def __init__(self, vectors: SparseTeacherVectors) -> None:
        self._queries = vectors.queries
        self._count = vectors.passages_count
        passages = vectors.passages
        order = np.argsort(passages.ids, kind="stable")
        owners = np.repeat(np.arange(self._count, dtype=np.int32), np.diff(passages.indptr))
        self._owners, self._weights = owners[order], passages.weights[order]
        self._starts = np.searchsorted(passages.ids[order], np.arange(int(passages.ids.max(initial=-1)) + 2))

    def scores(self, queries: SparseRows, row: int) -> Scores:
        """Float32 [passages] of one row of `queries`."""
        found = np.zeros(self._count, dtype=np.float32)
        start, end = queries.indptr[row], queries.indptr[row + 1]
        for piece, weight in zip(queries.ids[start:end].tolist(), queries.weights[start:end].tolist(), strict=True):
            if piece + 1 < self._starts.size:
                one = slice(self._starts[piece], self._starts[piece + 1])
                # (a passage has a piece once, so plain indexing adds every product)
                found[self._owners[one]] += np.float32(weight) * self._weights[one]
        return found

    def best(self, query_rows: NDArray[np.integer], depth: int) -> Rows:
        rows = np.full((query_rows.size, depth), NO_PASSAGE, dtype=np.int32)
        queries = self._queries.take(query_rows)
        for row in range(query_rows.size):
            scores = self.scores(queries, row)
            matching = np.flatnonzero(scores > 0)
            found = matching[_top_positions(scores[matching][None, :], depth)[0]]
            rows[row, : found.size] = found
        return rows


def _top_positions(scores: Scores, depth: int) -> NDArray[np.int64]:
    """[B, at most depth]: the places of the highest scores, best first; equal ones by place, but for the last few."""
    if scores.shape[1] > depth:
        places = np.sort(np.argpartition(-scores, depth - 1, axis=1)[:, :depth], axis=1)
        order = np.argsort(-np.take_along_axis(scores, places, axis=1), axis=1, kind="stable")
        return np.take_along_axis(places, order, axis=1)
    return np.argsort(-scores, axis=1, kind="stable")


BLOCK_QUERIES = 1024
_MAX_DRAWS = 4  # at random, for each negative that the lists could not give
_COUNTS = ("mined", "random", "missing", "known", "too_good")


@dataclass(frozen=True, slots=True)
class MiningRule:
    """`count` negatives a pair, drawn by chance from ranks `skip` to `depth` of each source's list.

    The first ranks often hold answers that nobody linked, hence `skip`; for the same reason a candidate that the
    teacher scores above `ceiling` times the pair's own passage is no negative (None: no such rule).
    """

    count: int = 3
    depth: int = 50
    skip: int = 1
    ceiling: float | None = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.skip < self.depth or (self.ceiling is not None and not self.ceiling > 0):
            raise InvalidInput(
                "bad_mining", f"Mining takes a count of 1 or more, 0 <= skip < depth and a ceiling above 0: {self}."
            )


@dataclass(frozen=True, slots=True, eq=False)
class MinedNegatives:
    """`rows` int32 [links, count] of passages, -1 where a pair has fewer.

    `counts` says how many were mined, drawn at random from all passages because the lists gave too few, and missing
    altogether; and how many candidates were known answers or too good for a negative.
    """

    rows: Rows
    counts: dict[str, int]


def load_candidate_lists(
    source: CandidateSource,
    pairs: PairSet,
    depth: int,
    directory: Path,
    done: Callable[[int], object] = lambda queries: None,
) -> Rows:
    """Int32 [queries, depth]: the source's list for each query, -1 after its end; kept in `directory` block by block.

    Another source, depth, or other texts have another name there. `done` hears how many queries have theirs.
    """
    texts = texts_fingerprint([texts_fingerprint(pairs.queries), texts_fingerprint(pairs.passages)])
    arrays = load_or_make_rows(
        directory / f"candidates-{source.name}-{texts_fingerprint([source.fingerprint, str(depth), texts])}",
        len(pairs.queries),
        BLOCK_QUERIES,
        lambda start, end: {"candidates": source.best(np.arange(start, end), depth)},
        about={"source": source.name, "source_fingerprint": source.fingerprint},
        done=done,
    )
    return arrays["candidates"]


def mine_negatives(
    pairs: PairSet, lists: Sequence[Rows], rule: MiningRule, teacher: TeacherVectors | None = None
) -> MinedNegatives:
    """Draws the negatives of every link from the lists of its query, see `MiningRule`.

    `lists` are what `load_candidate_lists` gives, one a source. Known answers of the query are never drawn, no passage is
    drawn twice for a link, and the same arguments draw the same. Without a `teacher` the ceiling plays no part.

    Raises InvalidInput (`bad_mining`) for no list.
    """
    if not lists:
        raise InvalidInput("bad_mining", "Mining needs at least one list of candidates.")
    cut = [np.asarray(one)[:, rule.skip : rule.depth] for one in lists]
    miner = _NegativeMiner(
        pairs, np.concatenate(cut, axis=1), rule, teacher, PositiveLinks(pairs), dict.fromkeys(_COUNTS, 0)
    )
    rows = np.full((len(pairs), rule.count), NO_PASSAGE, dtype=np.int32)
    for start in range(0, len(pairs), BLOCK_QUERIES):
        links = np.arange(start, min(start + BLOCK_QUERIES, len(pairs)))
        rows[links] = miner.draw(links, np.random.default_rng([rule.seed, start]))
    return MinedNegatives(rows, miner.counts)


@dataclass
class _NegativeMiner:
    pairs: PairSet
    candidates: Rows
    rule: MiningRule
    teacher: TeacherVectors | None
    positives: PositiveLinks
    counts: dict[str, int]

    def draw(self, links: NDArray[np.int64], random: np.random.Generator) -> Rows:
        """[links, count]: from the lists, then by chance from all passages, then -1."""
        count, total = self.rule.count, len(self.pairs.passages)
        mined = self._usable(links, self.candidates[self.pairs.query_rows[links]], told=True)
        chosen = _shuffle_rows(mined, random)[:, :count]
        held = (chosen != NO_PASSAGE).sum(axis=1)
        short = np.flatnonzero(held < count)
        drawn = random.integers(0, max(1, total), (short.size, _MAX_DRAWS * count), dtype=np.int32)
        further = np.full((links.size, drawn.shape[1]), NO_PASSAGE, dtype=np.int32)
        further[short] = self._usable(links[short], drawn)
        found = _first_distinct(np.concatenate([chosen, further], axis=1), count)
        self.counts["mined"] += int(held.sum())
        self.counts["random"] += int((found != NO_PASSAGE).sum()) - int(held.sum())
        self.counts["missing"] += int((found == NO_PASSAGE).sum())
        return found

    def _usable(self, links: NDArray[np.int64], rows: Rows, *, told: bool = False) -> Rows:
        """The same rows, with -1 for those that are no negatives of their link; with `told` these are counted."""
        answers = self.positives.holds(self.pairs.query_rows[links][:, None], rows)
        rows = np.where(answers, NO_PASSAGE, rows)
        above = self._above(links, rows)
        if told:
            self.counts["known"] += int(answers.sum())
            self.counts["too_good"] += int(above.sum())
        return np.where(above, NO_PASSAGE, rows).astype(np.int32)

    def _above(self, links: NDArray[np.int64], rows: Rows) -> NDArray[np.bool_]:
        above = np.zeros(rows.shape, dtype=np.bool_)
        if self.teacher is None or self.rule.ceiling is None:
            return above
        for place, link in enumerate(links.tolist()):
            named = np.flatnonzero(rows[place] != NO_PASSAGE)
            if named.size:
                asked = np.append(rows[place][named], self.pairs.passage_rows[link])
                scores = self.teacher.scores(self.pairs.query_rows[[link]], asked)[0]
                own = float(scores[-1])
                # (a share of a negative number would lie above it)
                above[place, named] = scores[:-1] > (own * self.rule.ceiling if own > 0 else own)
        return above


def _shuffle_rows(rows: Rows, random: np.random.Generator) -> Rows:
    """Each row's passages in an order of chance, -1 and repetitions last (as -1)."""
    keys = random.random(rows.shape)
    keys[rows == NO_PASSAGE] = 2
    mixed = np.take_along_axis(rows, np.argsort(keys, axis=1), axis=1)
    return _first_distinct(mixed, rows.shape[1])


def _first_distinct(rows: Rows, count: int) -> Rows:
    """[n, count]: each row's first distinct passages, filled up with -1."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    again = np.zeros(rows.shape, dtype=np.bool_)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    repeated = np.zeros_like(again)
    np.put_along_axis(repeated, order, again, axis=1)
    kept = np.where(repeated, NO_PASSAGE, rows)
    front = np.argsort(kept == NO_PASSAGE, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(kept, front, axis=1).astype(np.int32)
