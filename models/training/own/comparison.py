"""Comparison of a new encoder with its start, as both will be served.

Served means: int8, windows, top k, query weights adapted to the documents; alone, fused with BM25, and reranked by the
dense query table. `difference_interval` says whether a difference is noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.dense import DenseModel
from models.judged_queries import JudgedQueries, expected_products, hybrid_rankings, ndcg_by_query, sparse_rankings
from models.progress import ProgressReporter
from models.projection.encoder import ProjectedEncoder
from models.registry import load_encoder
from models.significance import compare_rankings
from services.encoders.dense_query_table import DenseQueryEncoder
from services.encoders.manifest import resolve_model_directory
from services.encoders.piece_frequencies import PieceCounter
from services.encoders.query_table import QueryTable
from services.encoders.vectors import DenseArray, StoredDenseVectors, merge_max
from services.query.expansion import prune_query
from services.query.fusion import DEFAULT_RERANK_DEPTH, DEFAULT_TABLE_WEIGHT, interpolate_scores
from services.settings import Settings

_BATCH_DOCUMENTS = 64
OLD, NEW = "start", "new"
HYBRID, RERANKED = " with bm25", " reranked"
# Titles of an encoder's searches, and what follows its name in the names of systems.
SEARCHES = {"sparse": "", "hybrid": HYBRID, "hybrid, reranked by the table": RERANKED}
ProgressCallback = Callable[[int, int], None]


@dataclass(frozen=True)
class ServedVectors:
    """Document vectors of an encoder as the service makes them, and its query tables.

    `table` is adapted to the documents. `dense` has the dense vectors of each document, by its position as
    text. `dense` and `dense_table` are None for an encoder without a dense query table.
    """

    documents: list[dict[int, float]]
    milliseconds_a_document: float
    table: QueryTable
    dense: StoredDenseVectors | None
    dense_table: DenseQueryEncoder | None

    def queries(self, texts: Sequence[str]) -> list[dict[int, float]]:
        """Return the pieces of queries, pruned as a search prunes them."""
        share = Settings.model_fields["prune"].get_default()
        return [prune_query(self.table.encode(text), share).by_id() for text in texts]

    def rerank(self, text: str, ranking: Mapping[str, float]) -> dict[str, float]:
        """Rerank documents, by position as text, with the dense query table and the default weight."""
        vector = None if self.dense_table is None else self.dense_table.encode(text)
        if vector is None or self.dense is None:
            return dict(ranking)
        scores = self.dense.scores(vector)
        known = {name: scores[name] for name in ranking if name in scores}
        return dict(interpolate_scores(list(ranking.items()), known, DEFAULT_TABLE_WEIGHT))


def encode_as_served(
    name_or_path: str | Path, documents: Sequence[str], done: ProgressCallback = lambda count, total: None
) -> ServedVectors:
    """Encode whole documents as the indexer does: the encoder's windows, maximum over windows, top k."""
    encoder = load_encoder(str(name_or_path))
    directory = resolve_model_directory(str(name_or_path))
    table = QueryTable.load(directory)
    dense_table = DenseQueryEncoder.load(directory, table)
    counter = PieceCounter()
    vectors: list[dict[int, float]] = []
    lengths: list[int] = []
    dense: list[DenseArray] = []
    began = time.process_time()
    for at in range(0, len(documents), _BATCH_DOCUMENTS):
        cuts = [encoder.windows(text) for text in documents[at : at + _BATCH_DOCUMENTS]]
        flat = [window for windows in cuts for window in windows]
        if dense_table is not None and isinstance(encoder, ProjectedEncoder):
            sparse, rows = encoder.encode_jointly(flat)
            dense.append(rows)
        else:
            sparse = encoder.encode(flat)
        encoded = iter(sparse)
        for windows in cuts:
            lengths.append(len(windows))
            counter.add(piece for window in windows for piece in window.piece_ids)
            vector = merge_max([next(encoded) for _ in windows]).top(encoder.manifest.top_k)
            vectors.append(dict(zip(vector.ids.tolist(), vector.weights.tolist(), strict=True)))
        done(len(vectors), len(documents))
    spent = (time.process_time() - began) * 1e3 / max(1, len(documents))
    return ServedVectors(
        vectors,
        round(spent, 2),
        table.adapt(counter.frequencies()),
        _store_windows(lengths, dense) if dense else None,
        dense_table if dense else None,
    )


def _store_windows(lengths: Sequence[int], rows: Sequence[DenseArray]) -> StoredDenseVectors:
    """Return the vectors of documents with these numbers of windows; a document without windows has none."""
    ids = [str(document) for document, windows in enumerate(lengths) if windows]
    starts = np.cumsum([0, *filter(None, lengths)])
    return StoredDenseVectors(ids, starts, np.concatenate(rows))


def compare_encoders(judged: JudgedQueries, encoders: Mapping[str, ServedVectors]) -> dict[str, Any]:
    """Return NDCG@10 of BM25 and of each encoder's searches, and the scores of each query.

    An encoder's searches are itself alone, fused with BM25, and reranked by its dense query table if it has one.
    `encoders` hold the vectors of the collection's documents, in their order. `products` are the expected products of a
    query and a document, see `expected_products`.
    """
    lexical = judged.lexical
    scores = {"bm25": ndcg_by_query(judged, lexical)}
    products: dict[str, float] = {}
    for name, encoder in encoders.items():
        queries = encoder.queries(judged.queries)
        products[name] = round(expected_products(encoder.documents, queries), 2)
        sparse = sparse_rankings(encoder.documents, queries)
        hybrid = hybrid_rankings(sparse, lexical)
        scores[name] = ndcg_by_query(judged, sparse)
        scores[f"{name}{HYBRID}"] = ndcg_by_query(judged, hybrid)
        if encoder.dense_table is not None:
            reranked = [
                encoder.rerank(text, dict(islice(ranking.items(), DEFAULT_RERANK_DEPTH)))
                for text, ranking in zip(judged.queries, hybrid, strict=True)
            ]
            scores[f"{name}{RERANKED}"] = ndcg_by_query(judged, reranked)
    return {
        "documents": len(judged.documents),
        "queries": len(judged.queries),
        "ndcg_at_10": {name: round(float(by_query.mean()), 4) for name, by_query in scores.items()},
        "products": products,
        "scores": scores,
    }


def compare_with_start(
    start: Path, model: Path, sets: Sequence[JudgedQueries], show: ProgressReporter
) -> tuple[dict[str, ServedVectors], dict[str, dict[str, Any]]]:
    """Compare both encoders as they are served on each set of queries. Return the vectors of the last set as well.

    `new_over_start` of a comparison has the interval of each search, see `difference_interval`.
    """
    compared: dict[str, dict[str, Any]] = {}
    for judged in sets:
        # A judged collection may have the name of the held-out queries.
        name = f"{judged.name} (judged)" if judged.name in compared else judged.name
        encoders: dict[str, ServedVectors] = {}
        for title, directory in ((OLD, start), (NEW, model)):
            encoders[title] = encode_as_served(
                directory, judged.documents, partial(show.step, f"{judged.name} by the {title} encoder")
            )
        comparison = compare_encoders(judged, encoders)
        scores = comparison["scores"]
        comparison["new_over_start"] = {
            title: difference_interval(scores[f"{NEW}{search}"], scores[f"{OLD}{search}"])
            for title, search in SEARCHES.items()
            if f"{NEW}{search}" in scores
        }
        compared[name] = comparison
    return encoders, compared


def compare_tables(encoder: DenseModel, start: Path, model: Path, queries: Sequence[str]) -> dict[str, Any]:
    """Compare both dense query tables with the vectors of the start itself, which a refit does not change.

    Return the mean cosine of each table's vectors of queries with the encoder's, and the interval of the difference.
    """
    vectors = encoder.encode_queries(queries)
    cosines = {}
    for title, directory in ((OLD, start), (NEW, model)):
        table = DenseQueryEncoder.load(directory, QueryTable.load(directory))
        found = [None if table is None else table.encode(query) for query in queries]
        # A query of unknown pieces has no vector.
        cosines[title] = np.array(
            [0.0 if mine is None else float(mine @ theirs) for mine, theirs in zip(found, vectors, strict=True)]
        )
    means = {title: round(float(by_query.mean()), 4) for title, by_query in cosines.items()}
    return {"cosine": means, "new_over_start": difference_interval(cosines[NEW], cosines[OLD])}


def difference_interval(new: NDArray[np.float64], old: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the mean difference over queries, see `models.significance`."""
    before, after = ({str(at): float(score) for at, score in enumerate(scores)} for scores in (old, new))
    found = compare_rankings(before, after)
    return round(found.low, 4), round(found.high, 4)
