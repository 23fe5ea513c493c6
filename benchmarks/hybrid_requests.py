"""Two requests or one for hybrid search? Ids and scores first and the winners' sources then, or all sources at once.

    python -m benchmarks.hybrid_requests --json benchmarks/results/hybrid_requests.json

Two lists of 100 candidates, 10 shown; the same client, each query to both sides in turn. docs/decisions/0007.
"""

import argparse
from collections.abc import Sequence
from itertools import product
from typing import Any

import orjson
import uvloop

from benchmarks.filled_index import Encoded
from benchmarks.record import command_line, run
from benchmarks.service import node_settings, opensearch_version
from benchmarks.stdlib_index import encoded_stdlib, everyday_questions, joined, stdlib_index
from benchmarks.timing import ratios, spread, take_turns
from query_api.search.query_builder import needed_source
from query_api.search.request import SearchRequest
from services.fusion import fuse
from services.index_spec import Generation
from services.manifest import resolve
from services.opensearch.client import AsyncSearch
from services.opensearch.queries import Plan, body, fetch_call, lexical_query, msearch_call, sparse_query
from services.query_table import QueryTable
from services.settings import Settings

SIZE, CANDIDATES = 10, 100
# Documents of Python's documentation that make a long one.
PARTS = 10


async def compare(
    settings: Settings, generation: Generation, passage: bool, queries: Sequence[str], rounds: int
) -> dict[str, Any]:
    """Milliseconds until both lists are fused and the winners' sources are there, and bytes of the answers as JSON."""
    table = QueryTable.load(resolve(settings.encoder))
    request = SearchRequest(query="x", passage=passage)
    source, weights = needed_source(request), request.weights.model_dump()
    physical, timeout = generation.physical, settings.search_timeout
    search = AsyncSearch(settings)
    received: dict[str, list[int]] = {"two requests": [], "one request": []}
    weigh = True

    async def lists(query: str, wanted: list[str] | bool) -> tuple[list[str], Any]:
        both = (sparse_query(table.encode(query, 1000)), lexical_query(query))
        plans = [body(one, CANDIDATES, wanted, timeout) for one in both]
        answer = await search.send(msearch_call([Plan(physical, plan) for plan in plans], timeout))
        scores = {
            name: {hit["_id"]: hit["_score"] for hit in part["hits"]["hits"]}
            for name, part in zip(("sparse", "lexical"), answer["responses"], strict=True)
        }
        return [document for document, _ in fuse(scores, weights)[:SIZE]], answer

    async def two(query: str) -> None:
        ids, answer = await lists(query, False)
        sources = await search.send(fetch_call([((physical, one), source) for one in ids], timeout)) if ids else {}
        if weigh:
            received["two requests"].append(len(orjson.dumps(answer)) + len(orjson.dumps(sources)))

    async def one(query: str) -> None:
        _, answer = await lists(query, source)
        if weigh:
            received["one request"].append(len(orjson.dumps(answer)))

    sides = {"two requests": two, "one request": one}
    try:
        for query in queries:
            for side in sides.values():
                await side(query)
        weigh = False
        took = await take_turns(sides, queries, rounds)
    finally:
        await search.close()
    rows: dict[str, Any] = {
        name: {"ms": spread(values), "answer_bytes_mean": round(sum(received[name]) / len(received[name]))}
        for name, values in took.items()
    }
    return rows | {"one_over_two": ratios(rows["one request"]["ms"], rows["two requests"]["ms"])}


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The table, with and without the sources that passages need, for short documents and for long ones."""
    rows: dict[str, Any] = {}
    with node_settings() as settings:
        short = encoded_stdlib(settings, given.documents)
        sizes = {"short": short, "long": joined(short, PARTS)}
        for (size, encoded), passage in product(sizes.items(), (False, True)):
            if not passage:
                generation = stdlib_index(settings, encoded, size)
                # a Java process is fast only after thousands of the same request
                uvloop.run(compare(settings, generation, passage, everyday_questions(), 2))
            name = f"{size} documents, {'with' if passage else 'without'} passage"
            row = uvloop.run(compare(settings, generation, passage, everyday_questions(), given.rounds))
            rows[name] = {"characters_mean": _characters(encoded)} | row
            for side in ("two requests", "one request"):
                ms = row[side]["ms"]
                print(f"{name:>32}, {side:>12}: p50 {ms['p50']:.2f} ms, p90 {ms['p90']:.2f} ms, p99 {ms['p99']:.2f} ms")
        version = opensearch_version(settings)
    return {"opensearch": version, "size": SIZE, "candidates": CANDIDATES, "cases": rows}


def _characters(encoded: Sequence[Encoded]) -> int:
    return round(sum(len(document.text) for document, _ in encoded) / len(encoded))


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("hybrid_requests", __doc__)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=6, help="times that every question is asked of each side")
    run("hybrid_requests", parser, measure, arguments)


if __name__ == "__main__":
    main()
