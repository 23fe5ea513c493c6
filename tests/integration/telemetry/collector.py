"""Receive OTLP over HTTP on loopback and keep the data, in place of an OpenTelemetry collector."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Got:
    """A span as the collector received it."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    attributes: dict[str, str]
    failed: bool


@dataclass
class Collector:
    """The received data. `spans` grows while processes send."""

    url: str
    raw: list[bytes] = field(default_factory=list)

    @property
    def spans(self) -> list[Got]:
        return [span for body in list(self.raw) for span in _read(body)]

    def named(self, name: str) -> list[Got]:
        return [span for span in self.spans if span.name == name]


def _read(body: bytes) -> Iterator[Got]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        said = {one.key: one.value.string_value for one in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                attributes = {one.key: one.value.string_value or str(one.value.int_value) for one in span.attributes}
                yield Got(
                    said["service.name"], span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
                    tuple(link.trace_id.hex() for link in span.links), attributes, span.status.code == 2,
                )  # fmt: skip


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector inside the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/traces":
                found.raw.append(body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Collector(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
