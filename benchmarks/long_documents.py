"""Score a document by its merged vector or by its best window? NDCG@10 of both, and what each costs on a node.

    python -m benchmarks.long_documents DATA --json benchmarks/results/long-documents.json

Quality: lists of 100 candidates, the sparse ones exact, from the vectors of windows as an index holds them (merged to
512 pieces, or each by itself), alone and fused with BM25's list from a real node. `combined .3` is .3 of the merged
vector's score and .7 of the best window's. Cost: the same documents in three indexes that declare `windows` as merged,
nested and both; bytes on disk in one segment, and the same queries to each in turn.
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt
import uvloop

from benchmarks.collection_windows import Windows, collection_windows
from benchmarks.filled_index import create, fill
from benchmarks.judged import arguments
from benchmarks.keyword_lists import keyword_lists
from benchmarks.record import run
from benchmarks.sample import sampled
from benchmarks.service import node_settings, opensearch_version
from benchmarks.timing import ratios, spread, take_turns
from cli.relevance.collection import Collection, open_collection
from cli.relevance.exact import ExactIndex
from cli.relevance.metrics import MEASURES, Rankings, measure
from models.encoder import Encoder
from models.registry import load_encoder
from services.documents import Document
from services.fusion import DEFAULT_WEIGHTS, fuse
from services.index_spec import Generation, IndexSpec, ScoreBy
from services.index_spec import Windows as Declared
from services.manifest import resolve
from services.opensearch.client import AsyncSearch, Call, SyncSearch
from services.opensearch.generations import delete_call
from services.opensearch.queries import Plan, body, search_call, sparse_query
from services.opensearch.stored_windows import document_vector
from services.query_table import QueryTable
from services.settings import Settings

COLLECTIONS = ("adi", "cisi", "cosqa", "cranfield", "medline", "qmsum_meetings")
CANDIDATES = 100
# Shares of the merged vector's score beside that of the best window.
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
_SECONDS = 120.0
Scores = npt.NDArray[np.float32]
SIDES: dict[str, tuple[Declared, ScoreBy]] = {
    "merged, by document": ("merged", "document"),
    "nested, by window": ("nested", "window"),
    "both, by window": ("both", "window"),
    "both, by document": ("both", "document"),
}


class Scored:
    """Every document's scores for a query, by the merged vector and by the best window."""

    def __init__(self, windows: Windows) -> None:
        top_k = IndexSpec.model_validate({}).document_top_k
        self.names = list(windows)
        self._merged = ExactIndex({name: document_vector(of, top_k) for name, of in windows.items()})
        self._windows = ExactIndex({f"{name} {i}": w.vector for name, of in windows.items() for i, w in enumerate(of)})
        self._owners = np.repeat(np.arange(len(windows)), [len(of) for of in windows.values()])

    def both(self, query: Mapping[int, float]) -> tuple[Scores, Scores]:
        best = np.zeros(len(self.names), np.float32)
        np.maximum.at(best, self._owners, self._windows.scores(query))
        return self._merged.scores(query), best

    def ranking(self, scores: Scores) -> list[tuple[str, float]]:
        """The first 100 that share a piece with the query."""
        matching = np.flatnonzero(scores)
        best = matching[np.argsort(-scores[matching], kind="stable")[:CANDIDATES]]
        return [(self.names[i], float(scores[i])) for i in best.tolist()]


def rankings(windows: Windows, queries: Mapping[str, Mapping[int, float]]) -> dict[str, Rankings]:
    """The sparse list of every query, by how documents are scored."""
    scored = Scored(windows)
    found: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for query, weights in queries.items():
        merged, best = scored.both(weights)
        ways = {"document": merged, "window": best} | {
            f"combined {share}": np.float32(share) * merged + np.float32(1 - share) * best for share in SHARES
        }
        for way, scores in ways.items():
            found.setdefault(way, {})[query] = scored.ranking(scores)
    return dict(found)


def quality(collection: Collection, sparse: Mapping[str, Rankings], lexical: Rankings) -> dict[str, Any]:
    """The measures of each way alone and in hybrid search."""
    judged = collection.known_judgements()
    rows: dict[str, Any] = {"lexical": _rounded(measure(judged, lexical).mean)}
    for way, lists in sparse.items():
        fused = {
            query: fuse({"sparse": dict(listed), "lexical": dict(lexical.get(query, ()))}, DEFAULT_WEIGHTS)
            for query, listed in lists.items()
        }
        rows[way] = {
            "sparse": _rounded(measure(judged, lists).mean),
            "hybrid": _rounded(measure(judged, fused).mean),
        }
    return rows


def _rounded(mean: Mapping[str, float]) -> dict[str, float]:
    return {name: round(mean[name], 5) for name in MEASURES}


def cost(
    search: SyncSearch, settings: Settings, collection: Collection, windows: Windows, table: QueryTable, rounds: int
) -> dict[str, Any]:
    """Bytes and Lucene documents by declaration, milliseconds by declaration and way."""
    documents = [(Document(d.id, d.text, d.title), windows[d.id]) for d in collection.documents() if d.id in windows]
    generations: dict[Declared, Generation] = {}
    stored: dict[str, Any] = {}
    for declared in ("merged", "nested", "both"):
        generation = create(search, settings, f"long-{declared}", IndexSpec(windows=declared))
        generations[declared] = generation
        fill(search, settings, generation, documents)
        physical = generation.physical
        search.send(Call("POST", f"/{physical}/_forcemerge", params={"max_num_segments": "1"}, timeout=_SECONDS))
        search.send(Call("POST", f"/{physical}/_refresh", timeout=_SECONDS))
        found = search.send(Call("GET", f"/{physical}/_stats/store,docs"))["_all"]["primaries"]
        stored[declared] = {"bytes": found["store"]["size_in_bytes"], "lucene_documents": found["docs"]["count"]}
    for row in stored.values():
        row["bytes_over_merged"] = round(row["bytes"] / stored["merged"]["bytes"], 3)
    queries = list(collection.judged.values())[:300]
    took = uvloop.run(latencies(settings, generations, table, queries, rounds))
    search.send(delete_call(list(generations.values())))
    spreads = {side: spread(values) for side, values in took.items()}
    plain = spreads["merged, by document"]
    return {
        "stored": stored,
        "ms": spreads,
        "over merged": {side: ratios(values, plain) for side, values in spreads.items()},
    }


async def latencies(
    settings: Settings,
    generations: Mapping[Declared, Generation],
    table: QueryTable,
    queries: Sequence[str],
    rounds: int,
) -> dict[str, list[float]]:
    """Milliseconds of every side, ten hits without their sources."""
    client = AsyncSearch(settings)

    def side(declared: Declared, by: ScoreBy) -> Any:
        physical = generations[declared].physical
        calls = {
            text: search_call(
                Plan(physical, body(sparse_query(table.encode(text, 1000), by), 10, False, _SECONDS)), _SECONDS
            )
            for text in queries
        }

        async def ask(text: str) -> None:
            await client.send(calls[text])

        return ask

    try:
        sides = {name: side(*how) for name, how in SIDES.items()}
        await take_turns(sides, queries, 1)  # (a Java process is fast only after thousands of the same request)
        return await take_turns(sides, queries, rounds)
    finally:
        await client.close()


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """The figures of every collection."""
    encoder: Encoder = load_encoder(given.encoder, threads=given.threads)
    table = QueryTable.load(resolve(given.encoder))
    found: dict[str, Any] = {}
    with node_settings() as settings, closing(SyncSearch(settings)) as search:
        for wanted in given.collections.split(","):
            name, _, every = wanted.partition("/")
            collection = sampled(open_collection(given.data / name), int(every or 1))
            windows = collection_windows(collection, encoder, given.cache)
            queries = {query: table.encode(text, 1000).by_id() for query, text in collection.judged.items()}
            lexical = keyword_lists(search, settings, collection, CANDIDATES)
            counts = [len(of) for of in windows.values()]
            found[wanted] = row = {
                "documents": len(windows),
                "queries": len(queries),
                "windows": {"mean": round(float(np.mean(counts)), 2), "most": max(counts)},
                "quality": quality(collection, rankings(windows, queries), lexical),
            }
            if wanted in given.cost.split(","):
                row["cost"] = cost(search, settings, collection, windows, table, given.rounds)
            _show(wanted, row)
        version = opensearch_version(settings)
    return {
        "opensearch": version,
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "candidates": CANDIDATES,
        "mean_ndcg@10": _means(found),
        "by_collection": found,
    }


def _means(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    ways = [way for way in next(iter(found.values()))["quality"] if way != "lexical"]
    return {
        way: {
            mode: round(float(np.mean([row["quality"][way][mode]["ndcg@10"] for row in found.values()])), 5)
            for mode in ("sparse", "hybrid")
        }
        for way in ways
    }


def _show(name: str, row: Mapping[str, Any]) -> None:
    print(f"{name}: {row['documents']:,} documents, {row['windows']['mean']} windows each, {row['queries']:,} queries")
    for way, figures in row["quality"].items():
        if way != "lexical":
            print(f"  {way:>13}  " + "  ".join(f"{mode} {figures[mode]['ndcg@10']:.4f}" for mode in figures))
    for side, values in row.get("cost", {}).get("over merged", {}).items():
        print(f"  {side:>20}: p50 {row['cost']['ms'][side]['p50']:.2f} ms, {values['p50']:.2f} times")
    for declared, stored in row.get("cost", {}).get("stored", {}).items():
        print(f"  {declared:>20}: {stored['bytes']:,} bytes, {stored['bytes_over_merged']:.2f} times")


def main() -> None:
    """Reads the arguments, prints the tables, writes the file."""
    parser = arguments("long_documents", __doc__)
    parser.set_defaults(collections=",".join(COLLECTIONS))
    parser.add_argument(
        "--cost", default="cosqa,qmsum_meetings", help="collections of which indexes are made and timed"
    )
    parser.add_argument("--rounds", type=int, default=3, help="times that a query is asked of each side")
    run("long_documents", parser, measured)


if __name__ == "__main__":
    main()
