"""How should hybrid search fuse, and with which weights? NDCG@10 of each method and share, on every collection at hand.

    python -m benchmarks.fusion_weights DATA --json benchmarks/results/fusion-weights.json

DATA holds one directory a collection, in BEIR's layout. The keyword list comes from a real OpenSearch node, with the
service's mapping and query; the sparse list is exact, from vectors made here; both are cut to 100 candidates and
fused by the service's own function. `NAME/4` takes every fourth document only: qmsum_meetings has 2.3 million words.
The demo's questions about Python's documentation are measured too, and have no part in the choice.
"""

import argparse
from collections.abc import Mapping
from typing import Any, Final

from benchmarks.judged import CANDIDATES, DEMO, Judged, arguments, judged_collections
from benchmarks.record import run
from benchmarks.service import node_settings, opensearch_version
from cli.relevance.exact import rankings
from cli.relevance.metrics import MEASURES, Rankings, measure
from models.registry import load_encoder
from services.fusion import DEFAULT_FUSION, Fusion, fuse
from services.manifest import resolve
from services.query_table import QueryTable

Table = Mapping[str, Mapping[str, float]]

SHARES = tuple(step / 10 for step in range(11))
METHODS: Final[Mapping[str, Fusion]] = {
    "min_max": Fusion("min_max"),
    "z_score": Fusion("z_score"),
    "rrf": Fusion("rrf"),
    "rrf, k 10": Fusion("rrf", 10),
}


def fused_rankings(
    sparse: Rankings, lexical: Rankings, share: float, fusion: Fusion = DEFAULT_FUSION
) -> dict[str, list[tuple[str, float]]]:
    """Each query's two lists as hybrid search puts them together, `share` of the weight on the sparse one."""
    weights = {"sparse": share, "lexical": 1 - share}
    return {
        query: fuse({"sparse": dict(sparse.get(query, ())), "lexical": dict(lexical.get(query, ()))}, weights, fusion)
        for query in {**sparse, **lexical}
    }


def sweep(judged: Judged, table: QueryTable) -> dict[str, Table]:
    """The figures of each share by method, and under `alone` of each list by itself."""
    queries = {query: table.encode(text, 1000).by_id() for query, text in judged.queries.items()}
    lists = {"lexical": judged.lexical, "sparse": rankings(judged.index, queries, CANDIDATES)}
    found: dict[str, Table] = {"alone": {name: measure(judged.judgements, one).mean for name, one in lists.items()}}
    for method, fusion in METHODS.items():
        found[method] = {
            f"{share:.1f}": measure(judged.judgements, fused_rankings(**lists, share=share, fusion=fusion)).mean
            for share in SHARES
        }
    return found


def choose(tables: Mapping[str, Table], queries: Mapping[str, int]) -> dict[str, Any]:
    """Mean NDCG@10 of each share over collections and over queries, and what each loses to a collection's own best.

    `best` has the best mean over collections, `best_by_query` over queries, where a large collection counts for more.
    `best_without` names the share that would have been best had one collection been missing.
    """
    ndcg = {name: {share: table[share]["ndcg@10"] for share in _shares()} for name, table in tables.items()}
    means = _means(ndcg, dict.fromkeys(ndcg, 1))
    by_query = _means(ndcg, queries)
    lost = {share: max(max(f.values()) - f[share] for f in ndcg.values()) for share in _shares()}
    without = {
        left_out: _best(_means(ndcg, {name: 1 for name in ndcg if name != left_out}))
        for left_out in (ndcg if len(ndcg) > 1 else ())
    }
    return {
        "best": _best(means),
        "best_by_query": _best(by_query),
        "best_without": without,
        "mean_ndcg@10": means,
        "mean_ndcg@10_by_query": by_query,
        "most_lost_to_a_collections_own_best": {share: round(value, 5) for share, value in lost.items()},
    }


def _means(ndcg: Mapping[str, Mapping[str, float]], shares_of: Mapping[str, int]) -> dict[str, float]:
    total = sum(shares_of.values())
    return {
        share: round(sum(ndcg[name][share] * count for name, count in shares_of.items()) / total, 5)
        for share in _shares()
    }


def _shares() -> list[str]:
    return [f"{share:.1f}" for share in SHARES]


def _best(figures: Mapping[str, float]) -> str:
    return max(figures, key=lambda share: figures[share])


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """The figures of every collection and what follows from them."""
    encoder = load_encoder(given.encoder, threads=given.threads)
    table = QueryTable.load(resolve(given.encoder))
    found: dict[str, dict[str, Table]] = {}
    queries: dict[str, int] = {}
    sizes: dict[str, int] = {}
    with node_settings() as settings:
        version = opensearch_version(settings)
        for judged in judged_collections(given, encoder, settings):
            found[judged.name] = sweep(judged, table)
            queries[judged.name], sizes[judged.name] = len(judged.queries), len(judged.index.names)
            _show(judged.name, found[judged.name])
    counted = {name: count for name, count in queries.items() if name != DEMO}
    choice = {method: choose({name: found[name][method] for name in counted}, counted) for method in METHODS}
    for method, one in choice.items():
        print(f"{method}: mean NDCG@10 by share of the sparse list:", one["mean_ndcg@10"])
        print("best:", one["best"], "- by query:", one["best_by_query"], "- without:", one["best_without"])
    rows = {name: _rows(tables, sizes[name], queries[name]) for name, tables in found.items()}
    return {
        "opensearch": version,
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "candidates": CANDIDATES,
        "choice": choice,
        "not_used_for_the_choice": {DEMO: rows.pop(DEMO)},
        "by_collection": rows,
    }


def _rows(tables: Mapping[str, Table], documents: int, queries: int) -> dict[str, Any]:
    figures = {
        method: {row: {name: round(values[name], 5) for name in MEASURES} for row, values in table.items()}
        for method, table in tables.items()
    }
    return {"documents": documents, "queries": queries, "figures": figures}


def _show(name: str, tables: Mapping[str, Table]) -> None:
    print(name)
    for method, table in tables.items():
        print(f"  {method:>10}  " + "  ".join(f"{row} {values['ndcg@10']:.4f}" for row, values in table.items()))


def main() -> None:
    """Reads the arguments, prints the tables, writes the file."""
    run("fusion_weights", arguments("fusion_weights", __doc__), measured)


if __name__ == "__main__":
    main()
