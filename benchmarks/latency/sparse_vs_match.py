"""Latency of a sparse search beside a keyword search: `rank_feature` and `match` on the same index, in turn.

    python -m benchmarks sparse_vs_match FOLDER --cache CACHE --json benchmarks/results/sparse_vs_match.json

FOLDER has external texts (benchmarks.large_index). Passages are cut to their first pieces, encoded by the configured
encoder and stored with the service's mapping; queries are their titles. One client with one kept connection
(benchmarks.service) reads ids and scores of ten hits, without sources.
"""

import argparse
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import uvloop

from benchmarks.large_index import (
    SourcePassage,
    choose_title_queries,
    cut_first_windows,
    load_or_encode_vectors,
    read_mixed_passages,
)
from benchmarks.measuring import make_parser, percentile_ratios, run_benchmark, summarise_durations, take_turns
from benchmarks.service import (
    EncodedPair,
    LoopbackConnection,
    create_index,
    fill_generation,
    index_size,
    merge_to_one_segment,
    open_node,
    read_opensearch_version,
    wait_for_merges,
)
from models.registry import load_encoder
from services.documents.document import Document
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.index_spec import Generation
from services.opensearch.client import SyncSearchClient
from services.opensearch.queries import build_search_body, lexical_query, sparse_query
from services.opensearch.stored_document import EncodedWindow
from services.settings import Settings

HIT_COUNT = 10


def sparse_vs_match(argv: list[str] | None = None) -> None:
    """Compare `rank_feature` and `match` on the same index."""
    parser = make_parser("sparse_vs_match", sparse_vs_match.__doc__)
    parser.add_argument("folder", type=Path, help="folder of wikipedia_lead.jsonl.gz and the others")
    parser.add_argument("--cache", type=Path, help="keep the vectors there: encoding 60,000 takes ten minutes")
    parser.add_argument("--sizes", default="5000,60000", help="documents of each index")
    parser.add_argument("--pieces", type=int, default=64, help="pieces of each passage")
    parser.add_argument("--queries", type=int, default=200, help="queries of each kind")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over all queries and sides")
    run_benchmark("sparse_vs_match", parser, measure_sparse_vs_match, argv)


def measure_sparse_vs_match(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the table by size of the index, as written and merged to one segment."""
    sizes = [int(size) for size in arguments.sizes.split(",")]
    passages = read_mixed_passages(arguments.folder, max(sizes))
    rows: dict[str, Any] = {}
    # Before the start of the node, because encoding takes minutes.
    encoded = make_encoded_passages(Settings.read().encoder, passages, arguments.pieces, arguments.cache)
    with open_node() as settings:
        queries = choose_title_queries(passages[: min(sizes)], arguments.queries)
        with closing(SyncSearchClient(settings)) as search:
            for size in sizes:
                generation = create_index(search, settings, f"passages{size}")
                fill_generation(search, settings, generation, encoded[:size])
                wait_for_merges(search, generation)
                # The JVM is fast only after thousands of the same request.
                uvloop.run(compare_with_match(settings, generation, queries, 3))
                for state in ("as written", "one segment"):
                    if state == "one segment":
                        merge_to_one_segment(search, generation)
                    row = uvloop.run(compare_with_match(settings, generation, queries, arguments.rounds))
                    name = f"{size} documents, {state}"
                    rows[name] = index_size(search, generation) | row
                    for kind in row:
                        _print_row(f"{name}, {kind}", row[kind])
        version = read_opensearch_version(settings)
    weights = [len(windows[0].vector) for _, windows in encoded]
    return {
        "opensearch": version,
        "weights_a_document_mean": round(sum(weights) / len(weights), 1),
        "hits": HIT_COUNT,
        "cases": rows,
    }


def make_encoded_passages(
    name: str, passages: list[SourcePassage], pieces: int, cache: Path | None
) -> list[EncodedPair]:
    """Return documents of the passages' first pieces, with the vectors of the same pieces."""
    encoder = load_encoder(name)
    windows = cut_first_windows(encoder, passages, pieces)
    vectors = load_or_encode_vectors(encoder, windows, cache)
    return [
        (
            Document(f"p{number}", passage.text[window.start : window.end]),
            [EncodedWindow(window.start, window.end, vector)],
        )
        for number, (passage, window, vector) in enumerate(zip(passages, windows, vectors, strict=True))
    ]


async def compare_with_match(
    settings: Settings, generation: Generation, queries: dict[str, list[str]], rounds: int
) -> dict[str, Any]:
    """Return both sides' milliseconds by kind of query, their ratio, and OpenSearch's own `took`."""
    table = QueryTable.load(resolve_model_directory(settings.encoder))
    path = f"/{generation.physical}/_search"
    results: dict[str, Any] = {}
    async with LoopbackConnection(settings.opensearch_url) as connection:
        for kind, texts in queries.items():
            bodies = {
                "sparse": {text: _make_body(sparse_query(table.encode(text, 1000)), settings) for text in texts},
                "match": {text: _make_body(lexical_query(text), settings) for text in texts},
            }
            engine: dict[str, list[int]] = {name: [] for name in bodies}

            async def send(side: str, text: str, bodies: Any = bodies, engine: Any = engine) -> None:
                answer = await connection.send("POST", path, bodies[side][text])
                engine[side].append(answer["took"])

            durations = await take_turns(
                {"sparse": lambda text: send("sparse", text), "match": lambda text: send("match", text)}, texts, rounds
            )
            rows = {side: summarise_durations(values) for side, values in durations.items()}
            # The first round is not counted here either.
            counted = {side: values[len(texts) :] for side, values in engine.items()}
            results[kind] = {
                "queries": len(texts),
                "words": round(sum(len(text.split()) for text in texts) / len(texts), 1),
                "pieces": round(sum(len(table.encode(text, 1000).ids) for text in texts) / len(texts), 1),
                "sparse_ms": rows["sparse"],
                "match_ms": rows["match"],
                "sparse_over_match": percentile_ratios(rows["sparse"], rows["match"]),
                "engine_took_mean_ms": {side: round(sum(v) / len(v), 3) for side, v in counted.items()},
            }
    return results


def _make_body(query: dict[str, Any], settings: Settings) -> bytes:
    return orjson.dumps(build_search_body(query, HIT_COUNT, False, settings.search_timeout))


def _print_row(name: str, row: dict[str, Any]) -> None:
    sparse, match, ratio = row["sparse_ms"], row["match_ms"], row["sparse_over_match"]
    each = ", ".join(f"{p} {sparse[p]:.2f} / {match[p]:.2f} = {ratio[p]:.2f}" for p in ("p50", "p90", "p99"))
    print(f"{name:>40}: {each}; engine {row['engine_took_mean_ms']}", flush=True)
