"""Exact sparse search in memory: the score of every document, as OpenSearch computes it."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from services.vectors import SparseVector


class ExactIndex:
    """Postings of a collection's vectors: per piece, which documents have it and with what (truncated) weight."""

    def __init__(self, documents: Mapping[str, SparseVector]) -> None:
        self.names = list(documents)
        lengths = [len(vector) for vector in documents.values()]
        positions = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        empty: list[npt.NDArray[np.generic]] = [np.empty(0)]
        ids = np.concatenate([v.ids for v in documents.values()] or empty).astype(np.int32)
        weights = np.concatenate([v.weights for v in documents.values()] or empty).astype(np.float32)
        order = np.argsort(ids, kind="stable")
        self._documents = positions[order]
        self._weights = weights[order]
        pieces, starts = np.unique(ids[order], return_index=True)
        ends = np.append(starts[1:], ids.size)
        self._ranges = {int(i): (int(a), int(b)) for i, a, b in zip(pieces, starts, ends, strict=True)}

    def postings(self, piece: int) -> int:
        """How many documents have a piece."""
        start, end = self._ranges.get(piece, (0, 0))
        return end - start

    def scores(self, query: Mapping[int, float]) -> npt.NDArray[np.float32]:
        """Float32 [documents]; 0 where no piece is shared.

        Each product is a float32, their sum a double that is rounded once, as in Lucene's FeatureField and
        DisjunctionSumScorer.
        """
        total = np.zeros(len(self.names))
        for piece, boost in query.items():
            start, end = self._ranges.get(piece, (0, 0))
            # a piece has each document once, so plain indexing adds every product
            total[self._documents[start:end]] += np.float32(boost) * self._weights[start:end]
        return total.astype(np.float32)

    def search(self, query: Mapping[int, float], size: int) -> list[tuple[str, float]]:
        """The best `size` documents that share a piece with the query; equal scores in order of insertion."""
        scores = self.scores(query)
        matching = np.flatnonzero(scores)
        best = matching[np.argsort(-scores[matching], kind="stable")[:size]]
        return [(self.names[i], float(scores[i])) for i in best.tolist()]


def rankings(
    index: ExactIndex, queries: Mapping[str, Mapping[int, float]], size: int
) -> dict[str, Sequence[tuple[str, float]]]:
    """The ranking of every query."""
    return {query: index.search(weights, size) for query, weights in queries.items()}
