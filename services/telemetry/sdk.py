"""OpenTelemetry's SDK, as `tracing` needs it. Imported only where spans are sent: it needs the extra `tracing`."""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_KINDS: Final = {
    "internal": trace.SpanKind.INTERNAL,
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
    "producer": trace.SpanKind.PRODUCER,
    "consumer": trace.SpanKind.CONSUMER,
}
_NO_PARENT: Final = context.Context()


class Sdk:
    """One provider a process. Sampler, batches, endpoint, headers, certificates: the SDK reads them from OTEL_*."""

    def __init__(self, process: str, version: str) -> None:
        said = {SERVICE_VERSION: version, "sparsewell.process": process}
        if not os.environ.get("OTEL_SERVICE_NAME"):
            said[SERVICE_NAME] = f"sparsewell-{process}"
        self._provider = TracerProvider(resource=Resource.create(said))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("sparsewell", version)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, name: str, kind: str, parent: Mapping[str, str] | None, links: Iterable[str]) -> trace.Span:
        within = None if parent is None else self._propagator.extract(parent, _NO_PARENT)
        linked = [trace.Link(found) for one in links if (found := self._span_context(one)).is_valid]
        return self._tracer.start_span(name, within, _KINDS[kind], links=linked, record_exception=False)

    def past(self, name: str, began: int, ended: int) -> None:
        self._tracer.start_span(name, start_time=began).end(ended)

    def attach(self, span: trace.Span) -> Any:
        return context.attach(trace.set_span_in_context(span))

    def detach(self, token: Any) -> None:
        context.detach(token)

    def fail(self, span: trace.Span, code: str) -> None:
        span.set_attribute("error.type", code)
        span.set_status(trace.StatusCode.ERROR)

    def unsampled(self) -> bool:
        """Whether the current span is one that is not sent: what is inside of it need not be made."""
        current = trace.get_current_span()
        return current.get_span_context().is_valid and not current.is_recording()

    def carrier(self) -> dict[str, str]:
        found: dict[str, str] = {}
        self._propagator.inject(found)
        return found

    def trace_id(self) -> str | None:
        current = trace.get_current_span().get_span_context()
        return trace.format_trace_id(current.trace_id) if current.trace_flags.sampled else None

    def shutdown(self) -> None:
        self._provider.shutdown()

    def _span_context(self, traceparent: str) -> trace.SpanContext:
        found = self._propagator.extract({"traceparent": traceparent}, _NO_PARENT)
        return trace.get_current_span(found).get_span_context()
