"""Metrics of all processes, and the port that exposes them.

docs/observability.md lists names, units and labels. Labels are bounded: route templates, error codes and existing
encoders, never a value that a client chooses. Queue and backlog metrics, which no single process can count, are in
`indexer.queue_metrics`. Bucket bounds follow measurements: stages of a search take 20 microseconds to 50 ms, a run of
an encoder 30 ms to seconds. Each process has a separate metrics port, so that the API's access control is independent
of it.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import InfoMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from services.errors import ConfigurationError
from services.settings import Settings, format_http_address
from services.telemetry.logs import build_information

log = logging.getLogger(__name__)

_STAGES: Final = (
    5e-05, 1e-04, 2.5e-04, 5e-04, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0,
)  # fmt: skip
REQUEST_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_WORK_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_WAITS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)

# API and model process:

HTTP_REQUESTS = Counter(
    "sparsewell_http_requests", "Answered requests by route template.", ["method", "route", "status"]
)
HTTP_DURATION = Histogram(
    "sparsewell_http_request_duration_seconds",
    "Time from the head of a request to the end of its answer.",
    ["method", "route"],
    buckets=REQUEST_BOUNDS,
)
HTTP_IN_PROGRESS = Gauge("sparsewell_http_requests_in_progress", "Requests in progress.", multiprocess_mode="livesum")
PROBLEMS = Counter(
    "sparsewell_problems", "Errors reported to clients by stable code; those of a batch count one by one.", ["code"]
)
SEARCHES = Counter("sparsewell_searches", "Answered searches; those of a batch count one by one.", ["mode"])
SEARCH_STAGE = Histogram(
    "sparsewell_search_stage_duration_seconds",
    "Time of a search by stage; `engine` is the time that OpenSearch reports, a part of `opensearch`.",
    ["stage"],
    buckets=_STAGES,
)
SEARCH_INCOMPLETE = Counter(
    "sparsewell_search_incomplete",
    "Lists for which OpenSearch did not search every shard: one failed, was unavailable or timed out.",
)
SEARCH_OVERLOADED = Counter(
    "sparsewell_search_overloaded", "Requests of searches that an overloaded OpenSearch refused; they are answered 429."
)
SEARCH_FALLBACKS = Counter(
    "sparsewell_search_fallbacks",
    "Answers without a requested feature, which they report.",
    ["kind", "reason"],
)
INGESTED_DOCUMENTS = Counter("sparsewell_ingested_documents", "Documents received over HTTP or the queue.", ["outcome"])
FAILED_ENQUEUES = Counter(
    "sparsewell_not_enqueued", "Messages that Redis did not accept; the documents wait for the sweeper."
)
READY = Gauge(
    "sparsewell_ready", "1: the last probe found the process ready. Absent before the first probe.", ["process"]
)
CLOCK_LEAD = Gauge(
    "sparsewell_clock_lead_seconds", "How far the clock of this API's host is ahead of Redis's; negative: behind."
)
VERSIONS_AHEAD = Counter(
    "sparsewell_versions_ahead", "Writes without a version whose stored document is more than 60 s ahead of the clock."
)
UNSERVED_INDEXES = Gauge(
    "sparsewell_unserved_indexes", "Indexes whose query table this API process lacks, by encoder.", ["encoder"]
)

# Requests to OpenSearch, in every process:

OPENSEARCH_DURATION = Histogram(
    "sparsewell_opensearch_request_duration_seconds",
    "Requests to OpenSearch by API, including retries on other nodes.",
    ["operation"],
    buckets=REQUEST_BOUNDS,
)
OPENSEARCH_ERRORS = Counter(
    "sparsewell_opensearch_errors", "Failed requests to OpenSearch by code.", ["operation", "code"]
)
BULK_ITEMS = Counter(
    "sparsewell_bulk_items",
    "Documents of bulk requests by outcome; `superseded` met a newer version, `repeated` was sent again.",
    ["outcome"],
)

# Workers:

TASKS = Counter("sparsewell_tasks", "Messages that a worker finished.", ["task", "outcome"])
TASK_DURATION = Histogram("sparsewell_task_duration_seconds", "Time for one message.", ["task"], buckets=_WORK_BUCKETS)
QUEUE_WAIT = Histogram(
    "sparsewell_queue_wait_seconds", "Time from sending a message to its start in a worker.", ["task"], buckets=_WAITS
)
ENCODED_DOCUMENTS = Counter("sparsewell_encode_documents", "Documents of encode messages by outcome.", ["outcome"])
ENCODE_DURATION = Histogram(
    "sparsewell_encode_run_duration_seconds", "Time of one run of the encoder.", ["encoder"], buckets=_WORK_BUCKETS
)
ENCODE_PIECES = Histogram(
    "sparsewell_encode_run_pieces",
    "Pieces in the windows of one run.",
    ["encoder"],
    buckets=(16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768),
)
DEAD_LETTERS = Counter("sparsewell_dead_letters", "Documents given up, by code.", ["code"])
CHAPTER_DURATION = Histogram(
    "sparsewell_chapters_duration_seconds", "Time to make the chapters of one talk.", ["engine"], buckets=_WORK_BUCKETS
)
CHAPTER_FAILURES = Counter(
    "sparsewell_chapters_failures", "Talks that were stored without chapters.", ["engine", "code"]
)
DENSE_FAILURES = Counter("sparsewell_dense_failures", "Documents stored without dense vectors.", ["code"])

# Sweeper:

SWEPT_DOCUMENTS = Counter(
    "sparsewell_sweeper_documents", "Documents handled by the sweeper, by task and outcome.", ["task", "outcome"]
)
SWEEPER_PASSES = Counter("sparsewell_sweeper_passes", "Passes of the sweeper by task and outcome.", ["task", "outcome"])
SWEEPER_LAST_SUCCESS = Gauge(
    "sparsewell_sweeper_last_success_timestamp_seconds",
    "Time of the last successful pass of a task.",
    ["task"],
    multiprocess_mode="max",
)

# Series that alerts watch exist from the start. Otherwise the first event would not appear as an increase.
for _outcome in ("stored", "superseded", "refused", "not_stored", "repeated"):
    BULK_ITEMS.labels(_outcome)
for _outcome in ("encoded", "superseded", "dead", "failed", "mismatch", "postponed"):
    ENCODED_DOCUMENTS.labels(_outcome)
PROBLEMS.labels("encoder_mismatch")


@contextmanager
def expose_metrics(settings: Settings, process: str, *collectors: Collector) -> Iterator[int | None]:
    """Serve metrics within the block and yield the port, or None if SPARSEWELL_METRICS_PORT is unset.

    `collectors` compute their metrics at each scrape. Raises ConfigurationError (`metrics_port_in_use`).
    """
    if settings.metrics_port is None:
        yield None
        return
    registry = make_registry()
    for collector in (_Build(settings, process), *collectors):
        registry.register(collector)
    server = _listen(settings, registry)
    try:
        port = int(server.server_address[1])
        log.info("metrics on %s/metrics", format_http_address(settings.metrics_host, port))
        yield port
    finally:
        server.shutdown()
        server.server_close()


class _Build(Collector):
    def __init__(self, settings: Settings, process: str) -> None:
        self._labels = {name: value or "" for name, value in build_information(settings).items()} | {"process": process}

    def collect(self) -> Iterable[InfoMetricFamily]:
        yield InfoMetricFamily("sparsewell_build", "The build that runs.", self._labels)


def make_registry() -> CollectorRegistry:
    """Return a registry of all metrics of this process, and of its children if they share values."""
    registry = CollectorRegistry()
    # `indexer.worker.share_metrics` sets the variable of prometheus_client.
    if directory := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]  # the library has no type here
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
            f"Cannot serve metrics on {settings.metrics_host}:{settings.metrics_port} ({error.strerror or error}): "
            "choose another SPARSEWELL_METRICS_PORT for this process.",
        ) from None
    return server
