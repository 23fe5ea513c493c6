"""Relevance of every kind of search on judged collections: NDCG@10 by list, by fusion and by reranking.

    python -m benchmarks relevance DATA --encoder projected-minilm-l6 --json benchmarks/results/relevance.json

DATA has a directory for each collection, in BEIR's layout. Sparse lists are exact and adapted to the collection's
documents, lexical lists come from a real node with the service's mapping and query, and the service's functions fuse
and rerank them. Sparse scores are those of merged vectors (`document`) and of the best window (`window`). The query
vectors of the rerank come from the encoder's dense query table, and from the dense encoder itself (`model`).
`--dense NAME` adds a rerank by the stored vectors of another dense encoder. `--refit` refits the encoder to all
documents of each collection first (docs/decisions/0246).

Weights are chosen without the collection that they are reported on: `chosen` has the choice without each collection.
The demo's questions are measured and decide nothing (docs/decisions/0243).
"""

import argparse
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from benchmarks.collections import (
    CANDIDATE_COUNT,
    DEMO_COLLECTION,
    DocumentWindows,
    judged_arguments,
    open_sample,
    read_windows,
    search_lexical_lists,
    write_windows,
)
from benchmarks.measuring import run_benchmark
from benchmarks.quality.adapted_weights import count_frequencies
from benchmarks.quality.dense_rerank import encode_collection_rows
from benchmarks.quality.fusion_weights import fuse_rankings
from benchmarks.quality.long_documents import DocumentScores
from benchmarks.service import open_node, read_opensearch_version
from benchmarks.stdlib import make_stdlib_collection
from cli.relevance.metrics import Rankings, measure_rankings
from models.dense import DenseModel, load_dense_encoder
from models.judged_collection import JudgedCollection
from models.progress import SilentReporter
from models.projection.encoder import ProjectedEncoder
from models.projection.refit import RefitStart, refit_encoder
from models.registry import load_projected_encoder
from models.training.own.held_out import draw_texts
from models.training.own.refit import RefitOptions, texts_of
from services.directories import DirectorySettings, resolve_cache_directory
from services.documents.document import Document, joined_text
from services.encoders.catalogue import find_dense_encoder, list_dense_encoders
from services.encoders.dense_query_table import DenseQueryEncoder
from services.encoders.manifest import DenseIdentity, read_manifest, resolve_model_directory
from services.encoders.query_table import QueryTable
from services.encoders.vectors import DenseArray, StoredDenseVectors, merge_neighbouring_windows
from services.index_spec import IndexSpec
from services.opensearch.client import SyncSearchClient
from services.opensearch.stored_document import EncodedWindow, document_vector
from services.query.expansion import prune_query
from services.query.fusion import interpolate_scores
from services.settings import Settings

SHARES: Final = tuple(step / 10 for step in range(11))
# The best ones lie in the middle.
RERANK_SHARES, RERANK_WEIGHTS = SHARES[3:8], SHARES[2:9]
SCORES_BY: Final = ("document", "window")
_BATCH_DOCUMENTS: Final = 128
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedCollection:
    """A collection, its windows, and the dense vector of each window: float32 [windows, width], in their order."""

    collection: JudgedCollection
    windows: DocumentWindows
    dense: DenseArray

    def split(self, rows: DenseArray) -> list[DenseArray]:
        """Return the rows of each document of one row a window."""
        return np.split(rows, np.cumsum([len(own) for own in self.windows.values()])[:-1])

    def store(self, rows: DenseArray) -> StoredDenseVectors:
        """Return vectors of the windows as an index has them before rounding."""
        return store_windows(list(self.windows), self.split(rows))


@dataclass(frozen=True, slots=True)
class Lists:
    """The lists of each query, and the dense scores of every document by way of a rerank (`table`, `model`)."""

    lexical: Rankings
    sparse: Mapping[str, Rankings]
    dense: Mapping[str, Mapping[str, Mapping[str, float]]]


def relevance(argv: list[str] | None = None) -> None:
    """Measure NDCG@10 of lexical, sparse, hybrid and reranked search on judged collections."""
    with tempfile.TemporaryDirectory(prefix="sparsewell-") as folder:
        parser = judged_arguments("relevance", relevance.__doc__)
        parser.add_argument("--dense", default="", help="another dense encoder whose stored vectors rerank as well")
        parser.add_argument("--refit", action="store_true", help="refit the encoder to each collection first")
        parser.set_defaults(cache=Path(folder))
        run_benchmark("relevance", parser, measure, argv)


def measure(arguments: argparse.Namespace) -> Figures:
    """Return the figures of every collection, their means, and the weights chosen without each collection."""
    start = resolve_model_directory(arguments.encoder)
    rerankers = [DenseReranker.open(name, arguments) for name in filter(None, [arguments.dense])]
    refitted = RefitStart.open(start) if arguments.refit else None
    rows: dict[str, Figures] = {}
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        version = read_opensearch_version(settings)
        for name, collection in _open_collections(arguments):
            directory = refit_to(collection, refitted, arguments.cache) if refitted else start
            encoder = load_projected_encoder(str(directory), threads=arguments.threads)
            encoded = encode_jointly(collection, encoder, arguments.cache)
            lexical = search_lexical_lists(search, settings, collection, CANDIDATE_COUNT)
            lists = make_lists(encoded, encoder, directory, lexical, rerankers)
            rows[name] = figures(collection, lists)
            rows[name]["weights a document"] = _mean_weights(encoded)
            print(name, {kind: rows[name][kind] for kind in ("lexical", "sparse")}, flush=True)
    demo = rows.pop(DEMO_COLLECTION)
    return {
        "opensearch": version,
        "encoder": {"name": start.name, "fingerprint": read_manifest(start).fingerprint, "refitted": arguments.refit},
        "candidates": CANDIDATE_COUNT,
        "means": mean_figures(rows.values()),
        "chosen": {by: choose_weights(rows, by) for by in SCORES_BY if len(rows) > 1},
        "not_used_for_the_choice": {DEMO_COLLECTION: demo},
        "by_collection": rows,
    }


@dataclass(frozen=True, slots=True)
class DenseReranker:
    """A dense encoder whose stored vectors and own vectors of queries rerank."""

    name: str
    model: DenseModel
    identity: DenseIdentity
    cache: Path

    @classmethod
    def open(cls, name: str, arguments: argparse.Namespace) -> Self:
        """Open an encoder of the catalogue."""
        known = find_dense_encoder(list_dense_encoders(Settings()), name)
        directory = resolve_cache_directory(DirectorySettings.read())
        model = load_dense_encoder(known, directory, print, threads=arguments.threads)
        return cls(name, model, known.identity, arguments.cache)

    def scores(self, collection: JudgedCollection) -> dict[str, Mapping[str, float]]:
        """Return the scores of every document for each query."""
        rows = encode_collection_rows(collection, self.model, self.identity, self.cache)
        stored = store_windows(rows.ids, [rows.of(position).astype(np.float32) for position in range(len(rows.ids))])
        return {
            name: stored.scores(self.model.encode_queries([text])[0].astype(np.float32))
            for name, text in collection.judged.items()
        }


def refit_to(collection: JudgedCollection, start: RefitStart, cache: Path) -> Path:
    """Return the directory of the encoder that is refitted to all documents of a collection."""
    documents = [Document(own.id, own.text, own.title) for own in collection.documents()]
    options = RefitOptions(start.manifest.name)
    queries = draw_texts(texts_of(documents), options.queries, options.seed)
    out = cache / "refitted" / collection.name
    return refit_encoder(start, queries, out, corpus=collection.name, cache=cache / "vectors", show=SilentReporter())


def store_windows(ids: Sequence[str], rows: Sequence[DenseArray]) -> StoredDenseVectors:
    """Return the vectors of documents as an index stores them, before rounding."""
    merged = [merge_neighbouring_windows(own) for own in rows]
    return StoredDenseVectors(list(ids), np.cumsum([0, *map(len, merged)]), np.concatenate(merged))


def _open_collections(arguments: argparse.Namespace) -> Iterable[tuple[str, JudgedCollection]]:
    for label in arguments.collections.split(","):
        yield label, open_sample(arguments.data, label)
    yield DEMO_COLLECTION, make_stdlib_collection(arguments.cache / DEMO_COLLECTION)


def encode_jointly(collection: JudgedCollection, encoder: ProjectedEncoder, cache: Path) -> EncodedCollection:
    """Return sparse and dense vectors of all windows. Files in `cache` keep them."""
    corpus = collection.corpus.stat()
    stamp = f"joint-{collection.name}-{encoder.fingerprint}-{corpus.st_size}-{corpus.st_mtime_ns}"
    sparse, dense = cache / f"{stamp}.npz", cache / f"{stamp}.npy"
    if dense.is_file():
        return EncodedCollection(collection, read_windows(sparse), np.load(dense).astype(np.float32))
    began = time.perf_counter()
    windows: DocumentWindows = {}
    rows: list[DenseArray] = []
    documents = [document for document in collection.documents() if document.text]
    for start in range(0, len(documents), _BATCH_DOCUMENTS):
        batch = documents[start : start + _BATCH_DOCUMENTS]
        cut = [encoder.windows(joined_text(document.title, document.text)) for document in batch]
        vectors, vector_rows = encoder.encode_jointly([window for own in cut for window in own])
        remaining = iter(vectors)
        for document, own in zip(batch, cut, strict=True):
            windows[document.id] = [EncodedWindow(w.start, w.end, next(remaining)) for w in own]
        rows.append(vector_rows)
        print(f"\r{collection.name}: {len(windows):,} documents", end="", flush=True)
    print(f" in {time.perf_counter() - began:.0f} s")
    matrix = np.concatenate(rows)
    cache.mkdir(parents=True, exist_ok=True)
    write_windows(sparse, windows)
    np.save(dense, matrix.astype(np.float16))
    return EncodedCollection(collection, windows, matrix)


def make_lists(
    encoded: EncodedCollection,
    encoder: ProjectedEncoder,
    directory: Path,
    lexical: Rankings,
    rerankers: Sequence[DenseReranker],
) -> Lists:
    """Return all lists of a collection's queries, with the query table adapted to its documents."""
    table = QueryTable.load(directory)
    dense_table = DenseQueryEncoder.load(directory, table)
    texts = [joined_text(document.title, document.text) for document in encoded.collection.documents()]
    adapted, share = table.adapt(count_frequencies([table.ids(text) for text in texts])), Settings().prune
    queries = encoded.collection.judged
    scored = DocumentScores(encoded.windows)
    sparse: dict[str, dict[str, Sequence[tuple[str, float]]]] = {by: {} for by in SCORES_BY}
    for name, text in queries.items():
        weights = prune_query(adapted.encode(text, 1000), share).by_id()
        for by, scores in zip(SCORES_BY, scored.both(weights), strict=True):
            sparse[by][name] = scored.ranking(scores)
    stored = encoded.store(encoded.dense)
    vectors: dict[str, dict[str, DenseArray | None]] = {
        "table": {name: None if dense_table is None else dense_table.encode(text) for name, text in queries.items()},
        "model": {name: encoder.encode_queries([text])[0] for name, text in queries.items()},
    }
    dense = {
        way: {name: {} if vector is None else stored.scores(vector) for name, vector in by_query.items()}
        for way, by_query in vectors.items()
    }
    others = {reranker.name: reranker.scores(encoded.collection) for reranker in rerankers}
    return Lists(lexical, sparse, {**dense, **others})


def figures(collection: JudgedCollection, lists: Lists) -> Figures:
    """Return NDCG@10 of each kind of search on one collection, by weight where there is one."""

    def ndcg(rankings: Rankings) -> float:
        return round(measure_rankings(collection.known_judgements(), rankings).mean["ndcg@10"], 5)

    result: Figures = {
        "documents": sum(1 for _ in collection.documents()),
        "queries": len(lists.lexical),
        "lexical": ndcg(lists.lexical),
        "sparse": {by: ndcg(lists.sparse[by]) for by in SCORES_BY},
        "dense alone": {
            way: ndcg({name: _best(scores) for name, scores in by_query.items()})
            for way, by_query in lists.dense.items()
        },
    }
    fused = {by: {share: fuse_rankings(lists.sparse[by], lists.lexical, share) for share in SHARES} for by in SCORES_BY}
    result["hybrid"] = {by: {f"{share}": ndcg(fused[by][share]) for share in SHARES} for by in SCORES_BY}
    result["reranked"] = {
        way: {
            by: {
                f"{share}": {f"{w}": ndcg(_rerank(fused[by][share], scores, w)) for w in RERANK_WEIGHTS}
                for share in RERANK_SHARES
            }
            for by in SCORES_BY
        }
        for way, scores in lists.dense.items()
    }
    return result


def _best(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:CANDIDATE_COUNT]


def _rerank(
    fused: Mapping[str, Sequence[tuple[str, float]]], scores: Mapping[str, Mapping[str, float]], weight: float
) -> dict[str, list[tuple[str, float]]]:
    """Return the fused lists with their best documents reranked, as a search does."""
    reranked = {}
    for name, ranked in fused.items():
        top, second = ranked[:CANDIDATE_COUNT], scores[name]
        reranked[name] = interpolate_scores(top, {d: second[d] for d, _ in top if d in second}, weight)
    return reranked


def _mean_weights(encoded: EncodedCollection) -> float:
    top_k = IndexSpec.model_validate({}).document_top_k
    return round(float(np.mean([len(document_vector(own, top_k)) for own in encoded.windows.values()])), 1)


def mean_figures(rows: Iterable[Figures]) -> Any:
    """Return the means of nested figures."""
    values = list(rows)
    if isinstance(values[0], dict):
        return {key: mean_figures([value[key] for value in values]) for key in values[0]}
    return round(sum(values) / len(values), 5)


def choose_weights(rows: Mapping[str, Figures], by: str) -> Figures:
    """Return, for each collection, the weights that are best on the others, and its figures with them."""
    chosen: dict[str, Figures] = {}
    for name, row in rows.items():
        others = mean_figures([other for key, other in rows.items() if key != name])
        share = max(others["hybrid"][by], key=others["hybrid"][by].get)
        chosen[name] = {"share": float(share), "hybrid": row["hybrid"][by][share]}
        for way, grids in others["reranked"].items():
            grid = grids[by]
            at, weight = max(((s, w) for s in grid for w in grid[s]), key=lambda pair: grid[pair[0]][pair[1]])
            ndcg = row["reranked"][way][by][at][weight]
            chosen[name][way] = {"share": float(at), "weight": float(weight), "ndcg@10": ndcg}
    every = chosen.values()
    hybrid = round(sum(row["hybrid"] for row in every) / len(every), 5)
    ways = mean_figures(list(rows.values()))["reranked"]
    reranked = {way: round(sum(row[way]["ndcg@10"] for row in every) / len(every), 5) for way in ways}
    return {"means": {"hybrid": hybrid, **reranked}, "without": chosen}
