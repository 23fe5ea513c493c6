"""`python -m benchmarks` (`make bench`): everything that needs no texts from elsewhere, one after the other.

    python -m benchmarks [--json FOLDER] [--passages FOLDER --cache FOLDER]

Takes about ten minutes on two cores. With --passages, sparse_vs_match too. Results are written to the folder of --json
(benchmarks/results to replace the committed ones); without it they are only printed.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    api_overhead,
    batch,
    feedback_cost,
    hybrid_requests,
    ingest_throughput,
    journal_100k,
    journal_cost,
    query_encoding,
    sparse_vs_match,
    talk_intake,
    telemetry_cost,
    worker_pipeline,
)

ALONE: dict[str, Callable[[list[str]], None]] = {
    "query_encoding": query_encoding.main,
    "talk_intake": talk_intake.main,
    "api_overhead": api_overhead.main,
    "telemetry_cost": telemetry_cost.main,
    "batch": batch.main,
    "hybrid_requests": hybrid_requests.main,
    "feedback_cost": feedback_cost.main,
    "worker_pipeline": worker_pipeline.main,
    "ingest_throughput": ingest_throughput.main,
    "journal_cost": journal_cost.main,
    "journal_100k": journal_100k.main,
}


def main() -> None:
    """Runs them. One that fails ends the run: its message says what is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="write each result there as NAME.json")
    parser.add_argument("--passages", type=Path, help="the folder of sparse_vs_match; without it that one is left out")
    parser.add_argument("--cache", type=Path, help="keeps the passages' vectors")
    given = parser.parse_args()
    for name, command in ALONE.items():
        print(f"== {name}", flush=True)
        command(_json(given.json, name))
    if given.passages is None:
        print("== sparse_vs_match left out: give the folder of its texts with --passages")
        return
    print("== sparse_vs_match", flush=True)
    cache = ["--cache", str(given.cache)] if given.cache else []
    sparse_vs_match.main([str(given.passages), *cache, *_json(given.json, "sparse_vs_match")])


def _json(folder: Path | None, name: str) -> list[str]:
    return ["--json", str(folder / f"{name}.json")] if folder else []


if __name__ == "__main__":
    main()
