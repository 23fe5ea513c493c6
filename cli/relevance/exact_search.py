"""Exact sparse search in memory: the reference that searches through OpenSearch are compared with.

`encode_documents` makes the vectors of a collection as the indexer does. `ExactIndex` ranks them: each score is
computed as OpenSearch computes it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.judged_collection import CorpusDocument
from services.documents.document import joined_text
from services.encoders.manifest import WindowSettings
from services.encoders.vectors import SparseVector
from services.opensearch.stored_document import EncodedWindow, document_vector

if TYPE_CHECKING:
    from models.encoder import Encoder

# Enough windows to sort by length, and few enough to keep their vectors in memory.
_BATCH_DOCUMENTS = 128


class ExactIndex:
    """Postings of a collection's vectors: the documents and (truncated) weights of each piece."""

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
        """Return the number of documents that have a piece."""
        start, end = self._ranges.get(piece, (0, 0))
        return end - start

    def scores(self, query: Mapping[int, float]) -> npt.NDArray[np.float32]:
        """Return the score of each document, float32 [documents]; 0 without a shared piece.

        Products are float32. Their sum is a double that is rounded once, as in Lucene's FeatureField and
        DisjunctionSumScorer.
        """
        total = np.zeros(len(self.names))
        for piece, boost in query.items():
            start, end = self._ranges.get(piece, (0, 0))
            # A piece has each document once, so indexed addition loses no product.
            total[self._documents[start:end]] += np.float32(boost) * self._weights[start:end]
        return total.astype(np.float32)

    def search(self, query: Mapping[int, float], size: int) -> list[tuple[str, float]]:
        """Return the best `size` documents that share a piece with the query, ties in order of insertion."""
        scores = self.scores(query)
        matching = np.flatnonzero(scores)
        best = matching[np.argsort(-scores[matching], kind="stable")[:size]]
        return [(self.names[i], float(scores[i])) for i in best.tolist()]


def rank_queries(
    index: ExactIndex, queries: Mapping[str, Mapping[int, float]], size: int
) -> dict[str, Sequence[tuple[str, float]]]:
    """Return the ranking of each query."""
    return {query: index.search(weights, size) for query, weights in queries.items()}


def encode_documents(
    encoder: "Encoder",
    documents: Iterable[CorpusDocument],
    window: WindowSettings,
    top_k: int,
    done: Callable[[int], object] = lambda count: None,
) -> dict[str, SparseVector]:
    """Return the vector of each document with a text, as the indexer makes it. `done` receives the number so far.

    A document has windows of `window` and at most `top_k` pieces; see IndexSpec for the values of an index.
    """
    document_vectors: dict[str, SparseVector] = {}
    for batch in _batches((d for d in documents if d.text), _BATCH_DOCUMENTS):
        batch_windows = [encoder.windows(joined_text(d.title, d.text), window.pieces, window.overlap) for d in batch]
        vectors = iter(encoder.encode([piece for windows in batch_windows for piece in windows]))
        for document, windows in zip(batch, batch_windows, strict=True):
            encoded = [EncodedWindow(w.start, w.end, next(vectors)) for w in windows]
            document_vectors[document.id] = document_vector(encoded, top_k)
        done(len(document_vectors))
    return document_vectors


def _batches(documents: Iterator[CorpusDocument], size: int) -> Iterator[list[CorpusDocument]]:
    while batch := list(islice(documents, size)):
        yield batch
