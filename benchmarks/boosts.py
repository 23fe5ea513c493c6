"""What do boosts by field cost? The same questions to the same documents, under rules and without any.

    python -m benchmarks.boosts --json benchmarks/results/boosts.json

One client, ten hits, each query to every index in turn, through the real API process. `over plain` are ratios of
percentiles. Documents beyond those that were encoded repeat them (benchmarks.large_index).
"""

import argparse
from collections.abc import Sequence
from contextlib import closing
from itertools import product
from typing import Any

import httpx
import uvloop

from benchmarks.filled_index import Encoded, create, fill
from benchmarks.large_index import repeated
from benchmarks.record import command_line, run
from benchmarks.segments import merge_to_one, settle
from benchmarks.service import node_settings, opensearch_version, running
from benchmarks.sides import compared
from benchmarks.stdlib_index import encoded_stdlib, everyday_questions
from services.index_spec import IndexSpec
from services.opensearch.client import SyncSearch
from services.settings import Settings

_KINDS = ("function", "class", "method", "module")
RULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one-boost": {"boosts": [{"filter": {"field": "kind", "is": "class"}, "factor": 1.5}]},
    "ten-boosts": {
        "boosts": [
            {"filter": {"field": "kind", "any_of": [one, other]}, "factor": 1.1}
            for one in _KINDS
            for other in _KINDS
            if one < other
        ]
        + [{"filter": {"field": "module", "prefix": letter}, "factor": 0.9} for letter in "acst"]
    },
    "title": {"fields": {"title": 3}},
}


SPEC = IndexSpec.model_validate({"fields": {"kind": "keyword", "module": "keyword", "part": "keyword"}})


def _fill(settings: Settings, encoded: Sequence[Encoded], size: int) -> None:
    """An index for each of the rules."""
    with closing(SyncSearch(settings)) as search:
        for name in RULES:
            generation = create(search, settings, f"{name}-{size}", SPEC)
            fill(search, settings, generation, repeated(encoded, size))
            settle(search, generation)
            merge_to_one(search, generation)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The table by size of the index and mode."""
    queries = everyday_questions()
    sizes = [int(size) for size in given.sizes.split(",")]
    rows: dict[str, Any] = {}
    with node_settings() as settings:
        encoded = encoded_stdlib(settings, given.documents)
        for size in sizes:
            _fill(settings, encoded, size)
        with running(settings, "api"), httpx.Client(base_url=f"http://{settings.api_host}:{settings.api_port}") as api:
            for size, (name, rules) in product(sizes, RULES.items()):
                api.put(f"/v1/indexes/{name}-{size}/curation", json={"rules": rules}).raise_for_status()
            for size, mode in product(sizes, ("sparse", "lexical", "hybrid")):
                sides = {name: (f"{name}-{size}", {"mode": mode}) for name in RULES}
                uvloop.run(compared(settings, sides, queries, 2))
                row = uvloop.run(compared(settings, sides, queries, given.rounds))
                rows[f"{size} documents, {mode}"] = row
                shown = ", ".join(f"{name} {side['ms']['p50']:.2f}" for name, side in row.items())
                print(f"{size:>6} documents, {mode:>8}, ms p50: {shown}", flush=True)
        version = opensearch_version(settings)
    return {"opensearch": version, "queries": len(queries), "cases": rows}


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("boosts", __doc__)
    parser.add_argument("--documents", type=int, default=2000, help="documents that are encoded")
    parser.add_argument("--sizes", default="5000,60000", help="documents of the indexes, separated by commas")
    parser.add_argument("--rounds", type=int, default=4, help="times that every question is asked of each index")
    run("boosts", parser, measure, arguments)


if __name__ == "__main__":
    main()
