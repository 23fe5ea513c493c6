"""Number of requests: hybrid search in one request or two, and several searches in a batch.

    python -m benchmarks hybrid_requests --json FILE
    python -m benchmarks batch --json FILE

Each command writes its result to FILE. The committed result of `hybrid_requests` is
benchmarks/results/hybrid_requests.json; no result of `batch` is committed.

`hybrid_requests` has two sides: a request for ids and scores and another for the sources of ten hits, or a single
request for the sources of all candidates. Both read two lists of 100 candidates (docs/decisions/0007). `batch`: the
same searches in sequence, over several connections, and in one request, with one API process and one node. The ratio of
sides within a run counts, because the clock of a busy machine says little.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import product
from typing import Any

import orjson
import psutil
import uvloop

from benchmarks.measuring import make_parser, percentile_ratios, run_benchmark, summarise_durations, take_turns
from benchmarks.service import EncodedPair, LoopbackConnection, open_node, read_opensearch_version, run_process
from benchmarks.stdlib import encode_stdlib, fill_stdlib_index, join_documents, read_everyday_questions
from query_api.schemas.search_request import SearchRequest
from query_api.search.query_builder import needed_source
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.index_spec import Generation
from services.opensearch.analysis import blank_stop_words
from services.opensearch.client import AsyncSearchClient
from services.opensearch.queries import (
    SearchPlan,
    build_search_body,
    fetch_fields_call,
    lexical_query,
    msearch_call,
    sparse_query,
)
from services.query.fusion import fuse_lists
from services.settings import Settings

SearchSide = Callable[[str], Awaitable[Any]]
BATCH_CASES = {mode: {"mode": mode, "passage": False} for mode in ("sparse", "lexical", "hybrid")}
SIZE, CANDIDATES = 10, 100
# Documents of Python's documentation in one long document.
JOINED_DOCUMENTS = 10


def hybrid_requests(argv: list[str] | None = None) -> None:
    """Compare hybrid search in two requests with hybrid search in one."""
    parser = make_parser("hybrid_requests", hybrid_requests.__doc__)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=6, help="rounds over all questions and sides")
    run_benchmark("hybrid_requests", parser, measure_hybrid, argv)


def measure_hybrid(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the table for short and long documents, with and without the sources that passages need."""
    rows: dict[str, Any] = {}
    with open_node() as settings:
        short = encode_stdlib(settings, arguments.documents)
        sizes = {"short": short, "long": join_documents(short, JOINED_DOCUMENTS)}
        for (size, encoded), passage in product(sizes.items(), (False, True)):
            if not passage:
                generation = fill_stdlib_index(settings, encoded, size)
                # The JVM is fast only after thousands of the same request.
                uvloop.run(compare_hybrid(settings, generation, passage, read_everyday_questions(), 2))
            name = f"{size} documents, {'with' if passage else 'without'} passage"
            row = uvloop.run(compare_hybrid(settings, generation, passage, read_everyday_questions(), arguments.rounds))
            rows[name] = {"characters_mean": _count_characters(encoded)} | row
            for side in ("two requests", "one request"):
                ms = row[side]["ms"]
                print(f"{name:>32}, {side:>12}: p50 {ms['p50']:.2f} ms, p90 {ms['p90']:.2f} ms, p99 {ms['p99']:.2f} ms")
        version = read_opensearch_version(settings)
    return {"opensearch": version, "size": SIZE, "candidates": CANDIDATES, "cases": rows}


async def compare_hybrid(
    settings: Settings, generation: Generation, passage: bool, queries: Sequence[str], rounds: int
) -> dict[str, Any]:
    """Return milliseconds until the winners' sources are there, and bytes of the answers as JSON."""
    table = QueryTable.load(resolve_model_directory(settings.encoder))
    request = SearchRequest(query="x", passage=passage)
    source, weights = needed_source(request), request.weights.model_dump()
    physical, timeout = generation.physical, settings.search_timeout
    search = AsyncSearchClient(settings)
    received: dict[str, list[int]] = {"two requests": [], "one request": []}
    count_bytes = True

    async def search_lists(query: str, fields: list[str] | bool) -> tuple[list[str], Any]:
        both = (sparse_query(table.encode(query, 1000)), lexical_query(blank_stop_words(query)))
        plans = [build_search_body(part, CANDIDATES, fields, timeout) for part in both]
        answer = await search.send(msearch_call([SearchPlan(physical, plan) for plan in plans], timeout))
        scores = {
            name: {hit["_id"]: hit["_score"] for hit in part["hits"]["hits"]}
            for name, part in zip(("sparse", "lexical"), answer["responses"], strict=True)
        }
        return [document for document, _ in fuse_lists(scores, weights)[:SIZE]], answer

    async def send_two(query: str) -> None:
        ids, answer = await search_lists(query, False)
        sources = (
            await search.send(fetch_fields_call([((physical, document), source) for document in ids], timeout))
            if ids
            else {}
        )
        if count_bytes:
            received["two requests"].append(len(orjson.dumps(answer)) + len(orjson.dumps(sources)))

    async def send_one(query: str) -> None:
        _, answer = await search_lists(query, source)
        if count_bytes:
            received["one request"].append(len(orjson.dumps(answer)))

    sides = {"two requests": send_two, "one request": send_one}
    try:
        for query in queries:
            for side in sides.values():
                await side(query)
        count_bytes = False
        durations = await take_turns(sides, queries, rounds)
    finally:
        await search.close()
    rows: dict[str, Any] = {
        name: {"ms": summarise_durations(values), "answer_bytes_mean": round(sum(received[name]) / len(received[name]))}
        for name, values in durations.items()
    }
    return rows | {"one_over_two": percentile_ratios(rows["one request"]["ms"], rows["two requests"]["ms"])}


def _count_characters(encoded: Sequence[EncodedPair]) -> int:
    return round(sum(len(document.text) for document, _ in encoded) / len(encoded))


def batch(argv: list[str] | None = None) -> None:
    """Compare a batch of searches with single requests, in sequence and in parallel."""
    parser = make_parser("batch", batch.__doc__)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--lengths", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--connections", type=int, default=8, help="connections of the parallel side")
    parser.add_argument("--rounds", type=int, default=12)
    run_benchmark("batch", parser, measure_batch, argv)


def measure_batch(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the table by mode and length of the batch."""
    rows: dict[str, Any] = {}
    with open_node() as settings:
        generation = fill_stdlib_index(settings, encode_stdlib(settings, arguments.documents))
        with run_process(settings, "api") as api:
            for timed in (False, True):  # the first pass warms up the JVM
                for mode, case in BATCH_CASES.items():
                    for length in arguments.lengths:
                        rounds = arguments.rounds if timed else 2
                        row = uvloop.run(
                            compare_batches(
                                settings, generation.index, case, length, arguments.connections, rounds, api.pid
                            )
                        )
                        if timed:
                            rows[f"{mode}, {length} searches"] = row
                            print(f"{mode:>8}, {length:>3} searches: {row['searches_a_second']} a second", flush=True)
        version = read_opensearch_version(settings)
    return {"opensearch": version, "cases": rows}


async def compare_batches(
    settings: Settings, index: str, case: dict[str, Any], length: int, connections: int, rounds: int, pid: int
) -> dict[str, Any]:
    """Return milliseconds of `length` searches by side, and the API's processor time for them."""
    questions = read_everyday_questions()
    groups = {str(at): questions[at : at + length] for at in range(0, len(questions) - length + 1, length)}
    path = f"/v1/indexes/{index}/search"
    bodies = {question: orjson.dumps({"query": question} | case) for question in questions}
    batches = {
        name: orjson.dumps({"searches": [{"index": index, "query": question} | case for question in group]})
        for name, group in groups.items()
    }
    cpu: dict[str, float] = {}
    process = psutil.Process(pid)

    def counted(name: str, side: SearchSide) -> SearchSide:
        async def timed(group: str) -> None:
            before = sum(process.cpu_times()[:2])
            await side(group)
            cpu[name] = cpu.get(name, 0.0) + sum(process.cpu_times()[:2]) - before

        return timed

    async with AsyncExitStack() as opened:
        url = f"http://{settings.api_host}:{settings.api_port}"
        pool = [await opened.enter_async_context(LoopbackConnection(url)) for _ in range(connections)]

        async def one_by_one(group: str) -> None:
            for question in groups[group]:
                await pool[0].send("POST", path, bodies[question])

        async def at_once(group: str) -> None:
            async def send_all(connection: LoopbackConnection, questions: Sequence[str]) -> None:
                for question in questions:
                    await connection.send("POST", path, bodies[question])

            await asyncio.gather(*(send_all(pool[i], groups[group][i::connections]) for i in range(connections)))

        async def batched(group: str) -> None:
            answer = await pool[0].send("POST", "/v1/search/batch", batches[group])
            if any(result["status"] != 200 for result in answer["answers"]):
                raise RuntimeError("a search of the batch failed")

        sides = {"one by one": one_by_one, f"{connections} connections": at_once, "batch": batched}
        durations = await take_turns({name: counted(name, side) for name, side in sides.items()}, list(groups), rounds)
    ms = {name: summarise_durations(values) for name, values in durations.items()}
    calls = len(next(iter(durations.values()))) + len(groups)  # processor time includes the first round
    return {
        "ms": ms,
        "searches_a_second": {name: round(length * 1000 / row["p50"]) for name, row in ms.items()},
        "gain_over": {name: percentile_ratios(row, ms["batch"]) for name, row in ms.items() if name != "batch"},
        "api_processor_ms_a_search": {name: round(spent * 1000 / calls / length, 3) for name, spent in cpu.items()},
    }
