"""What do query pruning and two phases cost on judged collections? NDCG@10 of every way, and of hybrid search with it.

    python -m benchmarks.pruning_quality DATA --json benchmarks/results/pruning-quality.json

DATA holds one directory a collection, in BEIR's layout; lists are made as in benchmarks.fusion_weights. Sparse ones are
exact, of an index of one shard, and as long as there are candidates.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from benchmarks.fusion_weights import fused_rankings
from benchmarks.judged import CANDIDATES, DEMO, Judged, arguments, judged_collections
from benchmarks.record import run
from benchmarks.service import node_settings, opensearch_version
from benchmarks.sparse_ways import WAYS
from cli.relevance.metrics import measure
from models.registry import load_encoder
from services.fusion import DEFAULT_WEIGHTS
from services.manifest import resolve
from services.query_table import QueryTable

Row = dict[str, float]


def compared(judged: Judged, table: QueryTable) -> dict[str, Row]:
    """Of each way: NDCG@10 of the sparse list and of hybrid search, pieces that find documents, and their postings."""
    queries = {name: table.encode(text, 1000) for name, text in judged.queries.items()}
    rows: dict[str, Row] = {}
    for way_name, way in WAYS.items():
        lists = {name: way.ranking(judged.index, query, CANDIDATES) for name, query in queries.items()}
        fused = fused_rankings(lists, judged.lexical, DEFAULT_WEIGHTS["sparse"])
        heads = [way.parts(query)[0] for query in queries.values()]
        rows[way_name] = {
            "sparse": round(measure(judged.judgements, lists).mean["ndcg@10"], 5),
            "hybrid": round(measure(judged.judgements, fused).mean["ndcg@10"], 5),
            "pieces": round(sum(len(head.ids) for head in heads) / len(heads), 2),
            "postings_a_document": round(
                sum(judged.index.postings(piece) for head in heads for piece in head.ids)
                / len(heads)
                / len(judged.index.names),
                4,
            ),
        }
    return rows


def summary(rows: Mapping[str, Mapping[str, Row]]) -> dict[str, dict[str, Row]]:
    """Of each way and list: the mean over collections, the difference to the whole query, and the largest loss."""
    found: dict[str, dict[str, Row]] = {}
    for way in WAYS:
        found[way] = {}
        for kind in ("sparse", "hybrid"):
            lost = [row["whole"][kind] - row[way][kind] for row in rows.values()]
            found[way][kind] = {
                "mean": round(sum(row[way][kind] for row in rows.values()) / len(rows), 5),
                "lost": round(sum(lost) / len(lost), 5),
                "most_lost": round(max(lost), 5),
            }
    return found


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """The figures of every collection, and what they come to without the demo's."""
    encoder = load_encoder(given.encoder, threads=given.threads)
    table = QueryTable.load(resolve(given.encoder))
    rows: dict[str, dict[str, Row]] = {}
    with node_settings() as settings:
        version = opensearch_version(settings)
        for judged in judged_collections(given, encoder, settings):
            rows[judged.name] = compared(judged, table)
            print(f"{judged.name}: measured", flush=True)
    demo = rows.pop(DEMO)
    found = summary(rows)
    for way, row in found.items():
        parts = (
            f"{kind} {one['mean']:.4f} ({-one['lost']:+.4f}, {-one['most_lost']:+.4f})" for kind, one in row.items()
        )
        print(f"{way:>40}  " + "  ".join(parts))
    return {
        "opensearch": version,
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "candidates": CANDIDATES,
        "summary": found,
        "by_collection": rows,
        "not_used_for_the_choice": {DEMO: demo},
    }


def main() -> None:
    """Reads the arguments, prints the summary, writes the file."""
    run("pruning_quality", arguments("pruning_quality", __doc__), measured)


if __name__ == "__main__":
    main()
