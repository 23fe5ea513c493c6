"""Scoring of long documents: by merged vector or by best window; NDCG@10, and the cost on a node.

    python -m benchmarks long_documents DATA --json benchmarks/results/long-documents.json

Quality: lists of 100 candidates, exact, from the windows' vectors as an index holds them (merged to 512 pieces, or each
by itself), alone and fused with BM25's list from a real node. `combined .3` is .3 of the merged vector's score and .7
of the best window's. Cost: the same documents in indexes with `windows` merged, nested and both; bytes in one segment,
and latency of the same queries in turn (docs/decisions/0171).
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt
import uvloop

from benchmarks.collections import (
    DocumentWindows,
    encode_collection_windows,
    judged_arguments,
    open_sample,
    search_lexical_lists,
)
from benchmarks.measuring import percentile_ratios, run_benchmark, summarise_durations, take_turns
from benchmarks.service import create_index, fill_generation, open_node, read_opensearch_version
from cli.relevance.exact_search import ExactIndex
from cli.relevance.metrics import Rankings, measure_rankings
from models.encoder import Encoder
from models.judged_collection import JudgedCollection
from models.registry import load_encoder
from services.documents.document import Document
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.index_spec import Generation, IndexSpec, ScoreBy, WindowStorage
from services.opensearch.client import AsyncSearchClient, Call, SyncSearchClient
from services.opensearch.generations import delete_generations_call
from services.opensearch.queries import SearchPlan, build_search_body, search_call, sparse_query
from services.opensearch.stored_document import document_vector
from services.query.fusion import DEFAULT_WEIGHTS, fuse_lists
from services.settings import Settings

COLLECTIONS = ("adi", "cisi", "cosqa", "cranfield", "medline", "qmsum_meetings")
CANDIDATE_COUNT = 100
# Shares of the merged vector's score beside that of the best window.
WINDOW_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
_TIMEOUT_SECONDS = 120.0
ScoreArray = npt.NDArray[np.float32]
SEARCH_SIDES: dict[str, tuple[WindowStorage, ScoreBy]] = {
    "merged, by document": ("merged", "document"),
    "nested, by window": ("nested", "window"),
    "both, by window": ("both", "window"),
    "both, by document": ("both", "document"),
}


class DocumentScores:
    """Scores of every document for a query, by the merged vector and by the best window."""

    def __init__(self, windows: DocumentWindows) -> None:
        top_k = IndexSpec.model_validate({}).document_top_k
        self.names = list(windows)
        self._merged = ExactIndex({name: document_vector(own, top_k) for name, own in windows.items()})
        self._windows = ExactIndex(
            {f"{name} {i}": w.vector for name, own in windows.items() for i, w in enumerate(own)}
        )
        self._owners = np.repeat(np.arange(len(windows)), [len(own) for own in windows.values()])

    def both(self, query: Mapping[int, float]) -> tuple[ScoreArray, ScoreArray]:
        best = np.zeros(len(self.names), np.float32)
        np.maximum.at(best, self._owners, self._windows.scores(query))
        return self._merged.scores(query), best

    def ranking(self, scores: ScoreArray) -> list[tuple[str, float]]:
        """Return the first 100 documents that share a piece with the query."""
        matching = np.flatnonzero(scores)
        best = matching[np.argsort(-scores[matching], kind="stable")[:CANDIDATE_COUNT]]
        return [(self.names[i], float(scores[i])) for i in best.tolist()]


def long_documents(argv: list[str] | None = None) -> None:
    """Compare scoring by merged vector and by best window: NDCG@10, disk and latency."""
    parser = judged_arguments("long_documents", long_documents.__doc__)
    parser.set_defaults(collections=",".join(COLLECTIONS))
    parser.add_argument("--cost", default="cosqa,qmsum_meetings", help="collections whose indexes are timed")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over all queries and sides")
    run_benchmark("long_documents", parser, measure_long_documents, argv)


def measure_long_documents(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of every collection."""
    encoder: Encoder = load_encoder(arguments.encoder, threads=arguments.threads)
    table = QueryTable.load(resolve_model_directory(arguments.encoder))
    results: dict[str, Any] = {}
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        for label in arguments.collections.split(","):
            collection = open_sample(arguments.data, label)
            windows = encode_collection_windows(collection, encoder, arguments.cache)
            queries = {query: table.encode(text, 1000).by_id() for query, text in collection.judged.items()}
            lexical = search_lexical_lists(search, settings, collection, CANDIDATE_COUNT)
            counts = [len(own) for own in windows.values()]
            results[label] = row = {
                "documents": len(windows),
                "queries": len(queries),
                "windows": {"mean": round(float(np.mean(counts)), 2), "most": max(counts)},
                "quality": measure_quality(collection, make_rankings(windows, queries), lexical),
            }
            if label in arguments.cost.split(","):
                row["cost"] = measure_cost(search, settings, collection, windows, table, arguments.rounds)
            _print_row(label, row)
        version = read_opensearch_version(settings)
    return {
        "opensearch": version,
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "candidates": CANDIDATE_COUNT,
        "mean_ndcg@10": _mean_figures(results),
        "by_collection": results,
    }


def make_rankings(windows: DocumentWindows, queries: Mapping[str, Mapping[int, float]]) -> dict[str, Rankings]:
    """Return the sparse list of every query, by way to score."""
    scored = DocumentScores(windows)
    results: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for query, weights in queries.items():
        merged, best = scored.both(weights)
        ways = {"document": merged, "window": best} | {
            f"combined {share}": np.float32(share) * merged + np.float32(1 - share) * best for share in WINDOW_SHARES
        }
        for way, scores in ways.items():
            results.setdefault(way, {})[query] = scored.ranking(scores)
    return dict(results)


def measure_quality(collection: JudgedCollection, sparse: Mapping[str, Rankings], lexical: Rankings) -> dict[str, Any]:
    """Return the measures of each way, alone and in hybrid search."""
    judged = collection.known_judgements()
    rows: dict[str, Any] = {"lexical": measure_rankings(judged, lexical).rounded_means()}
    for way, lists in sparse.items():
        fused = {
            query: fuse_lists({"sparse": dict(listed), "lexical": dict(lexical.get(query, ()))}, DEFAULT_WEIGHTS)
            for query, listed in lists.items()
        }
        rows[way] = {
            "sparse": measure_rankings(judged, lists).rounded_means(),
            "hybrid": measure_rankings(judged, fused).rounded_means(),
        }
    return rows


def measure_cost(
    search: SyncSearchClient,
    settings: Settings,
    collection: JudgedCollection,
    windows: DocumentWindows,
    table: QueryTable,
    rounds: int,
) -> dict[str, Any]:
    """Return bytes and Lucene documents by declaration, and milliseconds by declaration and way."""
    documents = [(Document(d.id, d.text, d.title), windows[d.id]) for d in collection.documents() if d.id in windows]
    generations: dict[WindowStorage, Generation] = {}
    stored: dict[str, Any] = {}
    for declared in ("merged", "nested", "both"):
        generation = create_index(search, settings, f"long-{declared}", IndexSpec(windows=declared))
        generations[declared] = generation
        fill_generation(search, settings, generation, documents)
        physical = generation.physical
        search.send(
            Call("POST", f"/{physical}/_forcemerge", params={"max_num_segments": "1"}, timeout=_TIMEOUT_SECONDS)
        )
        search.send(Call("POST", f"/{physical}/_refresh", timeout=_TIMEOUT_SECONDS))
        results = search.send(Call("GET", f"/{physical}/_stats/store,docs"))["_all"]["primaries"]
        stored[declared] = {"bytes": results["store"]["size_in_bytes"], "lucene_documents": results["docs"]["count"]}
    for row in stored.values():
        row["bytes_over_merged"] = round(row["bytes"] / stored["merged"]["bytes"], 3)
    queries = list(collection.judged.values())[:300]
    durations = uvloop.run(measure_latencies(settings, generations, table, queries, rounds))
    search.send(delete_generations_call(list(generations.values())))
    spreads = {side: summarise_durations(values) for side, values in durations.items()}
    plain = spreads["merged, by document"]
    return {
        "stored": stored,
        "ms": spreads,
        "over merged": {side: percentile_ratios(values, plain) for side, values in spreads.items()},
    }


async def measure_latencies(
    settings: Settings,
    generations: Mapping[WindowStorage, Generation],
    table: QueryTable,
    queries: Sequence[str],
    rounds: int,
) -> dict[str, list[float]]:
    """Return milliseconds of every side for ten hits without sources."""
    client = AsyncSearchClient(settings)

    def side(declared: WindowStorage, score_by: ScoreBy) -> Any:
        physical = generations[declared].physical
        calls = {
            text: search_call(
                SearchPlan(
                    physical,
                    build_search_body(sparse_query(table.encode(text, 1000), score_by), 10, False, _TIMEOUT_SECONDS),
                ),
                _TIMEOUT_SECONDS,
            )
            for text in queries
        }

        async def send(text: str) -> None:
            await client.send(calls[text])

        return send

    try:
        sides = {name: side(*how) for name, how in SEARCH_SIDES.items()}
        await take_turns(sides, queries, 1)  # warms up the JVM
        return await take_turns(sides, queries, rounds)
    finally:
        await client.close()


def _mean_figures(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    ways = [way for way in next(iter(results.values()))["quality"] if way != "lexical"]
    return {
        way: {
            mode: round(float(np.mean([row["quality"][way][mode]["ndcg@10"] for row in results.values()])), 5)
            for mode in ("sparse", "hybrid")
        }
        for way in ways
    }


def _print_row(name: str, row: Mapping[str, Any]) -> None:
    print(f"{name}: {row['documents']:,} documents, {row['windows']['mean']} windows each, {row['queries']:,} queries")
    for way, figures in row["quality"].items():
        if way != "lexical":
            print(f"  {way:>13}  " + "  ".join(f"{mode} {figures[mode]['ndcg@10']:.4f}" for mode in figures))
    for side, values in row.get("cost", {}).get("over merged", {}).items():
        print(f"  {side:>20}: p50 {row['cost']['ms'][side]['p50']:.2f} ms, {values['p50']:.2f} times")
    for declared, stored in row.get("cost", {}).get("stored", {}).items():
        print(f"  {declared:>20}: {stored['bytes']:,} bytes, {stored['bytes_over_merged']:.2f} times")
