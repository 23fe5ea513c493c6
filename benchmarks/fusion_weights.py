"""Which weights should hybrid search have? NDCG@10 of every share of the sparse list, on every collection at hand.

    python -m benchmarks.fusion_weights DATA --json benchmarks/results/fusion-weights.json

DATA holds one directory a collection, in BEIR's layout. The keyword list comes from a real OpenSearch node, with the
service's mapping and query; the sparse list is exact, from vectors made here; both are cut to 100 candidates and
fused by the service's own function. `NAME/4` takes every fourth document only: qmsum_meetings has 2.3 million words.
The demo's questions about Python's documentation are measured too, and have no part in the choice.
"""

import argparse
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.collection_vectors import collection_vectors
from benchmarks.keyword_lists import keyword_lists
from benchmarks.record import command_line, run
from benchmarks.sample import sampled
from benchmarks.service import node_settings, opensearch_version
from benchmarks.stdlib_collection import stdlib_collection
from cli.relevance.collection import Collection, open_collection
from cli.relevance.exact import ExactIndex, rankings
from cli.relevance.metrics import MEASURES, Rankings, measure
from models.encoder import Encoder
from models.registry import load_encoder
from services.fusion import fuse
from services.manifest import resolve
from services.opensearch.client import SyncSearch
from services.query_table import QueryTable
from services.settings import Settings

Table = Mapping[str, Mapping[str, float]]

COLLECTIONS = ("adi", "cisi", "cosqa", "cranfield", "medline", "qmsum_meetings/4")
CANDIDATES = 100
SHARES = tuple(step / 10 for step in range(11))


def fused_rankings(sparse: Rankings, lexical: Rankings, share: float) -> dict[str, list[tuple[str, float]]]:
    """Each query's two lists as hybrid search puts them together, `share` of the weight on the sparse one."""
    weights = {"sparse": share, "lexical": 1 - share}
    return {
        query: fuse({"sparse": dict(sparse.get(query, ())), "lexical": dict(lexical.get(query, ()))}, weights)
        for query in {**sparse, **lexical}
    }


def sweep(collection: Collection, sparse: Rankings, lexical: Rankings) -> Table:
    """The figures of each share, and of each list by itself."""
    judgements = collection.known_judgements()
    found = {f"{share:.1f}": measure(judgements, fused_rankings(sparse, lexical, share)).mean for share in SHARES}
    return {
        "lexical alone": measure(judgements, lexical).mean,
        "sparse alone": measure(judgements, sparse).mean,
        **found,
    }


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


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of every collection and what follows from them."""
    encoder = load_encoder(arguments.encoder, threads=arguments.threads)
    found: dict[str, Table] = {}
    queries: dict[str, int] = {}
    sizes: dict[str, int] = {}
    with node_settings() as settings, closing(SyncSearch(settings)) as search:
        bench = Bench(encoder, QueryTable.load(resolve(arguments.encoder)), search, settings, arguments.cache)
        version = opensearch_version(settings)
        for wanted in arguments.collections.split(","):
            name, _, every = wanted.partition("/")
            collection = sampled(open_collection(arguments.data / name), int(every or 1))
            found[wanted], sizes[wanted] = bench.table(collection)
            queries[wanted] = len(collection.judged)
        with tempfile.TemporaryDirectory(prefix="sparsewell-") as folder:
            stdlib = stdlib_collection((arguments.cache or Path(folder)) / "stdlib")
            demo, demo_size = bench.table(stdlib)
    choice = choose(found, queries)
    print("mean NDCG@10 by share of the sparse list:", choice["mean_ndcg@10"])
    print("best:", choice["best"], "- by query:", choice["best_by_query"], "- without:", choice["best_without"])
    return {
        "opensearch": version,
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "candidates": CANDIDATES,
        "choice": choice,
        "by_collection": {name: _rows(table, sizes[name], queries[name]) for name, table in found.items()},
        "not_used_for_the_choice": {"stdlib": _rows(demo, demo_size, len(stdlib.judged))},
    }


@dataclass(frozen=True)
class Bench:
    """What every collection is measured with."""

    encoder: Encoder
    query_table: QueryTable
    search: SyncSearch
    settings: Settings
    cache: Path | None

    def table(self, collection: Collection) -> tuple[Table, int]:
        """The figures of a collection by share, and how many documents it has."""
        index = ExactIndex(collection_vectors(collection, self.encoder, self.cache))
        queries = {query: self.query_table.encode(text, 1000).by_id() for query, text in collection.judged.items()}
        sparse = rankings(index, queries, CANDIDATES)
        lexical = keyword_lists(self.search, self.settings, collection, CANDIDATES)
        table = sweep(collection, sparse, lexical)
        _show(collection.name, table)
        return table, len(index.names)


def _rows(table: Table, documents: int, queries: int) -> dict[str, Any]:
    rows = {row: {name: round(values[name], 5) for name in MEASURES} for row, values in table.items()}
    return {"documents": documents, "queries": queries, "figures": rows}


def _show(name: str, rows: Table) -> None:
    print(name)
    for row, values in rows.items():
        print(f"  {row:>13}  " + "  ".join(f"{measure} {values[measure]:.4f}" for measure in MEASURES))


def main() -> None:
    """Reads the arguments, prints the tables, writes the file."""
    parser = command_line("fusion_weights", __doc__)
    parser.add_argument("data", type=Path, help="directory of collections")
    parser.add_argument("--collections", default=",".join(COLLECTIONS), help="names, each with /N for one in N")
    parser.add_argument("--encoder", default="bootstrap-minilm-l6")
    parser.add_argument("--threads", type=int, default=0, help="threads of the encoder; 0: all cores")
    parser.add_argument("--cache", type=Path, help="where vectors are kept for the next run")
    run("fusion_weights", parser, measured)


if __name__ == "__main__":
    main()
