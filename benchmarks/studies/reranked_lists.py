"""Judged collections for studies of stored dense vectors: the hybrid list of each query, and its rerank.

Lists are those of `relevance`: BM25 of a real node and the exact sparse list with adapted query weights, fused with
equal weights. The service's functions rerank the first 100 by stored vectors. The query's vector comes from the dense
query table (`table`) or from the encoder itself (`model`), each at its default weight.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.collections import CANDIDATE_COUNT, open_sample, search_lexical_lists
from benchmarks.quality.fusion_weights import fuse_rankings
from benchmarks.quality.relevance import EncodedCollection, encode_jointly, make_lists
from benchmarks.service import open_node, read_opensearch_version
from cli.relevance.metrics import Rankings, measure_rankings
from models.judged_collection import JudgedCollection
from models.projection.encoder import ProjectedEncoder
from models.significance import compare_rankings
from services.encoders.dense_query_table import DenseQueryEncoder
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.encoders.vectors import DenseArray, StoredDenseVectors
from services.errors import ConfigurationError
from services.opensearch.client import SyncSearchClient
from services.query.fusion import DEFAULT_MODEL_WEIGHT, DEFAULT_TABLE_WEIGHT, DEFAULT_WEIGHTS, interpolate_scores

# The side that makes the query's vector, and the weight of its scores.
RERANK_WEIGHTS: Final[Mapping[str, float]] = {"table": DEFAULT_TABLE_WEIGHT, "model": DEFAULT_MODEL_WEIGHT}
# NDCG@10 by query, by system, by way of the query's vector, by collection.
QueryFigures = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]


@dataclass(frozen=True, slots=True, eq=False)
class StudyCollection:
    """A collection with its windows, their dense vectors as an index has them before rounding, and its hybrid lists."""

    name: str
    opensearch: str
    collection: JudgedCollection
    encoded: EncodedCollection
    stored: StoredDenseVectors
    hybrid: Rankings
    vectors: Mapping[str, Mapping[str, DenseArray | None]]
    pieces: QueryTable
    _places: dict[str, int]
    _rows: dict[str, tuple[list[str], NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=dict)

    def ndcg(self, rankings: Rankings) -> dict[str, float]:
        """Return NDCG@10 by query."""
        measured = measure_rankings(self.collection.known_judgements(), rankings)
        return {query: figures["ndcg@10"] for query, figures in measured.by_query.items()}

    def reranked(
        self,
        stored: StoredDenseVectors,
        way: str,
        change: Callable[[str, DenseArray], DenseArray] = lambda query, vector: vector,
        weight: float | None = None,
    ) -> dict[str, Sequence[tuple[str, float]]]:
        """Return the lists reranked by stored vectors; `change` replaces the vector of a query."""
        share = RERANK_WEIGHTS[way] if weight is None else weight
        result: dict[str, Sequence[tuple[str, float]]] = {}
        for query, listed in self.hybrid.items():
            vector = self.vectors[way][query]
            top = listed[:CANDIDATE_COUNT]
            if query not in self._rows:
                self._rows[query] = rows_of(stored, self._places, [document for document, _ in top])
            known, rows, firsts = self._rows[query]
            if vector is None or not known:
                result[query] = top
                continue
            best = np.maximum.reduceat(stored.rows[rows] @ change(query, vector), firsts)
            result[query] = interpolate_scores(top, dict(zip(known, best.tolist(), strict=True)), share)
        return result


def rows_of(
    stored: StoredDenseVectors, places: Mapping[str, int], documents: Sequence[str]
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Return the documents that have vectors, the numbers of their rows, and where each document's rows begin."""
    known = [document for document in documents if document in places]
    spans = [(stored.starts[places[d]], stored.starts[places[d] + 1]) for d in known]
    rows = [np.arange(start, end) for start, end in spans]
    firsts = np.cumsum([0, *map(len, rows)])[:-1]
    return known, np.concatenate(rows or [np.empty(0, np.int64)]), firsts


def open_study_collections(arguments: argparse.Namespace, encoder: ProjectedEncoder) -> Iterator[StudyCollection]:
    """Yield the chosen collections; `NAME/4` takes every fourth document."""
    directory = resolve_model_directory(arguments.encoder)
    table = QueryTable.load(directory)
    dense_table = DenseQueryEncoder.load(directory, table)
    if dense_table is None:
        raise ConfigurationError("bad_dense_table", f"The encoder {arguments.encoder} has no dense query table.")
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        version = read_opensearch_version(settings)
        for label in arguments.collections.split(","):
            collection = open_sample(arguments.data, label)
            encoded = encode_jointly(collection, encoder, arguments.cache)
            lexical = search_lexical_lists(search, settings, collection, CANDIDATE_COUNT)
            lists = make_lists(encoded, encoder, directory, lexical, [])
            stored = encoded.store(encoded.dense)
            queries = collection.judged
            yield StudyCollection(
                label.partition("/")[0],
                version,
                collection,
                encoded,
                stored,
                fuse_rankings(lists.sparse["document"], lexical, DEFAULT_WEIGHTS["sparse"]),
                {
                    "table": {query: dense_table.encode(text) for query, text in queries.items()},
                    "model": {query: encoder.encode_queries([text])[0] for query, text in queries.items()},
                },
                table,
                {document: place for place, document in enumerate(stored.ids)},
            )


def mean_by_collection(figures: QueryFigures, way: str) -> dict[str, float]:
    """Return the mean over collections of each system's mean."""
    names = next(iter(figures.values()))[way]
    return {
        name: round(float(np.mean([np.mean(list(own[way][name].values())) for own in figures.values()])), 5)
        for name in names
    }


def compare_pooled(figures: QueryFigures, way: str, before: str, after: str) -> dict[str, Any]:
    """Return the difference of two systems over the queries of all collections, with interval and p."""
    sides = [
        {f"{name} {query}": value for name, own in figures.items() for query, value in own[way][system].items()}
        for system in (before, after)
    ]
    return compare_rankings(*sides).figures()


def compare_chosen(figures: QueryFigures, way: str, systems: Sequence[str], before: str) -> dict[str, Any]:
    """Compare the system that is best on the other collections with `before`, over the queries of all collections."""
    means = {
        name: {system: float(np.mean(list(own[way][system].values()))) for system in systems}
        for name, own in figures.items()
    }
    chosen = {
        name: max(systems, key=lambda system: sum(row[system] for other, row in means.items() if other != name))
        for name in figures
    }
    sides: list[dict[str, float]] = [{}, {}]
    for name, own in figures.items():
        for side, system in zip(sides, (before, chosen[name]), strict=True):
            side |= {f"{name} {query}": value for query, value in own[way][system].items()}
    return {
        "chosen": chosen,
        "by_collection": {name: round(means[name][system], 5) for name, system in chosen.items()},
        "mean": round(float(np.mean([means[name][system] for name, system in chosen.items()])), 5),
        "compared": compare_rankings(*sides).figures(),
    }
