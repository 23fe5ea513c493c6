"""Does a filter make a search faster? The same search through the API plain, and with a filter of one in 1,000.

    python -m benchmarks.filtered FOLDER --cache CACHE --json benchmarks/results/filtered.json

FOLDER holds texts that are not part of the project (see benchmarks.passages), cut as by benchmarks.pruning.
One client, one kept connection, each query to every side in turn; queries are titles of the texts. The filters are a
value of a keyword field, the same among ten values, and a range of a number: each leaves at most one document in 1,000.
Without `did_you_mean`, which asks twice more where the keyword list is empty; one more side has it.
"""

import argparse
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.filled_index import Encoded, create, fill
from benchmarks.large_index import PARTS, real_documents, repeated
from benchmarks.record import command_line, run
from benchmarks.segments import settle, size_of
from benchmarks.service import node_settings, opensearch_version, running
from benchmarks.sides import compared
from benchmarks.sparse_vs_match import title_queries
from services.index_spec import IndexSpec
from services.opensearch.client import SyncSearch
from services.settings import Settings

INDEX = "stretches"
SPEC = IndexSpec.model_validate({"fields": {"part": "keyword", "number": "number"}})
PLAIN = "no filter"
SPELT = "is, did you mean"
SIDES: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "is": {"filter": {"field": "part", "is": "7"}},
    "any of ten, of which one is there": {
        "filter": {"field": "part", "any_of": ["7", *(f"none-{i}" for i in range(9))]}
    },
    "range": {"filter": {"field": "number", "range": {"gte": 7, "lt": 8}}},
}
ASKED = {name: {"did_you_mean": False} | members for name, members in SIDES.items()} | {SPELT: SIDES["is"]}
MODES = ("sparse", "lexical", "hybrid")


def numbered(documents: Iterator[Encoded]) -> Iterator[Encoded]:
    """The documents with a number beside their `part`."""
    for at, (document, windows) in enumerate(documents):
        yield replace(document, metadata=document.metadata | {"number": at % PARTS}), windows


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """The table by mode."""
    found, real = real_documents(Settings.read().encoder, given.folder, given.encoded, given.pieces, given.cache)
    queries = [text for texts in title_queries(found, given.queries).values() for text in texts]
    rows: dict[str, Any] = {}
    with node_settings() as settings, closing(SyncSearch(settings)) as search:
        generation = create(search, settings, INDEX, SPEC)
        fill(search, settings, generation, numbered(repeated(real, given.documents)))
        settle(search, generation)
        with running(settings, "api"):
            for mode in MODES:
                sides = {name: (INDEX, members | {"mode": mode}) for name, members in ASKED.items()}
                # a Java process is fast only after thousands of the same request
                for rounds in (1, given.rounds):
                    rows[mode] = uvloop.run(compared(settings, sides, queries, rounds))
                for name, row in rows[mode].items():
                    print(
                        f"{mode:>8}, {name:>34}: p50 {row['ms']['p50']:6.2f} ms "
                        f"({row['over no filter']['p50']:.2f} of none), {row['hits_mean']} hits",
                        flush=True,
                    )
        size, version = size_of(search, generation), opensearch_version(settings)
    return {"opensearch": version, "queries": len(queries), "index": size, "cases": rows}


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("filtered", __doc__)
    parser.add_argument("folder", type=Path, help="holds wikipedia_lead.jsonl.gz and the others")
    parser.add_argument("--cache", type=Path, help="keeps the vectors there")
    parser.add_argument("--documents", type=int, default=60_000, help="of the index")
    parser.add_argument("--encoded", type=int, default=60_000, help="stretches that are encoded")
    parser.add_argument("--pieces", type=int, default=64, help="of each stretch")
    parser.add_argument("--queries", type=int, default=100, help="of each kind")
    parser.add_argument("--rounds", type=int, default=3, help="times that every query is asked of each side")
    run("filtered", parser, measured, arguments)


if __name__ == "__main__":
    main()
