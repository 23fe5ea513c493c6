"""Query pruning and two phases: the ways to search the sparse list, and their quality on judged collections.

    python -m benchmarks pruning_quality DATA --json benchmarks/results/pruning-quality.json

DATA has a directory for each collection, in BEIR's layout. Sparse lists are exact, of an index of one shard, and have
as many documents as there are candidates; fusion is that of `fusion_weights` (docs/decisions/0151). `ALL_WAYS` are
compared here, a few of them by latency in benchmarks.latency.sparse_queries.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from benchmarks.collections import (
    CANDIDATE_COUNT,
    DEMO_COLLECTION,
    JudgedLists,
    judged_arguments,
    open_judged_collections,
)
from benchmarks.measuring import run_benchmark
from benchmarks.quality.fusion_weights import fuse_rankings
from benchmarks.service import open_node, read_opensearch_version
from cli.relevance.exact_search import ExactIndex
from cli.relevance.metrics import measure_rankings
from models.registry import load_encoder
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable, QueryVector
from services.opensearch.queries import add_rescore, build_search_body, sparse_query
from services.query.expansion import prune_query, split_query
from services.query.fusion import DEFAULT_WEIGHTS

TIMEOUT_SECONDS = 60.0
FigureRow = dict[str, float]


@dataclass(frozen=True)
class SparseWay:
    """Share of the heaviest weight below which pieces are pruned, and the two phases; a window of 0 means one phase."""

    prune: float = 0.0
    threshold: float = 0.0
    window: int = 0

    def parts(self, query: QueryVector) -> tuple[QueryVector, QueryVector]:
        """Return the query that finds documents, and the query that rescores the best of them."""
        return split_query(prune_query(query, self.prune), self.threshold if self.window else 0.0)

    def search(self, query: QueryVector, size: int) -> dict[str, Any]:
        """Return the body that the API sends."""
        head, tail = self.parts(query)
        search = build_search_body(sparse_query(head), size, False, TIMEOUT_SECONDS)
        return add_rescore(search, tail, max(self.window, size)) if tail.ids else search

    def in_one_phase(self) -> "SparseWay":
        """Return the way in one phase, for when the heavy pieces find too few documents."""
        return replace(self, window=0)

    def ranking(self, index: ExactIndex, query: QueryVector, size: int) -> list[tuple[str, float]]:
        """Return the list of an index of one shard, in memory."""
        head, tail = self.parts(query)
        whole = head.by_id() | tail.by_id()
        if not tail.ids:
            return index.search(whole, size)
        heavy = index.search(head.by_id(), max(self.window, size))
        if len(heavy) < size:
            return index.search(whole, size)
        candidates = {name for name, _ in heavy}
        return [(name, score) for name, score in index.search(whole, len(index.names)) if name in candidates][:size]


PRUNED_SHARES: Final = (0.1, 0.2, 0.25, 0.3, 0.4, 0.5)
ONE_PHASE_WAYS: Final[Mapping[str, SparseWay]] = {
    "whole": SparseWay(),
    **{f"pruned {share}": SparseWay(share) for share in PRUNED_SHARES},
}
TWO_PHASE_WAYS: Final[Mapping[str, SparseWay]] = {
    f"two phases {threshold}, {window}": SparseWay(0.0, threshold, window)
    for threshold in (0.3, 0.4, 0.5, 0.6, 0.7)
    for window in (50, 200, 1000)
}
PRUNED_TWO_PHASE_WAYS: Final[Mapping[str, SparseWay]] = {
    f"pruned {share}, two phases {threshold}, {window}": SparseWay(share, threshold, window)
    for share, threshold, window in ((0.2, 0.4, 200), (0.2, 0.5, 200), (0.2, 0.6, 200), (0.2, 0.6, 1000))
}
ALL_WAYS: Final[Mapping[str, SparseWay]] = {**ONE_PHASE_WAYS, **TWO_PHASE_WAYS, **PRUNED_TWO_PHASE_WAYS}


def pruning_quality(argv: list[str] | None = None) -> None:
    """Measure NDCG@10 of pruned queries and of two phases, sparse and hybrid."""
    run_benchmark(
        "pruning_quality", judged_arguments("pruning_quality", pruning_quality.__doc__), measure_quality, argv
    )


def measure_quality(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of every collection, and their summary without the demo's."""
    encoder = load_encoder(arguments.encoder, threads=arguments.threads)
    table = QueryTable.load(resolve_model_directory(arguments.encoder))
    rows: dict[str, dict[str, FigureRow]] = {}
    with open_node() as settings:
        version = read_opensearch_version(settings)
        for judged in open_judged_collections(arguments, encoder, settings):
            rows[judged.name] = compare_quality(judged, table)
            print(f"{judged.name}: measured", flush=True)
    demo = rows.pop(DEMO_COLLECTION)
    summary = summarise_rows(rows)
    for way, row in summary.items():
        parts = (
            f"{kind} {mean['mean']:.4f} ({-mean['lost']:+.4f}, {-mean['most_lost']:+.4f})" for kind, mean in row.items()
        )
        print(f"{way:>40}  " + "  ".join(parts))
    return {
        "opensearch": version,
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "candidates": CANDIDATE_COUNT,
        "summary": summary,
        "by_collection": rows,
        "not_used_for_the_choice": {DEMO_COLLECTION: demo},
    }


def compare_quality(judged: JudgedLists, table: QueryTable) -> dict[str, FigureRow]:
    """Return NDCG@10 of sparse and hybrid lists by way, the pieces that find documents, and their postings."""
    queries = {name: table.encode(text, 1000) for name, text in judged.queries.items()}
    rows: dict[str, FigureRow] = {}
    for way_name, way in ALL_WAYS.items():
        lists = {name: way.ranking(judged.index, query, CANDIDATE_COUNT) for name, query in queries.items()}
        fused = fuse_rankings(lists, judged.lexical, DEFAULT_WEIGHTS["sparse"])
        heads = [way.parts(query)[0] for query in queries.values()]
        rows[way_name] = {
            "sparse": round(measure_rankings(judged.judgements, lists).mean["ndcg@10"], 5),
            "hybrid": round(measure_rankings(judged.judgements, fused).mean["ndcg@10"], 5),
            "pieces": round(sum(len(head.ids) for head in heads) / len(heads), 2),
            "postings_a_document": round(
                sum(judged.index.postings(piece) for head in heads for piece in head.ids)
                / len(heads)
                / len(judged.index.names),
                4,
            ),
        }
    return rows


def summarise_rows(rows: Mapping[str, Mapping[str, FigureRow]]) -> dict[str, dict[str, FigureRow]]:
    """Return, by way and list, the mean over collections, the loss to the whole query, and the largest loss."""
    summary: dict[str, dict[str, FigureRow]] = {}
    for way in ALL_WAYS:
        summary[way] = {}
        for kind in ("sparse", "hybrid"):
            lost = [row["whole"][kind] - row[way][kind] for row in rows.values()]
            summary[way][kind] = {
                "mean": round(sum(row[way][kind] for row in rows.values()) / len(rows), 5),
                "lost": round(sum(lost) / len(lost), 5),
                "most_lost": round(max(lost), 5),
            }
    return summary
