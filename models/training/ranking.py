"""The best passages of a whole collection for each query, by a teacher's vectors: exact, in blocks."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.training.pairs import Rows
from models.training.vectors import DenseVectors, Scores, SparseRows, SparseVectors, TeacherVectors
from services.errors import InvalidInput

NONE = -1
# A block's scores take 4 bytes each: 64 MB.
BLOCK_SCORES = 16 * 1024**2


class Candidates(Protocol):
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
        self._rank: _Dense | Postings
        if isinstance(vectors, DenseVectors):
            self._rank = _Dense(vectors)
        elif isinstance(vectors, SparseVectors):
            self._rank = Postings(vectors)
        else:
            raise InvalidInput("bad_teacher", f"{vectors.name} has neither dense nor sparse vectors to rank by.")

    def best(self, query_rows: NDArray[np.integer], depth: int) -> Rows:
        return self._rank.best(np.asarray(query_rows), depth)


class _Dense:
    def __init__(self, vectors: DenseVectors) -> None:
        self._vectors = vectors

    def best(self, query_rows: NDArray[np.integer], depth: int) -> Rows:
        count = self._vectors.passages_count
        width = max(1, BLOCK_SCORES // max(1, query_rows.size))
        rows = np.full((query_rows.size, depth), NONE, dtype=np.int32)
        scores = np.full((query_rows.size, depth), -np.inf, dtype=np.float32)
        for start in range(0, count, width):
            block = np.arange(start, min(start + width, count), dtype=np.int32)
            found = np.concatenate([scores, self._vectors.scores(query_rows, block)], axis=1)
            named = np.concatenate([rows, np.broadcast_to(block, (query_rows.size, block.size))], axis=1)
            order = _first(found, depth)
            rows = np.take_along_axis(named, order, axis=1)
            scores = np.take_along_axis(found, order, axis=1)
        return rows


class Postings:
    """Sparse rows turned around: for each piece the passages that have it. One query takes a walk through its lists."""

    def __init__(self, vectors: SparseVectors) -> None:
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
        rows = np.full((query_rows.size, depth), NONE, dtype=np.int32)
        queries = self._queries.take(query_rows)
        for row in range(query_rows.size):
            scores = self.scores(queries, row)
            matching = np.flatnonzero(scores > 0)
            found = matching[_first(scores[matching][None, :], depth)[0]]
            rows[row, : found.size] = found
        return rows


def _first(scores: Scores, depth: int) -> NDArray[np.int64]:
    """[B, at most depth]: the places of the highest scores, best first; equal ones by place, but for the last few."""
    if scores.shape[1] > depth:
        places = np.sort(np.argpartition(-scores, depth - 1, axis=1)[:, :depth], axis=1)
        order = np.argsort(-np.take_along_axis(scores, places, axis=1), axis=1, kind="stable")
        return np.take_along_axis(places, order, axis=1)
    return np.argsort(-scores, axis=1, kind="stable")
