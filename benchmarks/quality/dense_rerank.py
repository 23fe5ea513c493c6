"""Reranking of hybrid search by stored dense vectors: NDCG@10 by weight, on every collection.

    python -m benchmarks dense_rerank DATA --json benchmarks/results/dense-rerank.json [--live adi,medline]

The lists are those of `fusion_weights`: BM25 from a real node, the exact sparse list, 100 candidates each, fused by the
service's function. The service's functions score the first 100 over vectors rounded as they are stored. `--live`
measures some collections through a whole service (API, worker, model process) as well (docs/decisions/0141, 0143).
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.collections import encode_collection, open_sample, search_lexical_lists
from benchmarks.measuring import make_parser, run_benchmark
from benchmarks.service import open_node, open_service, read_opensearch_version, run_process
from cli.relevance.exact_search import ExactIndex, rank_queries
from cli.relevance.live import LiveIndex, ingest_collection
from cli.relevance.metrics import Rankings, measure_rankings
from infra.ports import find_free_port
from models.dense import DenseModel, load_dense_encoder
from models.encoder import Encoder
from models.judged_collection import JudgedCollection, open_collection
from models.registry import load_encoder
from services.directories import DirectorySettings, resolve_cache_directory
from services.documents.document import joined_text
from services.encoders.catalogue import find_dense_encoder, list_dense_encoders
from services.encoders.manifest import DenseIdentity, resolve_model_directory
from services.encoders.query_table import QueryTable
from services.encoders.vectors import (
    DenseArray,
    StoredDenseVectors,
    apply_dense_feedback,
    merge_neighbouring_windows,
    normalise_vector,
    pack_dense_vectors,
)
from services.opensearch.client import SyncSearchClient
from services.query.fusion import DEFAULT_MODEL_WEIGHT, DEFAULT_WEIGHTS, fuse_lists, interpolate_scores
from services.settings import Settings

COLLECTIONS = ("adi", "cisi", "cosqa", "cranfield", "medline", "qmsum_meetings/4")
CANDIDATE_COUNT = RERANK_DEPTH = 100
WEIGHTS = tuple(step / 10 for step in range(1, 11))
FEEDBACK_SETTINGS = tuple((documents, weight) for documents in (1, 3, 5, 10) for weight in (0.1, 0.3, 0.5))
# Windows between two lines of progress.
_BATCH_WINDOWS = 256
WindowForm = Callable[[NDArray[np.float16]], DenseArray]
# Ways to store a document: three alternatives, and the chosen one, `int8`.
STORED_FORMS: dict[str, WindowForm] = {
    "float16": lambda rows: rows.astype(np.float32),
    "mean of the windows": lambda rows: normalise_vector(rows.astype(np.float32).mean(axis=0))[None, :],
    "first window": lambda rows: rows[:1].astype(np.float32),
    "int8": lambda rows: rows.astype(np.float32),
}


@dataclass(frozen=True, slots=True, eq=False)
class StoredDenseRows:
    """Dense vectors of documents.

    Document i has the rows `starts[i]` to `starts[i + 1]` of `rows`, float16 [windows, width].
    """

    ids: list[str]
    starts: NDArray[np.int64]
    rows: NDArray[np.float16]

    def of(self, position: int) -> NDArray[np.float16]:
        """Return the rows of a document's windows."""
        return self.rows[self.starts[position] : self.starts[position + 1]]


@dataclass
class RerankBench:
    """Collection with the hybrid list and the dense vector of every query."""

    collection: JudgedCollection
    hybrid: Rankings
    queries: dict[str, DenseArray]
    rows: StoredDenseRows
    _stored: dict[str, StoredDenseVectors] = field(default_factory=dict)

    def stored(self, form: str) -> StoredDenseVectors:
        """Return all documents in one stored form; `int8` is that of an index."""
        if form not in self._stored:
            parts = [STORED_FORMS[form](gather_rows(self.rows.of(i))) for i in range(len(self.rows.ids))]
            starts = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(part) for part in parts])])
            matrix = np.concatenate(parts)
            if form == "int8":
                matrix = StoredDenseVectors.read({"all": pack_dense_vectors(matrix)}, matrix.shape[1]).rows
            self._stored[form] = StoredDenseVectors(self.rows.ids, starts, matrix)
        return self._stored[form]

    def reranked(
        self, weight: float, form: str = "int8", feedback: tuple[int, float] | None = None
    ) -> dict[str, list[tuple[str, float]]]:
        """Return the reranked list of every query."""
        stored = self.stored(form)
        place = {name: i for i, name in enumerate(stored.ids)}
        results = {}
        for query, listed in self.hybrid.items():
            top, rest = listed[:RERANK_DEPTH], listed[RERANK_DEPTH:]
            kept = select_vectors(stored, [place[name] for name, _ in top])
            vector = self.queries[query]
            dense_scores = kept.scores(vector)
            if feedback is not None:
                best = interpolate_scores(top, dense_scores, weight)[: feedback[0]]
                vector = apply_dense_feedback(
                    vector, kept.best_windows(vector, [name for name, _ in best]), feedback[1]
                )
                dense_scores = kept.scores(vector)
            results[query] = interpolate_scores(top, dense_scores, weight) + list(rest)
        return results

    def ndcg(self, results: Rankings) -> float:
        return round(measure_rankings(self.collection.known_judgements(), results).mean["ndcg@10"], 5)

    def dense_alone(self) -> dict[str, list[tuple[str, float]]]:
        """Return the list of every query by dense score alone."""
        stored = self.stored("int8")
        scores = {query: stored.scores(vector) for query, vector in self.queries.items()}
        return {
            query: sorted(scored.items(), key=lambda pair: (-pair[1], pair[0]))[:RERANK_DEPTH]
            for query, scored in scores.items()
        }


@dataclass(frozen=True)
class RerankModels:
    """Encoder, query table and dense model for every collection."""

    encoder: Encoder
    table: QueryTable
    dense: DenseModel
    identity: DenseIdentity
    cache: Path | None

    def bench(self, collection: JudgedCollection, search: SyncSearchClient, settings: Settings) -> RerankBench:
        """Return the lists and the vectors of a collection."""
        index = ExactIndex(encode_collection(collection, self.encoder, self.cache))
        judged = collection.judged
        sparse = rank_queries(
            index, {q: self.table.encode(text, 1000).by_id() for q, text in judged.items()}, CANDIDATE_COUNT
        )
        lexical = search_lexical_lists(search, settings, collection, CANDIDATE_COUNT)
        hybrid = {
            q: fuse_lists({"sparse": dict(sparse[q]), "lexical": dict(lexical[q])}, DEFAULT_WEIGHTS) for q in judged
        }
        # One query at a time, as in searches, because int8 models depend slightly on the batch.
        queries = {q: self.dense.encode_queries([text])[0].astype(np.float32) for q, text in judged.items()}
        return RerankBench(
            collection, hybrid, queries, encode_collection_rows(collection, self.dense, self.identity, self.cache)
        )


def dense_rerank(argv: list[str] | None = None) -> None:
    """Measure NDCG@10 of hybrid search reranked by stored dense vectors, by weight."""
    parser = make_parser("dense_rerank", dense_rerank.__doc__)
    parser.add_argument("data", type=Path, help="directory of collections")
    parser.add_argument("--collections", default=",".join(COLLECTIONS), help="names, each with /N for one in N")
    parser.add_argument("--encoder", default="projected-minilm-l6")
    parser.add_argument("--dense", default="bge-small-en-v1.5-int8")
    parser.add_argument("--live", default="", help="collections that are measured live as well")
    parser.add_argument("--threads", type=int, default=0, help="threads of the encoders; 0: all cores")
    parser.add_argument("--cache", type=Path, help="keep the vectors there")
    run_benchmark("dense_rerank", parser, measure_rerank, argv)


def measure_rerank(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure every collection in memory, and some live."""
    encoder = load_encoder(arguments.encoder, threads=arguments.threads)
    known = find_dense_encoder(list_dense_encoders(Settings.read()), arguments.dense)
    dense = load_dense_encoder(
        known, resolve_cache_directory(DirectorySettings.read()), print, threads=arguments.threads
    )
    models = RerankModels(
        encoder, QueryTable.load(resolve_model_directory(arguments.encoder)), dense, known.identity, arguments.cache
    )
    results: dict[str, dict[str, Any]] = {}
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        version = read_opensearch_version(settings)
        for label in arguments.collections.split(","):
            collection = open_sample(arguments.data, label)
            results[label] = rerank_figures(models.bench(collection, search, settings))
            print(label, results[label])
    result: dict[str, Any] = {
        "opensearch": version,
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "dense": known.identity.model_dump(),
        "top": RERANK_DEPTH,
        "default_weight": DEFAULT_MODEL_WEIGHT,
        "summary": summarise_figures(results),
        "by_collection": results,
    }
    print(result["summary"])
    names = [name for name in arguments.live.split(",") if name]
    return result | ({"live": measure_live(names, arguments.data, models, arguments.dense)} if names else {})


def rerank_figures(bench: RerankBench) -> dict[str, Any]:
    """Return NDCG@10 of every variant on one collection."""
    return {
        "documents": len(bench.rows.ids),
        "windows": len(bench.rows.rows),
        "queries": len(bench.queries),
        "hybrid": bench.ndcg(bench.hybrid),
        "dense alone": bench.ndcg(bench.dense_alone()),
        "by_weight": {f"{weight:.1f}": bench.ndcg(bench.reranked(weight)) for weight in WEIGHTS},
        "by_form": {form: bench.ndcg(bench.reranked(DEFAULT_MODEL_WEIGHT, form)) for form in STORED_FORMS},
        "feedback": {
            f"{n} x {w}": bench.ndcg(bench.reranked(DEFAULT_MODEL_WEIGHT, feedback=(n, w)))
            for n, w in FEEDBACK_SETTINGS
        },
    }


def summarise_figures(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return means over the collections, the best weight, and the best weight without each collection."""

    def means(kind: str, left_out: str = "") -> dict[str, float]:
        rows = [figures[kind] for name, figures in results.items() if name != left_out]
        return {name: round(float(np.mean([row[name] for row in rows])), 5) for name in rows[0]}

    hybrid = round(float(np.mean([figures["hybrid"] for figures in results.values()])), 5)
    by_weight = means("by_weight")
    default = f"{DEFAULT_MODEL_WEIGHT:.1f}"
    return {
        "hybrid": hybrid,
        "by_weight": by_weight,
        "best": max(by_weight, key=lambda weight: by_weight[weight]),
        "best_without": {
            name: max(means_of, key=lambda weight: means_of[weight])
            for name in results
            if len(results) > 1 and (means_of := means("by_weight", name))
        },
        "gain_of_the_default": round(by_weight[default] - hybrid, 5),
        "smallest_gain_of_the_default": round(min(o["by_weight"][default] - o["hybrid"] for o in results.values()), 5),
        "by_form": means("by_form"),
        "feedback": means("feedback"),
    }


def measure_live(names: Sequence[str], data: Path, models: RerankModels, dense: str) -> dict[str, Any]:
    """Return the figures of a whole service with worker and model process."""
    results = {}
    with open_service() as base:
        port = find_free_port()
        settings = base.model_copy(
            update={
                "encoder": models.encoder.manifest.name,
                "model_port": port,
                "model_url": f"http://{base.model_host}:{port}",
                "model_encoders": dense,
                "model_timeout": 2.0,
            }
        )
        address = f"http://{settings.api_host}:{settings.api_port}"
        with (
            run_process(settings, "models"), run_process(settings, "api"), run_process(settings, "worker"),
            httpx.Client(base_url=address) as client,
        ):  # fmt: skip
            for name in names:
                collection = open_collection(data / name)
                index = LiveIndex(client, collection.name)
                index.create({"dense": dense})
                ingest_collection(index, collection, lambda stage, done, total: None)
                rows = {}
                for side, options in (("hybrid", {}), ("reranked", {"rerank": {"top": RERANK_DEPTH}})):
                    answers = index.ask(collection.judged, "hybrid", RERANK_DEPTH, options)
                    rows[side] = round(
                        measure_rankings(collection.known_judgements(), answers.rankings).mean["ndcg@10"], 5
                    )
                results[name] = rows
                print("live", name, rows)
    return results


def encode_collection_rows(
    collection: JudgedCollection, model: DenseModel, identity: DenseIdentity, cache: Path | None = None
) -> StoredDenseRows:
    """Return the unrounded vectors of an index with this dense encoder. A file in `cache` keeps them."""
    corpus = collection.corpus.stat()
    window = identity.window
    stamp = f"{identity.fingerprint}-{window.pieces}-{window.overlap}-{corpus.st_size}-{corpus.st_mtime_ns}"
    path = cache / f"dense-{collection.name}-{stamp}.npz" if cache else None
    if path and path.is_file():
        with np.load(path, allow_pickle=False) as file:
            return StoredDenseRows(file["ids"].tolist(), file["starts"], file["rows"])
    started = time.perf_counter()
    documents = [document for document in collection.documents() if document.text]
    cut = [model.windows(joined_text(document.title, document.text), window) for document in documents]
    windows = [window for own_windows in cut for window in own_windows]
    rows = np.empty((len(windows), identity.width), dtype=np.float16)
    for start in range(0, len(windows), _BATCH_WINDOWS):
        rows[start : start + _BATCH_WINDOWS] = model.encode_windows(windows[start : start + _BATCH_WINDOWS])
        print(f"\r{collection.name}: {start:,} of {len(windows):,} windows", end="", flush=True)
    print(f"\r{collection.name}: {len(windows):,} windows in {time.perf_counter() - started:.0f} s")
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(own_windows) for own_windows in cut])])
    stored = StoredDenseRows([document.id for document in documents], starts, rows)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, ids=np.array(stored.ids, dtype=str), starts=starts, rows=rows)
    return stored


def gather_rows(rows: NDArray[np.float16]) -> NDArray[np.float16]:
    """Merge neighbouring windows as the indexer does."""
    return merge_neighbouring_windows(rows).astype(np.float16)


def select_vectors(stored: StoredDenseVectors, positions: Sequence[int]) -> StoredDenseVectors:
    """Return the vectors of some documents only."""
    spans = [(int(stored.starts[at]), int(stored.starts[at + 1])) for at in positions]
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum([end - start for start, end in spans])])
    rows = np.concatenate([stored.rows[start:end] for start, end in spans] or [stored.rows[:0]])
    return StoredDenseVectors([stored.ids[at] for at in positions], starts, rows)
