"""What do explanations and highlights cost those who ask for them? The same search plain, explained, highlighted.

    python -m benchmarks.highlights --json benchmarks/results/highlights.json

One client, ten hits, each query to every side in turn, through the real API process. Python's documentation as it is,
and ten of its documents as one (several windows each). `over plain` are ratios of percentiles.
"""

import argparse
from itertools import product
from typing import Any

import uvloop

from benchmarks.record import command_line, run
from benchmarks.service import node_settings, opensearch_version, running
from benchmarks.sides import compared
from benchmarks.stdlib_index import encoded_stdlib, everyday_questions, joined, stdlib_index

# Documents of Python's documentation that make a long one.
PARTS = 10
SIDES: dict[str, dict[str, Any]] = {
    "plain": {},
    "explained": {"explain": True},
    "highlighted": {"highlight": True},
    "excerpt of 200 characters": {"highlight": {"characters": 200}},
}


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The table by length of documents and mode."""
    queries = everyday_questions()
    rows: dict[str, Any] = {}
    with node_settings() as settings:
        short = encoded_stdlib(settings, given.documents)
        for name, encoded in (("short", short), ("long", joined(short, PARTS))):
            stdlib_index(settings, encoded, name)
        with running(settings, "api"):
            for index, mode in product(("short", "long"), ("sparse", "lexical", "hybrid")):
                sides = {name: (index, options | {"mode": mode}) for name, options in SIDES.items()}
                uvloop.run(compared(settings, sides, queries, 1))
                row = uvloop.run(compared(settings, sides, queries, given.rounds))
                rows[f"{mode}, {index} documents"] = row
                shown = ", ".join(f"{name} {side['ms']['p50']:.2f}" for name, side in row.items())
                print(f"{mode:>8}, {index:>5} documents, ms p50: {shown}", flush=True)
        version = opensearch_version(settings)
    return {"opensearch": version, "queries": len(queries), "cases": rows}


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("highlights", __doc__)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=4, help="times that every question is asked of each side")
    run("highlights", parser, measure, arguments)


if __name__ == "__main__":
    main()
