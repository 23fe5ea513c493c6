"""Benchmark runner: one benchmark by name, or all that need no external texts.

    python -m benchmarks NAME [options]
    python -m benchmarks [--json FOLDER] [--passages FOLDER --cache FOLDER]

The second form (`make bench`) takes about ten minutes on two cores. With --passages it runs sparse_vs_match too. --json
names the folder of the results, benchmarks/results for the committed ones. `BENCHMARKS` maps each name to the module
that has a function of that name; a module is imported only when its benchmark runs, because some need the extra
`train`.
"""

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

BENCHMARKS = {
    "api_overhead": "latency.api_overhead",
    "batch": "latency.search_requests",
    "body_shapes": "ingest.body_shapes",
    "boosts": "latency.search_options",
    "capacity": "capacity",
    "capacity_fit": "capacity_fit",
    "chapter_cost": "ingest.talk_cost",
    "chapter_cues": "quality.chapter_cues",
    "chapter_search": "quality.chapter_search",
    "chapters": "quality.chapters",
    "connections": "latency.access_cost",
    "context_packing": "studies.context_packing",
    "conversation": "quality.conversations",
    "corrections": "quality.corrections",
    "dense_rerank": "quality.dense_rerank",
    "encoder_speed": "encoders",
    "encoder_training": "encoders",
    "feedback": "quality.feedback",
    "feedback_cost": "latency.query_side",
    "filtered": "latency.search_options",
    "fusion_weights": "quality.fusion_weights",
    "highlights": "latency.search_options",
    "hybrid_requests": "latency.search_requests",
    "conversation_distilled": "quality.conversation_distilled",
    "feedback_learned": "quality.feedback_learned",
    "encoder_components": "quality.encoder_components",
    "ingest_throughput": "ingest.throughput",
    "interactive_writes": "ingest.updates",
    "journal_100k": "ingest.journal",
    "journal_cost": "ingest.journal",
    "key_check": "latency.access_cost",
    "link_pairs": "studies.link_pairs",
    "live_against_memory": "quality.score_comparison",
    "long_documents": "quality.long_documents",
    "metadata_updates": "ingest.updates",
    "window_updates": "ingest.updates",
    "opensearch_access": "latency.access_cost",
    "podtile_cost": "ingest.talk_cost",
    "product_quantisation": "studies.product_quantisation",
    "pruning": "latency.sparse_queries",
    "adapted_weights": "quality.adapted_weights",
    "relevance": "quality.relevance",
    "pruning_quality": "quality.pruning",
    "query_encoding": "latency.query_side",
    "several_indexes": "quality.score_comparison",
    "soak": "soak",
    "sparse_vs_match": "latency.sparse_queries",
    "suggest": "latency.query_side",
    "sweeper_pass": "ingest.updates",
    "talk_encoding": "ingest.talk",
    "talk_intake": "ingest.talk_cost",
    "telemetry_cost": "latency.api_overhead",
    "token_aware_vectors": "studies.token_aware_vectors",
    "worker_pipeline": "ingest.throughput",
}
SELF_CONTAINED_BENCHMARKS = (
    "query_encoding", "talk_intake", "api_overhead", "telemetry_cost", "batch", "hybrid_requests", "feedback_cost",
    "worker_pipeline", "ingest_throughput", "journal_cost", "journal_100k",
)  # fmt: skip


def main(argv: list[str]) -> None:
    """Run the benchmark that the first argument names; without a name, all that need no external texts."""
    if argv and argv[0] in BENCHMARKS:
        load_benchmark(argv[0])(argv[1:])
    else:
        run_all(argv)


def load_benchmark(name: str) -> Callable[[list[str]], None]:
    """Import a benchmark's module and return its function."""
    benchmark: Callable[[list[str]], None] = getattr(import_module(f"benchmarks.{BENCHMARKS[name]}"), name)
    return benchmark


def run_all(argv: list[str]) -> None:
    """Run the benchmarks that need no external texts. A benchmark that fails ends the run with its message."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run every benchmark that needs no external texts.",
        epilog=f"`python -m benchmarks NAME` runs one of: {', '.join(BENCHMARKS)}.",
    )
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="write each result there as NAME.json")
    parser.add_argument("--passages", type=Path, metavar="FOLDER", help="texts of sparse_vs_match; skipped without it")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep the passages' vectors there")
    arguments = parser.parse_args(argv)
    for name in SELF_CONTAINED_BENCHMARKS:
        print(f"== {name}", flush=True)
        load_benchmark(name)(_json_option(arguments.json, name))
    if arguments.passages is None:
        print("== sparse_vs_match skipped: name the folder of its texts with --passages")
        return
    print("== sparse_vs_match", flush=True)
    cache = ["--cache", str(arguments.cache)] if arguments.cache else []
    options = [str(arguments.passages), *cache, *_json_option(arguments.json, "sparse_vs_match")]
    load_benchmark("sparse_vs_match")(options)


def _json_option(folder: Path | None, name: str) -> list[str]:
    return ["--json", str(folder / f"{name}.json")] if folder else []


if __name__ == "__main__":
    main(sys.argv[1:])
