"""Costs of search options through the API: filters, boosts by field, explanations and highlights.

    python -m benchmarks filtered FOLDER --cache CACHE --json benchmarks/results/filtered.json
    python -m benchmarks boosts --json benchmarks/results/boosts.json
    python -m benchmarks highlights --json benchmarks/results/highlights.json

A client with a kept connection sends each query to every side in turn. Figures are ratios of percentiles to the plain
search.

`filtered` (docs/decisions/0160): FOLDER has external texts, cut as for `pruning`; queries are their titles. The
filters are a value of a keyword field, the same value among ten, and a range of numbers; each leaves at most one
document in 1,000. `did_you_mean` is off, because it searches twice more after an empty lexical list; one side has it
on. `boosts` (0177): one index for each set of rules; indexes beyond the encoded documents repeat them. `highlights`
(0170): Python's documentation as it is, and ten of its documents in one, with several windows each.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import uvloop

from benchmarks.large_index import PART_COUNT, choose_title_queries, encode_stretches, repeat_documents
from benchmarks.measuring import compare_searches, make_parser, run_benchmark
from benchmarks.service import (
    EncodedPair,
    create_index,
    fill_generation,
    index_size,
    merge_to_one_segment,
    open_node,
    read_opensearch_version,
    run_process,
    wait_for_merges,
)
from benchmarks.stdlib import encode_stdlib, fill_stdlib_index, join_documents, read_everyday_questions
from services.index_spec import IndexSpec
from services.opensearch.client import SyncSearchClient
from services.settings import Settings

MODES = ("sparse", "lexical", "hybrid")
STRETCHES_INDEX = "stretches"
FILTER_SPEC = IndexSpec.model_validate({"fields": {"part": "keyword", "number": "number"}})
NO_FILTER = "no filter"
SPELLING_SIDE = "is, did you mean"
FILTER_SIDES: dict[str, dict[str, Any]] = {
    NO_FILTER: {},
    "is": {"filter": {"field": "part", "is": "7"}},
    "any of ten, of which one is there": {
        "filter": {"field": "part", "any_of": ["7", *(f"none-{i}" for i in range(9))]}
    },
    "range": {"filter": {"field": "number", "range": {"gte": 7, "lt": 8}}},
}
FILTER_REQUESTS = {name: {"did_you_mean": False} | members for name, members in FILTER_SIDES.items()} | {
    SPELLING_SIDE: FILTER_SIDES["is"]
}
_KINDS = ("function", "class", "method", "module")
BOOST_RULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one-boost": {"boosts": [{"filter": {"field": "kind", "is": "class"}, "factor": 1.5}]},
    "ten-boosts": {
        "boosts": [
            {"filter": {"field": "kind", "any_of": [first, second]}, "factor": 1.1}
            for first in _KINDS
            for second in _KINDS
            if first < second
        ]
        + [{"filter": {"field": "module", "prefix": letter}, "factor": 0.9} for letter in "acst"]
    },
    "title": {"fields": {"title": 3}},
}
BOOST_SPEC = IndexSpec.model_validate({"fields": {"kind": "keyword", "module": "keyword", "part": "keyword"}})
# Documents of Python's documentation in one long document.
JOINED_DOCUMENTS = 10
HIGHLIGHT_SIDES: dict[str, dict[str, Any]] = {
    "plain": {},
    "explained": {"explain": True},
    "highlighted": {"highlight": True},
    "excerpt of 200 characters": {"highlight": {"characters": 200}},
}


def filtered(argv: list[str] | None = None) -> None:
    """Compare a search with a filter of one document in 1,000 with the plain search."""
    parser = make_parser("filtered", filtered.__doc__)
    parser.add_argument("folder", type=Path, help="folder of wikipedia_lead.jsonl.gz and the others")
    parser.add_argument("--cache", type=Path, help="keep the vectors there")
    parser.add_argument("--documents", type=int, default=60_000, help="documents of the index")
    parser.add_argument("--encoded", type=int, default=60_000, help="encoded stretches")
    parser.add_argument("--pieces", type=int, default=64, help="pieces of each stretch")
    parser.add_argument("--queries", type=int, default=100, help="queries of each kind")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over all queries and sides")
    run_benchmark("filtered", parser, measure_filters, argv)


def measure_filters(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the table by mode."""
    stretches, real = encode_stretches(
        Settings.read().encoder, arguments.folder, arguments.encoded, arguments.pieces, arguments.cache
    )
    queries = [text for texts in choose_title_queries(stretches, arguments.queries).values() for text in texts]
    rows: dict[str, Any] = {}
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        generation = create_index(search, settings, STRETCHES_INDEX, FILTER_SPEC)
        fill_generation(search, settings, generation, number_documents(repeat_documents(real, arguments.documents)))
        wait_for_merges(search, generation)
        with run_process(settings, "api"):
            for mode in MODES:
                sides = {name: (STRETCHES_INDEX, members | {"mode": mode}) for name, members in FILTER_REQUESTS.items()}
                # The JVM is fast only after thousands of the same request.
                for rounds in (1, arguments.rounds):
                    rows[mode] = uvloop.run(compare_searches(settings, sides, queries, rounds))
                for name, row in rows[mode].items():
                    print(
                        f"{mode:>8}, {name:>34}: p50 {row['ms']['p50']:6.2f} ms "
                        f"({row['over no filter']['p50']:.2f} of none), {row['hits_mean']} hits",
                        flush=True,
                    )
        size, version = index_size(search, generation), read_opensearch_version(settings)
    return {"opensearch": version, "queries": len(queries), "index": size, "cases": rows}


def number_documents(documents: Iterator[EncodedPair]) -> Iterator[EncodedPair]:
    """Yield the documents with a number beside their `part`."""
    for number, (document, windows) in enumerate(documents):
        yield replace(document, metadata=document.metadata | {"number": number % PART_COUNT}), windows


def boosts(argv: list[str] | None = None) -> None:
    """Compare a search under rules that boost by field with the plain search."""
    parser = make_parser("boosts", boosts.__doc__)
    parser.add_argument("--documents", type=int, default=2000, help="encoded documents")
    parser.add_argument("--sizes", default="5000,60000", help="documents of each index, separated by commas")
    parser.add_argument("--rounds", type=int, default=4, help="rounds over all questions and indexes")
    run_benchmark("boosts", parser, measure_boosts, argv)


def measure_boosts(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the table by size of the index and mode."""
    queries = read_everyday_questions()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    rows: dict[str, Any] = {}
    with open_node() as settings:
        encoded = encode_stdlib(settings, arguments.documents)
        for size in sizes:
            _fill_indexes(settings, encoded, size)
        with (
            run_process(settings, "api"),
            httpx.Client(base_url=f"http://{settings.api_host}:{settings.api_port}") as api,
        ):
            for size, (name, rules) in product(sizes, BOOST_RULES.items()):
                api.put(f"/v1/indexes/{name}-{size}/curation", json={"rules": rules}).raise_for_status()
            for size, mode in product(sizes, ("sparse", "lexical", "hybrid")):
                sides = {name: (f"{name}-{size}", {"mode": mode}) for name in BOOST_RULES}
                uvloop.run(compare_searches(settings, sides, queries, 2))
                row = uvloop.run(compare_searches(settings, sides, queries, arguments.rounds))
                rows[f"{size} documents, {mode}"] = row
                shown = ", ".join(f"{name} {side['ms']['p50']:.2f}" for name, side in row.items())
                print(f"{size:>6} documents, {mode:>8}, ms p50: {shown}", flush=True)
        version = read_opensearch_version(settings)
    return {"opensearch": version, "queries": len(queries), "cases": rows}


def _fill_indexes(settings: Settings, encoded: Sequence[EncodedPair], size: int) -> None:
    """Create and fill an index for each set of rules."""
    with closing(SyncSearchClient(settings)) as search:
        for name in BOOST_RULES:
            generation = create_index(search, settings, f"{name}-{size}", BOOST_SPEC)
            fill_generation(search, settings, generation, repeat_documents(encoded, size))
            wait_for_merges(search, generation)
            merge_to_one_segment(search, generation)


def highlights(argv: list[str] | None = None) -> None:
    """Compare explained and highlighted searches with the plain search."""
    parser = make_parser("highlights", highlights.__doc__)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=4, help="rounds over all questions and sides")
    run_benchmark("highlights", parser, measure_highlights, argv)


def measure_highlights(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the table by length of the documents and mode."""
    queries = read_everyday_questions()
    rows: dict[str, Any] = {}
    with open_node() as settings:
        short = encode_stdlib(settings, arguments.documents)
        for name, encoded in (("short", short), ("long", join_documents(short, JOINED_DOCUMENTS))):
            fill_stdlib_index(settings, encoded, name)
        with run_process(settings, "api"):
            for index, mode in product(("short", "long"), ("sparse", "lexical", "hybrid")):
                sides = {name: (index, options | {"mode": mode}) for name, options in HIGHLIGHT_SIDES.items()}
                uvloop.run(compare_searches(settings, sides, queries, 1))
                row = uvloop.run(compare_searches(settings, sides, queries, arguments.rounds))
                rows[f"{mode}, {index} documents"] = row
                shown = ", ".join(f"{name} {side['ms']['p50']:.2f}" for name, side in row.items())
                print(f"{mode:>8}, {index:>5} documents, ms p50: {shown}", flush=True)
        version = read_opensearch_version(settings)
    return {"opensearch": version, "queries": len(queries), "cases": rows}
