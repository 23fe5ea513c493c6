"""`python -m benchmarks` (`make bench`): everything that needs no texts from elsewhere, one after the other.

    python -m benchmarks [--json FOLDER] [--passages FOLDER --cache FOLDER]

Takes about ten minutes on two cores. With --passages, sparse_vs_match too. Results are written to the folder of --json
(benchmarks/results to replace the committed ones); without it they are only printed.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks.ingest import journal, throughput, worker_pipeline
from benchmarks.latency import api_overhead, query_side, search_requests, sparse_vs_match
from benchmarks.latency import api_overhead as telemetry_cost

SELF_CONTAINED_BENCHMARKS: dict[str, Callable[[list[str]], None]] = {
    "query_encoding": query_side.query_encoding,
    "talk_intake": throughput.talk_intake,
    "api_overhead": api_overhead.api_overhead,
    "telemetry_cost": telemetry_cost.telemetry_cost,
    "batch": search_requests.batch,
    "hybrid_requests": search_requests.hybrid_requests,
    "feedback_cost": query_side.feedback_cost,
    "worker_pipeline": worker_pipeline.main,
    "ingest_throughput": throughput.ingest_throughput,
    "journal_cost": journal.journal_cost,
    "journal_100k": journal.journal_100k,
}


def main() -> None:
    """Runs them. One that fails ends the run: its message says what is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="write each result there as NAME.json")
    parser.add_argument("--passages", type=Path, help="the folder of sparse_vs_match; without it that one is left out")
    parser.add_argument("--cache", type=Path, help="keeps the passages' vectors")
    given = parser.parse_args()
    for name, command in SELF_CONTAINED_BENCHMARKS.items():
        print(f"== {name}", flush=True)
        command(_json_option(given.json, name))
    if given.passages is None:
        print("== sparse_vs_match left out: give the folder of its texts with --passages")
        return
    print("== sparse_vs_match", flush=True)
    cache = ["--cache", str(given.cache)] if given.cache else []
    sparse_vs_match.main([str(given.passages), *cache, *_json_option(given.json, "sparse_vs_match")])


def _json_option(folder: Path | None, name: str) -> list[str]:
    return ["--json", str(folder / f"{name}.json")] if folder else []


if __name__ == "__main__":
    main()
