"""What do metrics, log lines and traces add to a search request? Microseconds a request, without network or server.

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
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns, sleep
from types import SimpleNamespace
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchmarks.record import command_line, run
from benchmarks.timing import spread
from infra.ports import free_port, is_taken
from query_api.search.stopwatch import Stopwatch
from services.opensearch.timed import Timed, operation
from services.telemetry import tracing
from services.telemetry.logs import JsonFormatter
from services.web.observed import Observed

_ROUTE = SimpleNamespace(path_format="/v1/indexes/{index}/search")
_STAGES = ("encode", "opensearch", "fuse", "opensearch", "shape")
_START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
_BODY: Message = {"type": "http.response.body", "body": b"{}"}
_COLLECTOR = """
import http.server, sys
class Sink(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"])); self.send_response(200)
        self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Sink).serve_forever()
"""


async def _bare(scope: Scope, receive: Receive, send: Send) -> None:
    await send(dict(_START))
    await send(_BODY)


async def _search(scope: Scope, receive: Receive, send: Send) -> None:
    scope["route"] = _ROUTE
    watch = Stopwatch()
    with Timed(operation("/sparsewell-notes.g000001/_search")) as timed:
        _ = timed.headers
    for stage in _STAGES:
        watch.lap(stage)
    watch.finish("hybrid")
    await send(dict(_START))
    await send(_BODY)


def _scope(headers: list[tuple[bytes, bytes]]) -> Scope:
    return {"type": "http", "method": "POST", "path": "/v1/indexes/notes/search", "headers": headers}


async def _took(app: ASGIApp, calls: int, headers: list[tuple[bytes, bytes]]) -> list[float]:
    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        pass

    took = []
    for _ in range(calls):
        scope = _scope(headers)
        begun = perf_counter_ns()
        await app(scope, receive, send)
        took.append((perf_counter_ns() - begun) / 1000)
        await asyncio.sleep(0)
    return took


@contextmanager
def _traced(sampler: str) -> Iterator[None]:
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", _COLLECTOR, str(port)]) as collector:
        chosen = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_TRACES_SAMPLER": sampler}
        os.environ.update(chosen)
        try:
            with tracing.traced("benchmark"):
                while not is_taken(port):
                    sleep(0.05)
                yield
        finally:
            for name in chosen:
                del os.environ[name]
            collector.terminate()


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The table by what is on."""
    access = logging.getLogger("sparsewell.access")
    access.propagate = False
    access.setLevel(logging.INFO)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123 (no file)
        handler = logging.StreamHandler(nowhere)
        handler.setFormatter(JsonFormatter("benchmark"))
        access.addHandler(handler)
        plain, said = Observed(_search), Observed(_search, log_requests=True)
        parent = [(b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
        took: dict[str, list[float]] = {}

        def again(name: str, app: ASGIApp, headers: list[tuple[bytes, bytes]]) -> None:
            asyncio.run(_took(app, 50, headers))
            took.setdefault(name, []).extend(asyncio.run(_took(app, given.calls, headers)))

        for _ in range(given.rounds):
            again("bare", _bare, [])
            again("metrics", plain, [])
            again("metrics and a line", said, [])
            with _traced("always_off"):
                again("metrics, traces not sampled", plain, [])
            with _traced("always_on"):
                again("metrics and traces", plain, parent)
    rows = {name: spread(values, 1) for name, values in took.items()}
    for name, row in rows.items():
        row["p50_added"] = round(row["p50"] - rows["bare"]["p50"], 1)
        print(f"{name:>28}: p50 {row['p50']:6.1f} us, {row['p50_added']:6.1f} more than bare, p90 {row['p90']:6.1f} us")
    return {"microseconds": rows}


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("telemetry_cost", __doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    run("telemetry_cost", parser, measure, arguments)


if __name__ == "__main__":
    main()
