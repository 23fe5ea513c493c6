"""OpenTelemetry's SDK with its exporter: the extra `tracing`. Imported only where spans are sent."""

import os

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def make_provider(process: str, version: str) -> TracerProvider:
    """Return a provider for this process. The SDK reads sampler, batches, endpoint and certificates from OTEL_*."""
    attributes = {SERVICE_VERSION: version, "sparsewell.process": process}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        attributes[SERVICE_NAME] = f"sparsewell-{process}"
    provider = TracerProvider(resource=Resource.create(attributes))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
