"""Collections in memory: sparse, dense and lexical lists without a node, for studies that search thousands of times.

Sparse lists are exact and score merged vectors, with the query table adapted to the collection's documents. Lexical
lists are those of bm25s in Lucene's form, k1 1.2, b 0.75, with Snowball's English stemmer and stop words; a query may
give its words boosts. The service's functions fuse and rerank.
"""

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np

from benchmarks.collections import CANDIDATE_COUNT, DocumentWindows, open_sample
from benchmarks.quality.adapted_weights import count_frequencies
from benchmarks.quality.feedback import fuse_named_lists
from benchmarks.quality.relevance import encode_jointly
from cli.relevance.exact_search import ExactIndex
from cli.relevance.metrics import Ranking
from models.judged_collection import CorpusDocument, JudgedCollection, Judgements, open_collection
from models.judged_queries import LexicalScores
from models.projection.encoder import ProjectedEncoder
from services.documents.document import joined_text
from services.encoders.dense_query_table import DenseQueryEncoder
from services.encoders.query_table import QueryTable, QueryVector
from services.encoders.vectors import DenseArray, SparseVector, StoredDenseVectors
from services.errors import ConfigurationError
from services.index_spec import IndexSpec
from services.opensearch.stored_document import document_vector
from services.query.expansion import prune_query
from services.query.fusion import DEFAULT_TABLE_WEIGHT, interpolate_scores
from services.settings import Settings

# Sets of pairs whose licences allow shipped weights.
PAIR_SETS = ("talk_headings", "opensearch_docs", "wikipedia_lead", "podcast_qa_changelog", "arxiv_daily")
_MAX_QUERY_PIECES = 1000


class LexicalMemory:
    """BM25 over documents, by name."""

    def __init__(self, documents: Mapping[str, str]) -> None:
        self._names = list(documents)
        self._scores = LexicalScores(list(documents.values()))

    def search(self, text: str, boosts: Mapping[str, float] | None = None) -> list[tuple[str, float]]:
        """Return the best documents of a text, and of more words with boosts."""
        scores = self._scores.of(text)
        for word, boost in (boosts or {}).items():
            scores += boost * self._scores.of(word)
        matching = np.flatnonzero(scores)
        best = matching[np.argsort(-scores[matching], kind="stable")[:CANDIDATE_COUNT]]
        return [(self._names[i], float(scores[i])) for i in best.tolist()]


@dataclass(frozen=True)
class MemoryCollection:
    """A collection with its indexes. `queries` are those of the judgements, `vectors` their dense vectors."""

    name: str
    judgements: Judgements
    queries: dict[str, str]
    table: QueryTable
    dense: DenseQueryEncoder
    windows: DocumentWindows
    index: ExactIndex
    lexical: LexicalMemory
    stored: StoredDenseVectors

    @classmethod
    def open(cls, label: str, data: Path, encoder: ProjectedEncoder, directory: Path, cache: Path) -> Self:
        """Read and encode a collection; `NAME/4` takes every fourth document."""
        return cls.of(label, open_sample(data, label), encoder, directory, cache)

    @classmethod
    def of(
        cls, label: str, collection: JudgedCollection, encoder: ProjectedEncoder, directory: Path, cache: Path
    ) -> Self:
        """Encode a collection; a file in `cache` keeps its vectors.

        Raises ConfigurationError (`bad_dense_table`) for an encoder without a dense query table.
        """
        encoded = encode_jointly(collection, encoder, cache)
        texts = {document.id: joined_text(document.title, document.text) for document in _with_text(collection)}
        own = QueryTable.load(directory)
        dense = DenseQueryEncoder.load(directory, own)
        if dense is None:
            raise ConfigurationError("bad_dense_table", f"The encoder {own.manifest.name} has no dense query table.")
        top_k = IndexSpec.model_validate({}).document_top_k
        return cls(
            label,
            collection.known_judgements(),
            dict(collection.judged),
            own.adapt(count_frequencies([own.ids(text) for text in texts.values()])),
            dense,
            encoded.windows,
            ExactIndex({name: document_vector(windows, top_k) for name, windows in encoded.windows.items()}),
            LexicalMemory(texts),
            encoded.store(encoded.dense),
        )

    @cached_property
    def sparse_queries(self) -> dict[str, QueryVector]:
        """Return the pruned sparse vector of each query."""
        return {query: self.encode(text) for query, text in self.queries.items()}

    @cached_property
    def vectors(self) -> dict[str, DenseArray]:
        """Return the dense vector of each query, from the table; zeros for a query of unknown pieces."""
        width = self.stored.rows.shape[1]
        rows = {query: self.dense.encode(text) for query, text in self.queries.items()}
        return {query: np.zeros(width, np.float32) if row is None else row for query, row in rows.items()}

    @cached_property
    def lexical_lists(self) -> dict[str, list[tuple[str, float]]]:
        """Return the lexical list of each query."""
        return {query: self.lexical.search(text) for query, text in self.queries.items()}

    @cached_property
    def hybrid_lists(self) -> dict[str, Ranking]:
        """Return the hybrid list of each query."""
        return self.hybrid({query: vector.by_id() for query, vector in self.sparse_queries.items()})

    def encode(self, text: str) -> QueryVector:
        """Return the sparse vector of a query as a search prunes it."""
        return prune_query(self.table.encode(text, _MAX_QUERY_PIECES), Settings().prune)

    def hybrid(self, queries: Mapping[str, Mapping[int, float]]) -> dict[str, Ranking]:
        """Return the hybrid list of each query with other weights of pieces."""
        sparse = {query: self.index.search(weights, CANDIDATE_COUNT) for query, weights in queries.items()}
        return fuse_named_lists(sparse, {query: self.lexical_lists[query] for query in queries})

    def rerank(
        self, lists: Mapping[str, Ranking], vectors: Mapping[str, DenseArray], weight: float = DEFAULT_TABLE_WEIGHT
    ) -> dict[str, Ranking]:
        """Return the lists reranked by stored vectors, as a search does with the table."""
        reranked: dict[str, Ranking] = {}
        for query, ranked in lists.items():
            top, scores = ranked[:CANDIDATE_COUNT], self.stored.scores(vectors[query])
            reranked[query] = interpolate_scores(top, {name: scores[name] for name, _ in top if name in scores}, weight)
        return reranked

    def best_window(self, name: str, query: Mapping[int, float]) -> SparseVector:
        """Return the sparse vector of a document's best window."""
        return max((window.vector for window in self.windows[name]), key=lambda vector: vector.dot(query))

    def best_windows(self, query: str, count: int) -> DenseArray:
        """Return the best windows [count, width] of the first documents of the query's hybrid list."""
        names = [name for name, _ in self.hybrid_lists[query][:count]]
        return self.stored.best_windows(self.vectors[query], names)


def _with_text(collection: JudgedCollection) -> Iterator[CorpusDocument]:
    return (document for document in collection.documents() if document.text)


def write_pair_collection(pairs: Path, sets: Sequence[str], per_set: int, directory: Path) -> JudgedCollection:
    """Write the first pairs of each set as a collection: every passage is a document and answers its query.

    Pairs of one passage keep the first query. Raises ConfigurationError (`no_pairs`).
    """
    directory.mkdir(parents=True, exist_ok=True)
    documents, queries, judgements = [], [], ["query-id\tcorpus-id\tscore"]
    seen: set[str] = set()
    for name in sets:
        path = pairs / f"{name}.jsonl.gz"
        if not path.is_file():
            raise ConfigurationError("no_pairs", f"There are no pairs {path.name} in {pairs}.")
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows: list[dict[str, str]] = [json.loads(line) for line in islice(file, 2 * per_set)]
        fresh = {row["passage"]: row for row in reversed(rows) if row["passage"] not in seen}
        seen |= fresh.keys()
        kept = [row for row in rows if fresh.get(row["passage"]) is row][:per_set]
        for number, row in enumerate(kept):
            key = f"{name}-{number}"
            documents.append({"_id": key, "title": "", "text": row["passage"]})
            queries.append({"_id": f"q-{key}", "text": row["query"]})
            judgements.append(f"q-{key}\t{key}\t1")
    corpus = directory / "corpus.jsonl.gz"
    lines = "".join(json.dumps(document) + "\n" for document in documents).encode()
    data = gzip.compress(lines, mtime=0)
    # The cache of vectors goes by the time of the file, so the same content stays as it is.
    if not corpus.is_file() or corpus.read_bytes() != data:
        corpus.write_bytes(data)
    (directory / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries), encoding="utf-8")
    (directory / "qrels.tsv").write_text("\n".join(judgements) + "\n", encoding="utf-8")
    return open_collection(directory)
