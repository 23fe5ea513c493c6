"""Spans for an OpenTelemetry collector. Without the standard OTEL_* variables every span is the API's own no-op.

Off, a span costs about two microseconds; on, about 30 (docs/decisions/0212). No span holds a query, a document or a
key; an error is told by its code.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Token
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self

from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.errors import ConfigurationError, SparsewellError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attribute = str | int | float
PARENT: Final = "traceparent"
STATE: Final = "tracestate"
_KINDS: Final = {kind.name.lower(): kind for kind in trace.SpanKind}
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_NO_PARENT: Final = context.Context()

# Of this process. The API's global provider can be set only once, and a forked process needs a provider of its own.
_provider: "TracerProvider | None" = None
_tracer: trace.Tracer | None = None


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the standard variables ask for spans. Raises ConfigurationError (`tracing_protocol`)."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    somewhere = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if exporter not in ("", "otlp", "none"):
        raise ConfigurationError("tracing_protocol", f"OTEL_TRACES_EXPORTER is {exporter!r}; spans are sent by `otlp`.")
    if exporter == "none" or not (somewhere or exporter):
        return False
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if (protocol := environment.get(name, "http/protobuf")) != "http/protobuf":
            raise ConfigurationError(
                "tracing_protocol",
                f"{name} is {protocol!r}; spans are sent by http/protobuf (port 4318 of a collector).",
            )
    return True


def start(process: str) -> None:
    """Send spans from now on, where the environment asks for it. A forked process starts for itself.

    Raises ConfigurationError: `tracing_not_installed`, `tracing_protocol`.
    """
    global _provider, _tracer  # noqa: PLW0603 (of the process)
    check()
    if wanted():
        _provider = _new_provider(process)
        _tracer = _provider.get_tracer("sparsewell", version("sparsewell"))


def check() -> None:
    """Check that spans can be sent where the environment asks for it, without sending any. Raises as `start`."""
    if not wanted():
        return
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError:
        raise ConfigurationError(
            "tracing_not_installed",
            "OTEL_* asks for traces, and the base installation cannot send them: pip install 'sparsewell[tracing]'.",
        ) from None


def _new_provider(process: str) -> "TracerProvider":
    """Return the SDK's provider. It reads sampler, batches, endpoint, headers and certificates from OTEL_*."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about = {SERVICE_VERSION: version("sparsewell"), "sparsewell.process": process}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        about[SERVICE_NAME] = f"sparsewell-{process}"
    provider = TracerProvider(resource=Resource.create(about))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def stop() -> None:
    """Send the spans that wait, for a few seconds at most, and send no more."""
    global _provider, _tracer  # noqa: PLW0603
    if _provider is not None:
        _provider.shutdown()
    _provider = _tracer = None


@contextmanager
def traced(process: str) -> Iterator[None]:
    """Call `start` before the block and `stop` after it."""
    start(process)
    try:
        yield
    finally:
        stop()


class Span:
    """A span of OpenTelemetry that is the current span inside its block."""

    __slots__ = ("_made", "_token")
    _token: Token[context.Context]

    def __init__(self, made: trace.Span) -> None:
        self._made = made

    def __enter__(self) -> Self:
        if self._made is not trace.INVALID_SPAN:
            self._token = context.attach(trace.set_span_in_context(self._made))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._made is trace.INVALID_SPAN:
            return
        if error is not None:
            # (never its text: OpenSearch quotes documents in its errors)
            self.failed(error.code if isinstance(error, SparsewellError) else type(error).__name__)
        self._made.end()
        context.detach(self._token)

    def say(self, **attributes: Attribute) -> None:
        """Add attributes. A double underscore in a name stands for a dot."""
        if self._made.is_recording():
            for name, value in attributes.items():
                self._made.set_attribute(name.replace("__", "."), value)

    def named(self, name: str) -> None:
        """Give it a better name."""
        self._made.update_name(name)

    def failed(self, code: str) -> None:
        """Mark it as failed."""
        self._made.set_attribute("error.type", code)
        self._made.set_status(trace.StatusCode.ERROR)


# It changes nothing and the current span stays the current one, so one object serves all.
NO_SPAN: Final = Span(trace.INVALID_SPAN)


def span(
    name: str,
    kind: Kind = "internal",
    parent: Mapping[str, str] | None = None,
    links: Iterable[str] = (),
    **attributes: Attribute,
) -> Span:
    """Return a span for a block. A name of an attribute has `__` for a dot.

    `parent`: headers that may name the span that it belongs to; None: it belongs to the current span.
    `links`: traceparents of spans that it is related to.
    """
    if _tracer is None or (parent is None and _unsampled()):
        return NO_SPAN
    within = None if parent is None else _PROPAGATOR.extract(parent, _NO_PARENT)
    related = [trace.Link(found) for one in links if (found := _span_context(one)).is_valid]
    made = Span(_tracer.start_span(name, within, _KINDS[kind], links=related, record_exception=False))
    made.say(**attributes)
    return made


def _unsampled() -> bool:
    """Return whether the current span is one that is not sent: a span inside of it need not be made."""
    current = trace.get_current_span()
    return current.get_span_context().is_valid and not current.is_recording()


def _span_context(traceparent: str) -> trace.SpanContext:
    return trace.get_current_span(_PROPAGATOR.extract({PARENT: traceparent}, _NO_PARENT)).get_span_context()


def on() -> bool:
    """Return whether spans are sent."""
    return _tracer is not None


def past(name: str, began: float, ended: float) -> None:
    """Add a span of something that is over. `began`, `ended`: moments of `time.perf_counter`."""
    if _tracer is not None and not _unsampled():
        shift = time.time_ns() - time.perf_counter_ns()
        _tracer.start_span(name, start_time=shift + int(began * 1e9)).end(shift + int(ended * 1e9))


def headers() -> dict[str, str]:
    """Return the headers that carry the current span on (W3C Trace Context); none without one."""
    found: dict[str, str] = {}
    if _tracer is not None:
        _PROPAGATOR.inject(found)
    return found


def traceparent() -> str:
    """Return the current span in the form in which a link to it is kept; empty without one."""
    return headers().get(PARENT, "")


def trace_id() -> str | None:
    """Return the id of the current trace if it is sampled."""
    if _tracer is None:
        return None
    current = trace.get_current_span().get_span_context()
    return trace.format_trace_id(current.trace_id) if current.trace_flags.sampled else None
