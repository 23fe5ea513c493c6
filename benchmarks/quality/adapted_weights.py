"""Query weights adapted to the documents of an index: their quality on judged collections, sparse and hybrid.

    python -m benchmarks adapted_weights DATA --json benchmarks/results/adapted-weights.json

DATA has a directory for each collection, in BEIR's layout. Sparse lists are exact and fused with a real node's lexical
lists. The frequencies are counted over all documents, and over samples of them, to choose the size of the sample and
the fewest documents of an index that is adapted. Nothing is fitted to the collections (docs/decisions/0241).
"""

import argparse
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.collections import (
    CANDIDATE_COUNT,
    DEMO_COLLECTION,
    JudgedLists,
    judged_arguments,
    open_judged_collections,
    open_sample,
)
from benchmarks.measuring import run_benchmark
from benchmarks.quality.fusion_weights import fuse_rankings
from benchmarks.service import open_node, read_opensearch_version
from cli.relevance.metrics import measure_rankings
from models.registry import load_encoder
from services.documents.document import joined_text
from services.encoders.manifest import resolve_model_directory
from services.encoders.piece_frequencies import PieceCounter, PieceFrequencies
from services.encoders.query_table import QueryTable
from services.query.expansion import prune_query
from services.query.fusion import DEFAULT_WEIGHTS
from services.settings import Settings

SAMPLES: Final = (20, 50, 100, 200, 500, 1000, 2000)
# Different samples of the same size, whose figures are averaged.
REPEATS: Final = 3
FigureRow = dict[str, float]


def adapted_weights(argv: list[str] | None = None) -> None:
    """Measure NDCG@10 with the encoder's weights, and with weights adapted to all documents and to samples."""
    run_benchmark("adapted_weights", judged_arguments("adapted_weights", adapted_weights.__doc__), measure, argv)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of every collection, and their means without the demo's."""
    encoder = load_encoder(arguments.encoder, threads=arguments.threads)
    table = QueryTable.load(resolve_model_directory(arguments.encoder))
    rows: dict[str, dict[str, FigureRow]] = {}
    with open_node() as settings:
        version = read_opensearch_version(settings)
        for judged in open_judged_collections(arguments, encoder, settings):
            if judged.name == DEMO_COLLECTION:
                continue  # its documents are made in a folder that is gone
            collection = open_sample(arguments.data, judged.name)
            texts = [joined_text(document.title, document.text) for document in collection.documents()]
            rows[judged.name] = compare(judged, table, texts)
            print(judged.name, rows[judged.name], flush=True)
    means = {
        way: {kind: round(sum(row[way][kind] for row in rows.values()) / len(rows), 5) for kind in ("sparse", "hybrid")}
        for way in next(iter(rows.values()))
    }
    for way, mean in means.items():
        print(f"{way:>20}  sparse {mean['sparse']:.4f}  hybrid {mean['hybrid']:.4f}")
    return {
        "opensearch": version,
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "candidates": CANDIDATE_COUNT,
        "pruned_below": Settings().prune,
        "means": means,
        "by_collection": rows,
    }


def compare(judged: JudgedLists, table: QueryTable, texts: Sequence[str]) -> dict[str, FigureRow]:
    """Return NDCG@10 of sparse and hybrid lists by the documents that were counted."""
    ids = [table.ids(text) for text in texts]
    rows = {
        "encoder's weights": _figures(judged, table),
        "all documents": _figures(judged, table.adapt(count_frequencies(ids))),
    }
    for size in SAMPLES:
        if size >= len(ids):
            rows[f"{size} documents"] = rows["all documents"]
            continue
        samples = [random.Random(seed).sample(ids, size) for seed in range(REPEATS)]
        figures = [_figures(judged, table.adapt(count_frequencies(sample))) for sample in samples]
        rows[f"{size} documents"] = {
            kind: round(sum(each[kind] for each in figures) / REPEATS, 5) for kind in figures[0]
        }
    return rows


def count_frequencies(documents: Sequence[Sequence[int]]) -> PieceFrequencies:
    """Return the frequencies of pieces over documents, each as its piece ids."""
    counter = PieceCounter()
    for document in documents:
        counter.add(document)
    return counter.frequencies()


def _figures(judged: JudgedLists, table: QueryTable) -> FigureRow:
    share = Settings().prune
    lists: Mapping[str, list[tuple[str, float]]] = {
        name: judged.index.search(prune_query(table.encode(text, 1000), share).by_id(), CANDIDATE_COUNT)
        for name, text in judged.queries.items()
    }
    fused = fuse_rankings(lists, judged.lexical, DEFAULT_WEIGHTS["sparse"])
    return {
        kind: round(measure_rankings(judged.judgements, rankings).mean["ndcg@10"], 5)
        for kind, rankings in (("sparse", lists), ("hybrid", fused))
    }
