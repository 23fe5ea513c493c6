"""Spans for an OpenTelemetry collector. Without the standard OTEL_* variables there are none, and nothing is imported.

Off, a call here costs a tenth of a microsecond; on, a span costs about 30 (docs/decisions/0212). No span holds a query,
a document or a key; of an error it holds the code.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from services.errors import ConfigurationError, SparsewellError

if TYPE_CHECKING:
    from services.telemetry.sdk import Sdk

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attribute = str | int | float
PARENT: Final = "traceparent"
STATE: Final = "tracestate"

_sdk: "Sdk | None" = None


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the standard variables name a place for spans. Raises ConfigurationError (`tracing_protocol`)."""
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
    """Sends spans from here on, where that is wanted. A process that was forked starts for itself.

    Raises ConfigurationError: `tracing_not_installed`, `tracing_protocol`.
    """
    global _sdk  # noqa: PLW0603 (of the process, as the library's own provider is)
    if (found := check()) is not None:
        _sdk = found(process, version("sparsewell"))


def check() -> "type[Sdk] | None":
    """What would send spans; None where none are wanted. For a parent that sends none itself. Raises as `start`."""
    if not wanted():
        return None
    try:
        from services.telemetry.sdk import Sdk
    except ImportError:
        raise ConfigurationError(
            "tracing_not_installed",
            "OTEL_* asks for traces, and the base installation cannot send them: pip install -e '.[tracing]'.",
        ) from None
    return Sdk


def stop() -> None:
    """Sends what waits, a few seconds at most."""
    global _sdk  # noqa: PLW0603
    if _sdk is not None:
        _sdk.shutdown()
    _sdk = None


@contextmanager
def traced(process: str) -> Iterator[None]:
    """`start` before the block, `stop` after it."""
    start(process)
    try:
        yield
    finally:
        stop()


class Nothing:
    """A span that is none."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, **attributes: Attribute) -> None:
        """Adds attributes; a double underscore in a name stands for a dot."""

    def named(self, name: str) -> None:
        """Gives it a better name."""

    def failed(self, code: str) -> None:
        """Marks it as failed."""


_NOTHING: Final = Nothing()


class Span(Nothing):
    """A span that is the current one inside its block."""

    __slots__ = ("_sdk", "_span", "_token")

    def __init__(self, sdk: "Sdk", span: Any) -> None:
        self._sdk = sdk
        self._span = span

    def __enter__(self) -> Self:
        self._token = self._sdk.attach(self._span)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            # (never its text: OpenSearch quotes documents in its errors)
            self.failed(error.code if isinstance(error, SparsewellError) else type(error).__name__)
        self._span.end()
        self._sdk.detach(self._token)

    def say(self, **attributes: Attribute) -> None:
        if not self._span.is_recording():
            return
        for name, value in attributes.items():
            self._span.set_attribute(name.replace("__", "."), value)

    def named(self, name: str) -> None:
        self._span.update_name(name)

    def failed(self, code: str) -> None:
        self._sdk.fail(self._span, code)


def span(
    name: str,
    kind: Kind = "internal",
    parent: Mapping[str, str] | None = None,
    links: Iterable[str] = (),
    **attributes: Attribute,
) -> Nothing:
    """A span around a block. `parent`: headers that may name the span that it belongs to, None: the current one.

    `links`: traceparents of what it has to do with. A name of an attribute has `__` for a dot.
    """
    if _sdk is None or (parent is None and _sdk.unsampled()):
        return _NOTHING
    made = Span(_sdk, _sdk.begin(name, kind, parent, links))
    made.say(**attributes)
    return made


def on() -> bool:
    """Whether spans are sent."""
    return _sdk is not None


def past(name: str, began: float, ended: float) -> None:
    """A span of something that is over; moments of `time.perf_counter`."""
    if _sdk is not None and not _sdk.unsampled():
        shift = time.time_ns() - time.perf_counter_ns()
        _sdk.past(name, shift + int(began * 1e9), shift + int(ended * 1e9))


def headers() -> dict[str, str]:
    """The headers that carry the current span on (W3C Trace Context); none without one."""
    return {} if _sdk is None else _sdk.carrier()


def traceparent() -> str:
    """The current span, as a link to it can be kept; empty without one."""
    return headers().get(PARENT, "")


def trace_id() -> str | None:
    """The current trace, when it is one that is sent."""
    return None if _sdk is None else _sdk.trace_id()
