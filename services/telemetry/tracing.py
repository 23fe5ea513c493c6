"""Traces for an OpenTelemetry collector. Without the standard OTEL_* variables there are no spans and no SDK import.

When tracing is off, a span is the API's invalid span. The API's no-op tracer would attach a context for each span and
cost ten times as much. When it is on, a span costs about 30 microseconds (docs/decisions/0212). No span contains a
query, a document or a key. A span of an error has its code.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Literal

from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.errors import ConfigurationError, SparsewellError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

SpanKind = Literal["internal", "server", "client", "producer", "consumer"]
SpanAttributes = Mapping[str, str | int | float]
TRACEPARENT_HEADER: Final = "traceparent"
TRACESTATE_HEADER: Final = "tracestate"

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_NO_CONTEXT: Final = context.Context()
_NO_SPAN: Final = nullcontext(trace.INVALID_SPAN)

_provider: "TracerProvider | None" = None
_tracer: trace.Tracer | None = None


def is_tracing_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the standard variables name a destination of spans.

    Raises ConfigurationError (`tracing_protocol`).
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    endpoint = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if exporter not in ("", "otlp", "none"):
        raise ConfigurationError("tracing_protocol", f"OTEL_TRACES_EXPORTER is {exporter!r}; only `otlp` is supported.")
    if exporter == "none" or not (endpoint or exporter):
        return False
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if (protocol := environment.get(name, "http/protobuf")) != "http/protobuf":
            raise ConfigurationError(
                "tracing_protocol",
                f"{name} is {protocol!r}; only http/protobuf is supported (port 4318 of a collector).",
            )
    return True


def start_tracing(process: str) -> None:
    """Send spans from here on, if the environment asks for it. A forked process must start tracing itself.

    Raises ConfigurationError: `tracing_not_installed`, `tracing_protocol`.
    """
    global _provider, _tracer  # noqa: PLW0603 (one per process, like the library's provider)
    check_tracing()
    if is_tracing_wanted():
        _provider = _new_provider(process)
        _tracer = _provider.get_tracer("sparsewell", version("sparsewell"))


def check_tracing() -> None:
    """Check that spans can be sent if the environment asks for it, without sending any. Raises as `start_tracing`."""
    if not is_tracing_wanted():
        return
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401 (checks that it is installed)
        import opentelemetry.sdk.trace  # noqa: F401 (checks that it is installed)
    except ImportError:
        raise ConfigurationError(
            "tracing_not_installed",
            "OTEL_* asks for traces, and the base installation cannot send them: pip install -e '.[tracing]'.",
        ) from None


def _new_provider(process: str) -> "TracerProvider":
    """Return the SDK's provider. It reads sampler, batches, endpoint, headers and certificates from OTEL_*."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    attributes = {SERVICE_VERSION: version("sparsewell"), "sparsewell.process": process}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        attributes[SERVICE_NAME] = f"sparsewell-{process}"
    provider = TracerProvider(resource=Resource.create(attributes))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def stop_tracing() -> None:
    """Send the waiting spans; takes a few seconds at most."""
    global _provider, _tracer  # noqa: PLW0603 (one per process)
    if _provider is not None:
        _provider.shutdown()
    _provider = _tracer = None


@contextmanager
def tracing_session(process: str) -> Iterator[None]:
    """Call `start_tracing` before the block and `stop_tracing` after it."""
    start_tracing(process)
    try:
        yield
    finally:
        stop_tracing()


def open_span(
    name: str,
    kind: SpanKind = "internal",
    attributes: SpanAttributes | None = None,
    *,
    parent: Mapping[str, str] | None = None,
    links: Iterable[str] = (),
) -> AbstractContextManager[trace.Span]:
    """Open a span around a block, as the current span inside it.

    `parent`: headers that may name the parent; None: the current span is the parent. `links`: traceparents of related
    traces.
    """
    if _tracer is None or (parent is None and _is_unsampled()):
        return _NO_SPAN
    return _start_span(_tracer, name, kind, attributes, parent, links)


@contextmanager
def _start_span(
    tracer: trace.Tracer,
    name: str,
    kind: SpanKind,
    attributes: SpanAttributes | None,
    parent: Mapping[str, str] | None,
    links: Iterable[str],
) -> Iterator[trace.Span]:
    with tracer.start_as_current_span(
        name,
        None if parent is None else _PROPAGATOR.extract(parent, _NO_CONTEXT),
        trace.SpanKind[kind.upper()],
        attributes,
        [trace.Link(linked) for traceparent in links if (linked := _span_context(traceparent)).is_valid],
        record_exception=False,
        set_status_on_exception=False,
    ) as opened:
        try:
            yield opened
        except BaseException as error:
            # The message is left out because OpenSearch quotes documents in its errors.
            mark_span_failed(opened, error.code if isinstance(error, SparsewellError) else type(error).__name__)
            raise


def mark_span_failed(failed: trace.Span, code: str) -> None:
    """Mark a span as failed with an error's code."""
    failed.set_attribute("error.type", code)
    failed.set_status(trace.StatusCode.ERROR)


def is_tracing() -> bool:
    """Return whether spans are sent."""
    return _tracer is not None


def record_past_span(name: str, began: float, ended: float) -> None:
    """Record a span that has ended. `began` and `ended` are readings of `time.perf_counter`."""
    if _tracer is not None and not _is_unsampled():
        shift = time.time_ns() - time.perf_counter_ns()
        _tracer.start_span(name, start_time=shift + int(began * 1e9)).end(shift + int(ended * 1e9))


def trace_headers() -> dict[str, str]:
    """Return the headers that propagate the current span (W3C Trace Context); empty without a span."""
    headers: dict[str, str] = {}
    if _tracer is not None:
        _PROPAGATOR.inject(headers)
    return headers


def current_traceparent() -> str:
    """Return the current traceparent, to be stored for a link; empty without a span."""
    return trace_headers().get(TRACEPARENT_HEADER, "")


def current_trace_id() -> str | None:
    """Return the id of the current trace if it is sampled."""
    if _tracer is None:
        return None
    current = trace.get_current_span().get_span_context()
    return trace.format_trace_id(current.trace_id) if current.trace_flags.sampled else None


def _is_unsampled() -> bool:
    """Return whether the current span is not sampled, so that spans inside it are not created."""
    current = trace.get_current_span()
    return current.get_span_context().is_valid and not current.is_recording()


def _span_context(traceparent: str) -> trace.SpanContext:
    extracted = _PROPAGATOR.extract({TRACEPARENT_HEADER: traceparent}, _NO_CONTEXT)
    return trace.get_current_span(extracted).get_span_context()
