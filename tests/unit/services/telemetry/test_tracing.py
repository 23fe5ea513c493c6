"""Tracing: conditions, refused settings, and content of spans."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.trace import INVALID_SPAN

from services.errors import BackendUnavailable, ConfigurationError
from services.telemetry import tracing

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("environment", "on"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", **ENDPOINT}, False),
        ({"OTEL_SDK_DISABLED": "true", **ENDPOINT}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", **ENDPOINT}, True),
    ],
)
def test_the_standard_variables_enable_tracing(environment: dict[str, str], on: bool) -> None:
    assert tracing.is_tracing_wanted(environment) is on


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", **ENDPOINT},
        {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json", **ENDPOINT},
        {"OTEL_TRACES_EXPORTER": "zipkin"},
    ],
)
def test_unsupported_protocols_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        tracing.is_tracing_wanted(environment)
    assert caught.value.code == "tracing_protocol"


def test_without_tracing_the_sdk_is_not_imported() -> None:
    program = """
import sys
from services.telemetry import tracing
tracing.start_tracing("api")
given = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
with tracing.open_span("x", "server", {"a": 1}, parent=given) as span:
    span.set_attributes({"b": 2}); span.update_name("y")
    tracing.mark_span_failed(span, "z"); tracing.record_past_span("p", 0.0, 1.0)
    assert not span.is_recording()
    assert (tracing.trace_headers(), tracing.current_traceparent()) == ({}, "")
    assert (tracing.current_trace_id(), tracing.is_tracing()) == (None, False)
assert not any(name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")) for name in sys.modules)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=60)


@pytest.mark.parametrize("command", [("api", "--port", "0"), ("worker",), ("sweeper",)])
def test_without_the_extra_tracing_is_refused(command: tuple[str, ...]) -> None:
    program = f"""
import sys
sys.modules["opentelemetry.sdk"] = None  # (its API comes with FastAPI)
sys.argv = ["sparsewell", *{command!r}]
from cli.main import main
main()
"""
    environment = os.environ | ENDPOINT | {"SPARSEWELL_ENCODER": "standin"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "[tracing_not_installed]" in done.stderr) == (1, True)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in (ENDPOINT | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OTEL_BSP_EXPORT_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")  # without spans, the end does not wait
    with tracing.tracing_session("test"):
        yield


@pytest.mark.usefixtures("traced")
def test_an_unsampled_trace_is_propagated_but_not_logged() -> None:
    given = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    with tracing.open_span("request", "server", parent=given):
        assert tracing.current_trace_id() is None
        assert tracing.current_traceparent().split("-")[1] == "0af7651916cd43dd8448eb211c80319c"
        assert tracing.current_traceparent().endswith("-00")
        with tracing.open_span("within") as inner:
            assert inner is INVALID_SPAN, "no span is made that is not sent"
    assert tracing.current_traceparent() == ""


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("error", [BackendUnavailable("redis_unavailable", "secret"), ValueError("secret")])
def test_an_error_passes_through_and_ends_the_span(error: Exception) -> None:
    with pytest.raises(type(error)), tracing.open_span("x", "server", parent={}):
        raise error
    assert tracing.current_traceparent() == ""
