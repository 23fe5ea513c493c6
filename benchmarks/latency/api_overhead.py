"""Overhead of the API over the raw client, and of its telemetry.

    python -m benchmarks api_overhead --json benchmarks/results/api_overhead.json
    python -m benchmarks telemetry_cost --json benchmarks/results/telemetry_cost.json

`api_overhead`: a client with a kept connection per side sends each query to both sides in turn. The raw side sends
bodies built before and parses the answers with orjson; for hybrid it knows the ids of the second request. The API side
is the real process behind a lean client (benchmarks.service); its answers are parsed too. Processor time per call
compares even on a busy machine (docs/decisions/0080).

`telemetry_cost`: microseconds of the middleware, a timed request to OpenSearch and a stopwatch with five laps, without
network or server, over `bare` without them. A collector in a separate process discards the spans
(docs/decisions/0210, 0212).
"""

import argparse
import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter_ns, sleep, thread_time
from types import SimpleNamespace
from typing import Any

import orjson
import uvloop
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchmarks.measuring import (
    make_parser,
    process_processor_ms,
    run_benchmark,
    summarise_durations,
    take_turns,
)
from benchmarks.service import LoopbackConnection, open_node, read_opensearch_version, run_process
from benchmarks.stdlib import encode_stdlib, fill_stdlib_index, read_everyday_questions
from infra.ports import find_free_port, is_port_taken
from query_api.schemas.search_request import SearchRequest
from query_api.search.executor import Stopwatch
from query_api.search.query_builder import needed_source
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.index_spec import Generation
from services.opensearch.analysis import blank_stop_words
from services.opensearch.client import AsyncSearchClient, Call, TimedRequest, api_operation
from services.opensearch.queries import (
    SearchPlan,
    build_search_body,
    fetch_fields_call,
    lexical_query,
    msearch_call,
    search_call,
    sparse_query,
)
from services.settings import Settings
from services.telemetry import tracing
from services.telemetry.logs import JsonFormatter
from services.web.middleware import ObservabilityMiddleware

TARGET_MS = 1.0
OVERHEAD_CASES = {
    f"{mode}, {'with' if passage else 'without'} passage": {"mode": mode, "passage": passage}
    for mode in ("sparse", "lexical", "hybrid")
    for passage in (False, True)
}
_SEARCH_ROUTE = SimpleNamespace(path_format="/v1/indexes/{index}/search")
_STAGES = ("encode", "opensearch", "fuse", "opensearch", "shape")
_RESPONSE_START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json")],
}
_RESPONSE_BODY: Message = {"type": "http.response.body", "body": b"{}"}
_COLLECTOR_SCRIPT = """
import http.server, sys
class Sink(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"])); self.send_response(200)
        self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Sink).serve_forever()
"""


def api_overhead(argv: list[str] | None = None) -> None:
    """Compare the same search through AsyncOpenSearch and through POST /search."""
    parser = make_parser("api_overhead", api_overhead.__doc__)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=8, help="rounds over all questions and sides")
    run_benchmark("api_overhead", parser, measure_overhead, argv)


def measure_overhead(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the table by mode."""
    queries = read_everyday_questions()
    rows: dict[str, Any] = {}
    with open_node() as settings:
        generation = fill_stdlib_index(settings, encode_stdlib(settings, arguments.documents))
        with run_process(settings, "api") as api:
            # The JVM is fast only after thousands of the same request.
            for case in OVERHEAD_CASES.values():
                uvloop.run(compare_sides(settings, generation, case, queries, 2, api.pid))
            for name, case in OVERHEAD_CASES.items():
                rows[name] = row = uvloop.run(
                    compare_sides(settings, generation, case, queries, arguments.rounds, api.pid)
                )
                raw, api_side = row["raw_ms"], row["api_ms"]
                print(
                    f"{name:>24}: raw p50 {raw['p50']:.2f} ms, API p50 {api_side['p50']:.2f} ms, over raw "
                    f"{row['p50_over_raw_ms']:.2f} ms (call by call {row['pairwise_cost_ms']['p50']:.2f} ms), "
                    f"p99 {raw['p99']:.1f} and {api_side['p99']:.1f} ms",
                    flush=True,
                )
        version = read_opensearch_version(settings)
    worst = max(row["p50_over_raw_ms"] for row in rows.values())
    print(f"target: at most {TARGET_MS} ms p50 over the raw client: {'reached' if worst <= TARGET_MS else 'MISSED'}")
    return {
        "opensearch": version,
        "queries": len(queries),
        "target": {"p50_over_raw_ms": TARGET_MS, "reached": worst <= TARGET_MS},
        "cases": rows,
    }


class OverheadSides:
    """Same query for both sides."""

    def __init__(self, settings: Settings, generation: Generation, case: dict[str, Any]) -> None:
        self._settings = settings
        self._generation = generation
        self._table = QueryTable.load(resolve_model_directory(settings.encoder))
        self._case = case
        self.path = f"/v1/indexes/{generation.index}/search"

    def request(self, query: str) -> bytes:
        """Return the request body of the API side."""
        return orjson.dumps({"query": query, "size": 10} | self._case)

    def calls(self, query: str, ids: Sequence[str]) -> list[Call]:
        """Return the calls that the API would send; `ids` are the ids of its hits."""
        request = SearchRequest(query=query, size=10, **self._case)
        timeout, physical, source = self._settings.search_timeout, self._generation.physical, needed_source(request)
        queries = {
            "sparse": sparse_query(self._table.encode(query, 1000)),
            "lexical": lexical_query(blank_stop_words(query)),
        }
        if request.mode != "hybrid":
            return [
                search_call(
                    SearchPlan(physical, build_search_body(queries[request.mode], request.size, source, timeout)),
                    timeout,
                )
            ]
        plans = [build_search_body(query, request.candidates, False, timeout) for query in queries.values()]
        first = msearch_call([SearchPlan(physical, plan) for plan in plans], timeout)
        return (
            [first, fetch_fields_call([((physical, document), source) for document in ids], timeout)]
            if ids
            else [first]
        )


async def compare_sides(
    settings: Settings, generation: Generation, case: dict[str, Any], queries: Sequence[str], rounds: int, pid: int
) -> dict[str, Any]:
    """Return milliseconds of both sides, their difference call by call, and the API's stages.

    `pid` is the process id of the API.
    """
    sides = OverheadSides(settings, generation, case)
    search = AsyncSearchClient(settings)
    stages: dict[str, list[float]] = {}
    raw_cpu: list[float] = []
    try:
        async with LoopbackConnection(f"http://{settings.api_host}:{settings.api_port}") as connection:
            requests = {query: sides.request(query) for query in queries}
            answers = {query: await connection.send("POST", sides.path, requests[query]) for query in queries}
            calls = {query: sides.calls(query, [hit["id"] for hit in answers[query]["hits"]]) for query in queries}

            async def raw(query: str) -> None:
                started = thread_time()
                for call in calls[query]:
                    await search.send(call)
                raw_cpu.append((thread_time() - started) * 1000)

            async def api(query: str) -> None:
                answer = await connection.send("POST", sides.path, requests[query])
                for stage, value in answer["timings_ms"].items():
                    stages.setdefault(stage, []).append(value)

            before = process_processor_ms(pid)
            durations = await take_turns({"raw": raw, "api": api}, queries, rounds)
            api_cpu = process_processor_ms(pid) - before
    finally:
        await search.close()
    raw_ms, api_ms = summarise_durations(durations["raw"]), summarise_durations(durations["api"])
    cost = summarise_durations([api - raw for api, raw in zip(durations["api"], durations["raw"], strict=True)])
    return {
        "calls": len(durations["api"]),
        "raw_ms": raw_ms,
        "api_ms": api_ms,
        "p50_over_raw_ms": round(api_ms["p50"] - raw_ms["p50"], 3),
        "pairwise_cost_ms": cost,
        "processor_ms_a_call": {
            "raw client": round(sum(raw_cpu) / len(raw_cpu), 3),
            "API process": round(api_cpu / len(raw_cpu), 3),
        },
        "api_stages_p50_ms": {
            stage: summarise_durations(values[len(queries) :])["p50"] for stage, values in stages.items()
        },
    }


def telemetry_cost(argv: list[str] | None = None) -> None:
    """Measure the time that metrics, log lines and traces add to a search request."""
    parser = make_parser("telemetry_cost", telemetry_cost.__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    run_benchmark("telemetry_cost", parser, measure_telemetry, argv)


def measure_telemetry(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the microseconds by enabled part of the telemetry."""
    access = logging.getLogger("sparsewell.access")
    access.propagate = False
    access.setLevel(logging.INFO)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123 (a device)
        handler = logging.StreamHandler(nowhere)
        handler.setFormatter(JsonFormatter("benchmark"))
        access.addHandler(handler)
        plain, logged = ObservabilityMiddleware(_search_app), ObservabilityMiddleware(_search_app, log_requests=True)
        parent = [(b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
        durations: dict[str, list[float]] = {}

        def measure(name: str, app: ASGIApp, headers: list[tuple[bytes, bytes]]) -> None:
            asyncio.run(_time_calls(app, 50, headers))
            durations.setdefault(name, []).extend(asyncio.run(_time_calls(app, arguments.calls, headers)))

        for _ in range(arguments.rounds):
            measure("bare", _bare_app, [])
            measure("metrics", plain, [])
            measure("metrics and a line", logged, [])
            with _enable_tracing("always_off"):
                measure("metrics, traces not sampled", plain, [])
            with _enable_tracing("always_on"):
                measure("metrics and traces", plain, parent)
    rows = {name: summarise_durations(values, 1) for name, values in durations.items()}
    for name, row in rows.items():
        row["p50_added"] = round(row["p50"] - rows["bare"]["p50"], 1)
        print(f"{name:>28}: p50 {row['p50']:6.1f} us, {row['p50_added']:6.1f} more than bare, p90 {row['p90']:6.1f} us")
    return {"microseconds": rows}


async def _bare_app(scope: Scope, receive: Receive, send: Send) -> None:
    await send(dict(_RESPONSE_START))
    await send(_RESPONSE_BODY)


async def _search_app(scope: Scope, receive: Receive, send: Send) -> None:
    scope["route"] = _SEARCH_ROUTE
    stopwatch = Stopwatch()
    with TimedRequest(api_operation("/sparsewell-notes.g000001/_search")) as timed:
        _ = timed.headers
    for stage in _STAGES:
        stopwatch.lap(stage)
    stopwatch.finish("hybrid")
    await send(dict(_RESPONSE_START))
    await send(_RESPONSE_BODY)


async def _time_calls(app: ASGIApp, calls: int, headers: list[tuple[bytes, bytes]]) -> list[float]:
    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        pass

    durations = []
    for _ in range(calls):
        scope = _make_scope(headers)
        started = perf_counter_ns()
        await app(scope, receive, send)
        durations.append((perf_counter_ns() - started) / 1000)
        await asyncio.sleep(0)
    return durations


def _make_scope(headers: list[tuple[bytes, bytes]]) -> Scope:
    return {"type": "http", "method": "POST", "path": "/v1/indexes/notes/search", "headers": headers}


@contextmanager
def _enable_tracing(sampler: str) -> Iterator[None]:
    port = find_free_port()
    with subprocess.Popen([sys.executable, "-c", _COLLECTOR_SCRIPT, str(port)]) as collector:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_TRACES_SAMPLER": sampler}
        os.environ.update(variables)
        try:
            with tracing.tracing_session("benchmark"):
                while not is_port_taken(port):
                    sleep(0.05)
                yield
        finally:
            for name in variables:
                del os.environ[name]
            collector.terminate()
