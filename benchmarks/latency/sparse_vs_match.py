"""What does a sparse search cost beside a keyword search? `rank_feature` and `match` on the same index, in turn.

    python -m benchmarks.latency.sparse_vs_match FOLDER --cache CACHE --json benchmarks/results/sparse_vs_match.json

FOLDER holds texts that are not part of the project (see benchmarks.large_index). Passages are cut to their first pieces,
encoded by the configured encoder and stored with the service's mapping; queries are titles of theirs. One client, one
kept connection (benchmarks.service), ids and scores of ten hits, no sources.
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


def make_encoded_passages(
    name: str, results: list[SourcePassage], pieces: int, cache: Path | None
) -> list[EncodedPair]:
    """Documents of the passages' first pieces, with the vector of the same pieces."""
    encoder = load_encoder(name)
    windows = cut_first_windows(encoder, results, pieces)
    vectors = load_or_encode_vectors(encoder, windows, cache)
    return [
        (
            Document(f"p{number}", passage.text[window.start : window.end]),
            [EncodedWindow(window.start, window.end, vector)],
        )
        for number, (passage, window, vector) in enumerate(zip(results, windows, vectors, strict=True))
    ]


async def compare_with_match(
    settings: Settings, generation: Generation, queries: dict[str, list[str]], rounds: int
) -> dict[str, Any]:
    """Both sides' milliseconds by kind of query, their ratio, and what the engine reports itself."""
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

            async def ask(side: str, text: str, bodies: Any = bodies, engine: Any = engine) -> None:
                answer = await connection.send("POST", path, bodies[side][text])
                engine[side].append(answer["took"])

            durations = await take_turns(
                {"sparse": lambda text: ask("sparse", text), "match": lambda text: ask("match", text)}, texts, rounds
            )
            rows = {side: summarise_durations(values) for side, values in durations.items()}
            # the first round is for warming up, here too
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


def measure_sparse_vs_match(arguments: argparse.Namespace) -> dict[str, Any]:
    """The table by size of the index, as it was written and merged to one segment."""
    sizes = [int(size) for size in arguments.sizes.split(",")]
    results = read_mixed_passages(arguments.folder, max(sizes))
    rows: dict[str, Any] = {}
    # before the node is started: a cold cache takes minutes
    encoded = make_encoded_passages(Settings.read().encoder, results, arguments.pieces, arguments.cache)
    with open_node() as settings:
        queries = choose_title_queries(results[: min(sizes)], arguments.queries)
        with closing(SyncSearchClient(settings)) as search:
            for size in sizes:
                generation = create_index(search, settings, f"passages{size}")
                fill_generation(search, settings, generation, encoded[:size])
                wait_for_merges(search, generation)
                # a Java process is fast only after thousands of the same request
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


def _print_row(name: str, row: dict[str, Any]) -> None:
    sparse, match, ratio = row["sparse_ms"], row["match_ms"], row["sparse_over_match"]
    each = ", ".join(f"{p} {sparse[p]:.2f} / {match[p]:.2f} = {ratio[p]:.2f}" for p in ("p50", "p90", "p99"))
    print(f"{name:>40}: {each}; engine {row['engine_took_mean_ms']}", flush=True)


def sparse_vs_match(argv: list[str] | None = None) -> None:
    """Compare `rank_feature` and `match` on the same index."""
    parser = make_parser("sparse_vs_match", sparse_vs_match.__doc__)
    parser.add_argument("folder", type=Path, help="holds wikipedia_lead.jsonl.gz and the others")
    parser.add_argument("--cache", type=Path, help="keeps the vectors there: encoding 60,000 takes ten minutes")
    parser.add_argument("--sizes", default="5000,60000", help="documents of each index")
    parser.add_argument("--pieces", type=int, default=64, help="of each passage")
    parser.add_argument("--queries", type=int, default=200, help="of each kind")
    parser.add_argument("--rounds", type=int, default=3, help="times that every query is asked of each side")
    run_benchmark("sparse_vs_match", parser, measure_sparse_vs_match, argv)
