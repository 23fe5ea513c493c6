"""The port on which a process shows its metrics: one of its own, so that what guards the API need not know of it."""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from wsgiref.simple_server import WSGIServer

from prometheus_client import REGISTRY, CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import InfoMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from services.addresses import http_address
from services.errors import ConfigurationError
from services.settings import Settings
from services.telemetry.build import build
from services.telemetry.sharing import SHARED

log = logging.getLogger(__name__)


class _Build(Collector):
    def __init__(self, settings: Settings, process: str) -> None:
        self._labels = {name: value or "" for name, value in build(settings).items()} | {"process": process}

    def collect(self) -> Iterable[InfoMetricFamily]:
        yield InfoMetricFamily("sparsewell_build", "The build that runs.", self._labels)


@contextmanager
def exposed(settings: Settings, process: str, *collectors: Collector) -> Iterator[int | None]:
    """The metrics port, open inside the block; its number, None where SPARSEWELL_METRICS_PORT is unset.

    `collectors`: what a process counts when it is asked. Raises ConfigurationError (`metrics_port_in_use`).
    """
    if settings.metrics_port is None:
        yield None
        return
    registry = _registry()
    for one in (_Build(settings, process), *collectors):
        registry.register(one)
    server = _listen(settings, registry)
    try:
        bound = server.server_address
        log.info("metrics on %s/metrics", http_address(settings.metrics_host, int(bound[1])))
        yield int(bound[1])
    finally:
        server.shutdown()
        server.server_close()


def _registry() -> CollectorRegistry:
    """Everything that this process counts; with children, everything that they do."""
    registry = CollectorRegistry()
    if directory := os.environ.get(SHARED):
        MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
        ProcessCollector(registry=registry)
    else:
        registry.register(REGISTRY)
    return registry


def _listen(settings: Settings, registry: CollectorRegistry) -> WSGIServer:
    try:
        server, _ = start_http_server(settings.metrics_port or 0, settings.metrics_host, registry)
    except OSError as error:
        raise ConfigurationError(
            "metrics_port_in_use",
            f"Cannot show metrics on {settings.metrics_host}:{settings.metrics_port} ({error.strerror or error}): "
            "choose another SPARSEWELL_METRICS_PORT for this process.",
        ) from None
    return server
