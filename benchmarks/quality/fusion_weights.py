"""Fusion methods and weights of hybrid search: NDCG@10 by method and share of the sparse list.

    python -m benchmarks fusion_weights DATA --json benchmarks/results/fusion-weights.json

DATA has a directory for each collection, in BEIR's layout. The lexical list comes from a real node with the service's
mapping and query, the sparse list is exact. Both have 100 candidates, and the service's function fuses them. `NAME/4`
takes every fourth document: qmsum_meetings has 2.3 million words. The demo's questions about Python's documentation are
measured and have no part in the choice (docs/decisions/0070, 0150).
"""

import argparse
from collections.abc import Mapping
from typing import Any, Final

from benchmarks.collections import (
    CANDIDATE_COUNT,
    DEMO_COLLECTION,
    JudgedLists,
    judged_arguments,
    open_judged_collections,
)
from benchmarks.measuring import run_benchmark
from benchmarks.service import open_node, read_opensearch_version
from cli.relevance.exact_search import rank_queries
from cli.relevance.metrics import MEASURES, Rankings, measure_rankings
from models.registry import load_encoder
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.query.fusion import DEFAULT_FUSION, Fusion, fuse_lists

SPARSE_SHARES = tuple(step / 10 for step in range(11))
METHODS: Final[Mapping[str, Fusion]] = {
    "min_max": Fusion("min_max"),
    "z_score": Fusion("z_score"),
    "rrf": Fusion("rrf"),
    "rrf, k 10": Fusion("rrf", 10),
}
NdcgTable = Mapping[str, Mapping[str, float]]


def fusion_weights(argv: list[str] | None = None) -> None:
    """Measure NDCG@10 of hybrid search by fusion method and weight of the sparse list."""
    run_benchmark("fusion_weights", judged_arguments("fusion_weights", fusion_weights.__doc__), measure_fusion, argv)


def measure_fusion(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of every collection and the choice."""
    encoder = load_encoder(arguments.encoder, threads=arguments.threads)
    table = QueryTable.load(resolve_model_directory(arguments.encoder))
    results: dict[str, dict[str, NdcgTable]] = {}
    queries: dict[str, int] = {}
    sizes: dict[str, int] = {}
    with open_node() as settings:
        version = read_opensearch_version(settings)
        for judged in open_judged_collections(arguments, encoder, settings):
            results[judged.name] = sweep_shares(judged, table)
            queries[judged.name], sizes[judged.name] = len(judged.queries), len(judged.index.names)
            _print_table(judged.name, results[judged.name])
    counted = {name: count for name, count in queries.items() if name != DEMO_COLLECTION}
    choice = {method: choose_share({name: results[name][method] for name in counted}, counted) for method in METHODS}
    for method, chosen in choice.items():
        print(f"{method}: mean NDCG@10 by share of the sparse list:", chosen["mean_ndcg@10"])
        print("best:", chosen["best"], "- by query:", chosen["best_by_query"], "- without:", chosen["best_without"])
    rows = {name: _table_rows(tables, sizes[name], queries[name]) for name, tables in results.items()}
    return {
        "opensearch": version,
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "candidates": CANDIDATE_COUNT,
        "choice": choice,
        "not_used_for_the_choice": {DEMO_COLLECTION: rows.pop(DEMO_COLLECTION)},
        "by_collection": rows,
    }


def sweep_shares(judged: JudgedLists, table: QueryTable) -> dict[str, NdcgTable]:
    """Return the figures by method and share, and under `alone` the figures of each list."""
    queries = {query: table.encode(text, 1000).by_id() for query, text in judged.queries.items()}
    lists = {"lexical": judged.lexical, "sparse": rank_queries(judged.index, queries, CANDIDATE_COUNT)}
    results: dict[str, NdcgTable] = {
        "alone": {name: measure_rankings(judged.judgements, rankings).mean for name, rankings in lists.items()}
    }
    for method, fusion in METHODS.items():
        results[method] = {
            f"{share:.1f}": measure_rankings(judged.judgements, fuse_rankings(**lists, share=share, fusion=fusion)).mean
            for share in SPARSE_SHARES
        }
    return results


def fuse_rankings(
    sparse: Rankings, lexical: Rankings, share: float, fusion: Fusion = DEFAULT_FUSION
) -> dict[str, list[tuple[str, float]]]:
    """Fuse each query's two lists as hybrid search does, with `share` of the weight on the sparse list."""
    weights = {"sparse": share, "lexical": 1 - share}
    return {
        query: fuse_lists(
            {"sparse": dict(sparse.get(query, ())), "lexical": dict(lexical.get(query, ()))}, weights, fusion
        )
        for query in {**sparse, **lexical}
    }


def choose_share(tables: Mapping[str, NdcgTable], queries: Mapping[str, int]) -> dict[str, Any]:
    """Return mean NDCG@10 of each share over collections and over queries, and the largest loss to a collection's best.

    `best` has the best mean over collections, `best_by_query` over queries, where large collections count for more.
    `best_without` is the best share without each collection.
    """
    ndcg = {name: {share: table[share]["ndcg@10"] for share in _share_names()} for name, table in tables.items()}
    means = _mean_ndcg(ndcg, dict.fromkeys(ndcg, 1))
    by_query = _mean_ndcg(ndcg, queries)
    losses = {share: max(max(f.values()) - f[share] for f in ndcg.values()) for share in _share_names()}
    without = {
        left_out: _best_share(_mean_ndcg(ndcg, {name: 1 for name in ndcg if name != left_out}))
        for left_out in (ndcg if len(ndcg) > 1 else ())
    }
    return {
        "best": _best_share(means),
        "best_by_query": _best_share(by_query),
        "best_without": without,
        "mean_ndcg@10": means,
        "mean_ndcg@10_by_query": by_query,
        "most_lost_to_a_collections_own_best": {share: round(value, 5) for share, value in losses.items()},
    }


def _mean_ndcg(ndcg: Mapping[str, Mapping[str, float]], shares_of: Mapping[str, int]) -> dict[str, float]:
    total = sum(shares_of.values())
    return {
        share: round(sum(ndcg[name][share] * count for name, count in shares_of.items()) / total, 5)
        for share in _share_names()
    }


def _share_names() -> list[str]:
    return [f"{share:.1f}" for share in SPARSE_SHARES]


def _best_share(figures: Mapping[str, float]) -> str:
    return max(figures, key=lambda share: figures[share])


def _table_rows(tables: Mapping[str, NdcgTable], documents: int, queries: int) -> dict[str, Any]:
    figures = {
        method: {row: {name: round(values[name], 5) for name in MEASURES} for row, values in table.items()}
        for method, table in tables.items()
    }
    return {"documents": documents, "queries": queries, "figures": figures}


def _print_table(name: str, tables: Mapping[str, NdcgTable]) -> None:
    print(name)
    for method, table in tables.items():
        print(f"  {method:>10}  " + "  ".join(f"{row} {values['ndcg@10']:.4f}" for row, values in table.items()))
