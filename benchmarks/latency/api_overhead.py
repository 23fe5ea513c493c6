"""What does the API cost over the raw client? The same search through AsyncOpenSearch and through POST /search.

    python -m benchmarks.api_overhead --json benchmarks/results/api_overhead.json

One client, one kept connection a side, each query to both sides in turn. The raw side sends bodies that were built
before and parses the answer with orjson; for hybrid it knows the ids that the second request asks for. The API side is
the real process, spoken to over a lean client (benchmarks.loopback); its answer is parsed too, nothing is subtracted.
Processor time a call is arguments as well: it says what a busy machine's clock cannot.

What do metrics, log lines and traces add to a search request? Microseconds a request, without network or server.

    python -m benchmarks.telemetry_cost --json benchmarks/results/telemetry_cost.json

The request is what a search makes of telemetry: the middleware, one timed request to OpenSearch, a stopwatch with five
laps. `bare` is the same without any of it. Spans are taken by a collector in a process of its own, and thrown away.
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
from infra.processes import find_free_port, is_port_taken
from query_api.schemas.search_request import SearchRequest
from query_api.search.executor import Stopwatch
from query_api.search.query_builder import needed_source
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.index_spec import Generation
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


async def _bare_app(scope: Scope, receive: Receive, send: Send) -> None:
    await send(dict(_RESPONSE_START))
    await send(_RESPONSE_BODY)


async def _search_app(scope: Scope, receive: Receive, send: Send) -> None:
    scope["route"] = _SEARCH_ROUTE
    watch = Stopwatch()
    with TimedRequest(api_operation("/sparsewell-notes.g000001/_search")) as timed:
        _ = timed.headers
    for stage in _STAGES:
        watch.lap(stage)
    watch.finish("hybrid")
    await send(dict(_RESPONSE_START))
    await send(_RESPONSE_BODY)


def _make_scope(headers: list[tuple[bytes, bytes]]) -> Scope:
    return {"type": "http", "method": "POST", "path": "/v1/indexes/notes/search", "headers": headers}


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


@contextmanager
def _enable_tracing(sampler: str) -> Iterator[None]:
    port = find_free_port()
    with subprocess.Popen([sys.executable, "-c", _COLLECTOR_SCRIPT, str(port)]) as collector:
        chosen = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_TRACES_SAMPLER": sampler}
        os.environ.update(chosen)
        try:
            with tracing.tracing_session("benchmark"):
                while not is_port_taken(port):
                    sleep(0.05)
                yield
        finally:
            for name in chosen:
                del os.environ[name]
            collector.terminate()


def measure_telemetry(arguments: argparse.Namespace) -> dict[str, Any]:
    """The table by what is on."""
    access = logging.getLogger("sparsewell.access")
    access.propagate = False
    access.setLevel(logging.INFO)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123 (no file)
        handler = logging.StreamHandler(nowhere)
        handler.setFormatter(JsonFormatter("benchmark"))
        access.addHandler(handler)
        plain, said = ObservabilityMiddleware(_search_app), ObservabilityMiddleware(_search_app, log_requests=True)
        parent = [(b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
        durations: dict[str, list[float]] = {}

        def again(name: str, app: ASGIApp, headers: list[tuple[bytes, bytes]]) -> None:
            asyncio.run(_time_calls(app, 50, headers))
            durations.setdefault(name, []).extend(asyncio.run(_time_calls(app, arguments.calls, headers)))

        for _ in range(arguments.rounds):
            again("bare", _bare_app, [])
            again("metrics", plain, [])
            again("metrics and a line", said, [])
            with _enable_tracing("always_off"):
                again("metrics, traces not sampled", plain, [])
            with _enable_tracing("always_on"):
                again("metrics and traces", plain, parent)
    rows = {name: summarise_durations(values, 1) for name, values in durations.items()}
    for name, row in rows.items():
        row["p50_added"] = round(row["p50"] - rows["bare"]["p50"], 1)
        print(f"{name:>28}: p50 {row['p50']:6.1f} us, {row['p50_added']:6.1f} more than bare, p90 {row['p90']:6.1f} us")
    return {"microseconds": rows}


def telemetry_cost(argv: list[str] | None = None) -> None:
    """Measure what metrics, log lines and traces add to a search request."""
    parser = make_parser("telemetry_cost", telemetry_cost.__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    run_benchmark("telemetry_cost", parser, measure_telemetry, argv)


TARGET_MS = 1.0
OVERHEAD_CASES = {
    f"{mode}, {'with' if passage else 'without'} passage": {"mode": mode, "passage": passage}
    for mode in ("sparse", "lexical", "hybrid")
    for passage in (False, True)
}


class OverheadSides:
    """The same question for both sides."""

    def __init__(self, settings: Settings, generation: Generation, case: dict[str, Any]) -> None:
        self._settings = settings
        self._generation = generation
        self._table = QueryTable.load(resolve_model_directory(settings.encoder))
        self._case = case
        self.path = f"/v1/indexes/{generation.index}/search"

    def request(self, query: str) -> bytes:
        return orjson.dumps({"query": query, "size": 10} | self._case)

    def calls(self, query: str, ids: Sequence[str]) -> list[Call]:
        """What the API sends for it; `ids` are those of its hits."""
        request = SearchRequest(query=query, size=10, **self._case)
        timeout, physical, source = self._settings.search_timeout, self._generation.physical, needed_source(request)
        queries = {"sparse": sparse_query(self._table.encode(query, 1000)), "lexical": lexical_query(query)}
        if request.mode != "hybrid":
            return [
                search_call(
                    SearchPlan(physical, build_search_body(queries[request.mode], request.size, source, timeout)),
                    timeout,
                )
            ]
        plans = [build_search_body(one, request.candidates, False, timeout) for one in queries.values()]
        first = msearch_call([SearchPlan(physical, plan) for plan in plans], timeout)
        return [first, fetch_fields_call([((physical, one), source) for one in ids], timeout)] if ids else [first]


async def compare_sides(
    settings: Settings, generation: Generation, case: dict[str, Any], queries: Sequence[str], rounds: int, pid: int
) -> dict[str, Any]:
    """Milliseconds of both sides, their difference call by call, and the API's own stages; `pid` is the API's."""
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
    cost = summarise_durations([mine - theirs for mine, theirs in zip(durations["api"], durations["raw"], strict=True)])
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


def measure_overhead(arguments: argparse.Namespace) -> dict[str, Any]:
    """The table by mode."""
    queries = read_everyday_questions()
    rows: dict[str, Any] = {}
    with open_node() as settings:
        generation = fill_stdlib_index(settings, encode_stdlib(settings, arguments.documents))
        with run_process(settings, "api") as api:
            # a Java process is fast only after thousands of the same request
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


def api_overhead(argv: list[str] | None = None) -> None:
    """Compare the same search through AsyncOpenSearch and through POST /search."""
    parser = make_parser("api_overhead", api_overhead.__doc__)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=8, help="times that every question is asked of each side")
    run_benchmark("api_overhead", parser, measure_overhead, argv)
