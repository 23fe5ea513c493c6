"""Queries that feedback moves, in memory: the tables of a projected encoder, and the lists of a collection.

`StudyCollection` ranks the queries of a judged collection before feedback and after it: exact sparse lists, fused with
lexical lists of a real node and reranked by dense vectors, as a search does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import numpy as np

from benchmarks.collections import CANDIDATE_COUNT
from benchmarks.quality.adapted_weights import count_frequencies
from benchmarks.quality.relevance import encode_jointly, store_windows
from cli.relevance.exact_search import ExactIndex
from cli.relevance.metrics import Ranking, Rankings
from models.judged_collection import JudgedCollection
from models.projection.graph import make_projection
from models.projection.refit import RefitStart
from services.documents.document import joined_text
from services.encoders.dense_query_table import DenseQueryEncoder
from services.encoders.query_table import QueryTable, QueryVector
from services.encoders.vectors import DenseArray, SparseVector, StoredDenseVectors
from services.index_spec import IndexSpec
from services.opensearch.stored_document import document_vector
from services.query.fusion import DEFAULT_WEIGHTS, fuse_lists, interpolate_scores

RERANK_WEIGHT: Final = 0.4
MAX_PIECES: Final = 1000


@dataclass(frozen=True, slots=True)
class MovedQuery:
    """A query after feedback: its sparse weights, and its dense vector (None: unknown pieces alone)."""

    sparse: Mapping[int, float]
    dense: DenseArray | None


@dataclass(frozen=True, slots=True, eq=False)
class StudyEncoder:
    """The tables of a projected encoder. `projection` is [width, vocabulary]."""

    start: RefitStart
    table: QueryTable
    dense: DenseQueryEncoder
    projection: DenseArray

    @classmethod
    def open(cls, directory: Path) -> Self:
        start, table = RefitStart.open(directory), QueryTable.load(directory)
        dense = DenseQueryEncoder.load(directory, table)
        if dense is None:
            raise SystemExit("feedback_learned: the encoder has no dense query table")
        weights = np.array([table.weight(piece) for piece in range(start.manifest.vocabulary)], np.float32)
        options = start.options
        projection = make_projection(
            start.rows,
            start.moments.spread(start.rows),
            weights,
            scale=options.scale,
            least_query_weight=options.least_query_weight,
        )
        return cls(start, table, dense, projection)

    def project(self, vector: DenseArray, table: QueryTable, count: int) -> dict[int, float]:
        """Return the heaviest pieces of a dense vector, weighted as a query."""
        products = (vector - self.start.moments.mean) @ self.projection
        best = np.argsort(-products)[:count]
        return {int(piece): float(products[piece]) * table.weight(int(piece)) for piece in best if products[piece] > 0}


@dataclass(frozen=True, slots=True, eq=False)
class StudyCollection:
    """A collection with the lists and vectors of its queries before feedback."""

    name: str
    collection: JudgedCollection
    table: QueryTable
    queries: Mapping[str, QueryVector]
    dense: Mapping[str, DenseArray | None]
    vectors: Mapping[str, SparseVector]
    index: ExactIndex
    stored: StoredDenseVectors
    rows: Mapping[str, DenseArray]
    lexical: Rankings
    first: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, collection: JudgedCollection, encoder: StudyEncoder, cache: Path, lexical: Rankings) -> Self:
        encoded = encode_jointly(collection, encoder.start.encoder, cache)
        top_k = IndexSpec.model_validate({}).document_top_k
        vectors = {name: document_vector(windows, top_k) for name, windows in encoded.windows.items()}
        ends = np.cumsum([len(own) for own in encoded.windows.values()])[:-1]
        blocks = dict(zip(encoded.windows, np.split(encoded.dense, ends), strict=True))
        texts = [joined_text(document.title, document.text) for document in collection.documents()]
        table = encoder.table.adapt(count_frequencies([encoder.table.ids(text) for text in texts]))
        found = cls(
            collection.name,
            collection,
            table,
            {name: table.encode(text, MAX_PIECES) for name, text in collection.judged.items()},
            {name: encoder.dense.encode(text) for name, text in collection.judged.items()},
            vectors,
            ExactIndex(vectors),
            store_windows(list(blocks), list(blocks.values())),
            {name: unit(rows.mean(axis=0)) for name, rows in blocks.items()},
            lexical,
            {},
        )
        queries = unmoved(found)
        lists = found.reranked(found.hybrid(queries), queries)
        first = {name: [document for document, _ in ranking] for name, ranking in lists.items()}
        return replace(found, first=first)

    def hybrid(self, moved: Mapping[str, MovedQuery]) -> dict[str, Ranking]:
        """Return the fused lists of moved queries."""
        return {
            name: fuse_lists(
                {
                    "sparse": dict(self.index.search(query.sparse, CANDIDATE_COUNT)),
                    "lexical": dict(self.lexical.get(name, ())),
                },
                DEFAULT_WEIGHTS,
            )
            for name, query in moved.items()
        }

    def reranked(self, fused: Mapping[str, Ranking], moved: Mapping[str, MovedQuery]) -> dict[str, Ranking]:
        """Return the fused lists, reranked by the moved dense vectors."""
        lists: dict[str, Ranking] = {}
        for name, ranking in fused.items():
            vector, top = moved[name].dense, ranking[:CANDIDATE_COUNT]
            scores = {} if vector is None else self.stored.scores(vector)
            second = {document: scores[document] for document, _ in top if document in scores}
            lists[name] = interpolate_scores(top, second, RERANK_WEIGHT)
        return lists

    def mean_of_best(self, name: str, count: int) -> DenseArray | None:
        """Return the mean of the dense vectors of the best documents; None without any."""
        rows = [self.rows[document] for document in self.first[name][:count] if document in self.rows]
        return np.mean(rows, axis=0, dtype=np.float32) if rows else None


def unit(vector: DenseArray) -> DenseArray:
    """Return a vector scaled to length 1."""
    length = float(np.linalg.norm(vector))
    return vector if length == 0 else np.asarray(vector / length, dtype=np.float32)


def unmoved(own: StudyCollection) -> dict[str, MovedQuery]:
    """Return the queries without feedback."""
    return {name: MovedQuery(query.by_id(), own.dense[name]) for name, query in own.queries.items()}
