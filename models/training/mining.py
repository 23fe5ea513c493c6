"""Mining of hard negatives: passages that rank high for a query and are not a known answer.

`VectorCandidates` ranks all passages of a collection by a teacher's vectors, exactly and in blocks.
`IndexCandidates` are the hits of a sparsewell index, in any mode. `load_candidate_lists` keeps the lists of a source
under its fingerprint, and `mine_negatives` draws negatives from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.training.batches import PositiveLinks
from models.training.pairs import PairSet, Rows, texts_fingerprint
from models.training.storage import load_or_make_rows
from models.training.teacher_vectors import (
    BLOCK_SCORES,
    DenseTeacherVectors,
    Scores,
    SparseRows,
    SparseTeacherVectors,
    TeacherVectors,
)
from services.errors import InvalidInput

BLOCK_QUERIES = 1024
NO_PASSAGE = -1
_MAX_DRAWS = 4  # random draws for each negative that the lists do not give
_COUNTS = ("mined", "random", "missing", "known", "too_good")


@dataclass(frozen=True, slots=True)
class MiningRule:
    """Rule of mining: `count` negatives a pair, drawn at random from ranks `skip` to `depth` of each source's list.

    The first ranks often hold unlinked answers, hence `skip`. For the same reason a candidate is rejected when the
    teacher scores it above `ceiling` times the pair's own passage (None: no ceiling).

    Raises InvalidInput (`bad_mining`).
    """

    count: int = 3
    depth: int = 50
    skip: int = 1
    ceiling: float | None = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.skip < self.depth or (self.ceiling is not None and not self.ceiling > 0):
            raise InvalidInput(
                "bad_mining", f"Mining needs a count of at least 1, 0 <= skip < depth and a ceiling above 0: {self}."
            )


@dataclass(frozen=True, slots=True, eq=False)
class MinedNegatives:
    """Hard negatives of the links. `rows` int32 [links, count] of passages, -1 where a pair has fewer.

    `counts` has the negatives that were `mined`, those that were drawn at `random` from all passages because the lists
    were too short, and those that are `missing`; and the rejected candidates: `known` answers, and `too_good` ones.
    """

    rows: Rows
    counts: dict[str, int]


def mine_negatives(
    pairs: PairSet, lists: Sequence[Rows], rule: MiningRule, teacher: TeacherVectors | None = None
) -> MinedNegatives:
    """Draw the negatives of every link from the lists of its query, see `MiningRule`.

    `lists` come from `load_candidate_lists`, one for each source. Known answers of the query are never drawn, a link
    gets each passage once, and the same arguments give the same draws. Without a `teacher` the ceiling has no effect.

    Raises InvalidInput (`bad_mining`) for no list.
    """
    if not lists:
        raise InvalidInput("bad_mining", "Mining needs at least one list of candidates.")
    cut = [np.asarray(ranking)[:, rule.skip : rule.depth] for ranking in lists]
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
        """Return [links, count]: from the lists, then at random from all passages, then -1."""
        count, total = self.rule.count, len(self.pairs.passages)
        mined = self._usable(links, self.candidates[self.pairs.query_rows[links]], counted=True)
        chosen = _shuffle_rows(mined, random)[:, :count]
        mined_counts = (chosen != NO_PASSAGE).sum(axis=1)
        short = np.flatnonzero(mined_counts < count)
        drawn = random.integers(0, max(1, total), (short.size, _MAX_DRAWS * count), dtype=np.int32)
        random_rows = np.full((links.size, drawn.shape[1]), NO_PASSAGE, dtype=np.int32)
        random_rows[short] = self._usable(links[short], drawn)
        negatives = _first_distinct(np.concatenate([chosen, random_rows], axis=1), count)
        self.counts["mined"] += int(mined_counts.sum())
        self.counts["random"] += int((negatives != NO_PASSAGE).sum()) - int(mined_counts.sum())
        self.counts["missing"] += int((negatives == NO_PASSAGE).sum())
        return negatives

    def _usable(self, links: NDArray[np.int64], rows: Rows, *, counted: bool = False) -> Rows:
        """Replace rows that are not negatives of their link with -1; if `counted`, add them to the counts."""
        answers = self.positives.holds(self.pairs.query_rows[links][:, None], rows)
        rows = np.where(answers, NO_PASSAGE, rows)
        above = self._above(links, rows)
        if counted:
            self.counts["known"] += int(answers.sum())
            self.counts["too_good"] += int(above.sum())
        return np.where(above, NO_PASSAGE, rows).astype(np.int32)

    def _above(self, links: NDArray[np.int64], rows: Rows) -> NDArray[np.bool_]:
        above = np.zeros(rows.shape, dtype=np.bool_)
        if self.teacher is None or self.rule.ceiling is None:
            return above
        for place, link in enumerate(links.tolist()):
            candidates = np.flatnonzero(rows[place] != NO_PASSAGE)
            if candidates.size:
                passages = np.append(rows[place][candidates], self.pairs.passage_rows[link])
                scores = self.teacher.scores(self.pairs.query_rows[[link]], passages)[0]
                own = float(scores[-1])
                # a share of a negative score would lie above the score
                above[place, candidates] = scores[:-1] > (own * self.rule.ceiling if own > 0 else own)
        return above


def _shuffle_rows(rows: Rows, random: np.random.Generator) -> Rows:
    """Shuffle each row's passages; -1 and repetitions come last (as -1)."""
    keys = random.random(rows.shape)
    keys[rows == NO_PASSAGE] = 2
    shuffled = np.take_along_axis(rows, np.argsort(keys, axis=1), axis=1)
    return _first_distinct(shuffled, rows.shape[1])


def _first_distinct(rows: Rows, count: int) -> Rows:
    """Return [n, count]: each row's first distinct passages, then -1."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    repeats = np.zeros(rows.shape, dtype=np.bool_)
    repeats[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    repeated = np.zeros_like(repeats)
    np.put_along_axis(repeated, order, repeats, axis=1)
    kept = np.where(repeated, NO_PASSAGE, rows)
    front = np.argsort(kept == NO_PASSAGE, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(kept, front, axis=1).astype(np.int32)


def load_candidate_lists(
    source: CandidateSource,
    pairs: PairSet,
    depth: int,
    directory: Path,
    done: Callable[[int], object] = lambda queries: None,
) -> Rows:
    """Return the source's list for each query, int32 [queries, depth], -1 after its end; keep it in `directory` by
    block.

    Another source, depth or set of texts has another name in `directory`. `done` receives the number of finished
    queries.
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


class CandidateSource(Protocol):
    """Source of ranked passages for the queries of a set. `name` and `fingerprint` are like those of a teacher."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def best(self, query_rows: NDArray[np.integer], depth: int) -> Rows:
        """Return int32 [B, depth]: rows of passages, best first, -1 after the last."""
        ...


class VectorCandidates:
    """Exact ranking by dense or sparse vectors. Sparse vectors rank only passages that share a piece with the query."""

    def __init__(self, vectors: TeacherVectors, fingerprint: str) -> None:
        """Raise InvalidInput (`bad_teacher`) for vectors that are neither dense nor sparse."""
        self.name, self.fingerprint = vectors.name, fingerprint
        self._rank: _DenseScores | PassagePostings
        if isinstance(vectors, DenseTeacherVectors):
            self._rank = _DenseScores(vectors)
        elif isinstance(vectors, SparseTeacherVectors):
            self._rank = PassagePostings(vectors)
        else:
            raise InvalidInput("bad_teacher", f"{vectors.name} has neither dense nor sparse vectors.")

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
            block_scores = np.concatenate([scores, self._vectors.scores(query_rows, block)], axis=1)
            block_rows = np.concatenate([rows, np.broadcast_to(block, (query_rows.size, block.size))], axis=1)
            order = _top_positions(block_scores, depth)
            rows = np.take_along_axis(block_rows, order, axis=1)
            scores = np.take_along_axis(block_scores, order, axis=1)
        return rows


class PassagePostings:
    """Postings of sparse rows: for each piece, the passages that have it. A query reads the lists of its pieces."""

    def __init__(self, vectors: SparseTeacherVectors) -> None:
        self._queries = vectors.queries
        self._count = vectors.passages_count
        passages = vectors.passages
        order = np.argsort(passages.ids, kind="stable")
        owners = np.repeat(np.arange(self._count, dtype=np.int32), np.diff(passages.indptr))
        self._owners, self._weights = owners[order], passages.weights[order]
        self._starts = np.searchsorted(passages.ids[order], np.arange(int(passages.ids.max(initial=-1)) + 2))

    def scores(self, queries: SparseRows, row: int) -> Scores:
        """Return float32 [passages]: the scores of one row of `queries`."""
        scores = np.zeros(self._count, dtype=np.float32)
        start, end = queries.indptr[row], queries.indptr[row + 1]
        for piece, weight in zip(queries.ids[start:end].tolist(), queries.weights[start:end].tolist(), strict=True):
            if piece + 1 < self._starts.size:
                postings = slice(self._starts[piece], self._starts[piece + 1])
                # a passage has each piece once, so fancy indexing adds every product
                scores[self._owners[postings]] += np.float32(weight) * self._weights[postings]
        return scores

    def best(self, query_rows: NDArray[np.integer], depth: int) -> Rows:
        rows = np.full((query_rows.size, depth), NO_PASSAGE, dtype=np.int32)
        queries = self._queries.take(query_rows)
        for row in range(query_rows.size):
            scores = self.scores(queries, row)
            matching = np.flatnonzero(scores > 0)
            best = matching[_top_positions(scores[matching][None, :], depth)[0]]
            rows[row, : best.size] = best
        return rows


def _top_positions(scores: Scores, depth: int) -> NDArray[np.int64]:
    """Return [B, at most depth]: positions of the highest scores, best first; ties in the order of positions.

    Ties at the cut itself are in any order.
    """
    if scores.shape[1] > depth:
        places = np.sort(np.argpartition(-scores, depth - 1, axis=1)[:, :depth], axis=1)
        order = np.argsort(-np.take_along_axis(scores, places, axis=1), axis=1, kind="stable")
        return np.take_along_axis(places, order, axis=1)
    return np.argsort(-scores, axis=1, kind="stable")


SearchPassages = Callable[[Sequence[str], int], Sequence[Sequence[str]]]


class IndexCandidates:
    """Candidate lists from an index that holds `passage_documents`. Hits outside the pair set are skipped.

    `search` takes several queries and returns the ids of at most `depth` hits of each, best first. `fingerprint` must
    change when the index would give other answers.
    """

    def __init__(self, pairs: PairSet, search: SearchPassages, *, name: str, fingerprint: str) -> None:
        self.name, self.fingerprint = name, fingerprint
        self._queries, self._search = pairs.queries, search
        self._rows: Mapping[str, int] = {passage_id(text): row for row, text in enumerate(pairs.passages)}

    def best(self, query_rows: NDArray[np.integer], depth: int) -> Rows:
        candidates = np.full((query_rows.size, depth), NO_PASSAGE, dtype=np.int32)
        answers = self._search([self._queries[row] for row in query_rows.tolist()], depth)
        for place, ids in enumerate(answers):
            rows = [self._rows[hit] for hit in ids if hit in self._rows][:depth]
            candidates[place, : len(rows)] = rows
        return candidates


def passage_id(text: str) -> str:
    """Return the id of a passage in an index, which maps hits back to the passages of a pair set."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def passage_documents(pairs: PairSet) -> Iterator[dict[str, str]]:
    """Yield the documents to load into an index of candidates."""
    for text in pairs.passages:
        yield {"id": passage_id(text), "text": text}


# A function that opens a sparsewell index as a source of candidates; only the command line knows how to search it.
OpenIndexCandidates = Callable[[PairSet], CandidateSource]
