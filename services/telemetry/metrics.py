"""Every metric that a process counts, by the stage that it measures. Names, units and labels: docs/operation.md.

Labels are bounded: routes by their template, codes by the error table, encoders by what exists. Nothing that a client
makes up is ever a label. What no process can count by itself (queues, what is pending) is in `indexer.state`.

Buckets follow what was measured: stages of a search take 20 microseconds to 50 ms, an encoder's run 30 ms to seconds.

The port on which a process shows its metrics: one of its own, so that what guards the API need not know of it.
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
from services.telemetry.multiprocess import MULTIPROCESS_VARIABLE

log = logging.getLogger(__name__)


class _Build(Collector):
    def __init__(self, settings: Settings, process: str) -> None:
        self._labels = {name: value or "" for name, value in build_information(settings).items()} | {"process": process}

    def collect(self) -> Iterable[InfoMetricFamily]:
        yield InfoMetricFamily("sparsewell_build", "The build that runs.", self._labels)


@contextmanager
def expose_metrics(settings: Settings, process: str, *collectors: Collector) -> Iterator[int | None]:
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
        log.info("metrics on %s/metrics", format_http_address(settings.metrics_host, int(bound[1])))
        yield int(bound[1])
    finally:
        server.shutdown()
        server.server_close()


def _registry() -> CollectorRegistry:
    """Everything that this process counts; with children, everything that they do."""
    registry = CollectorRegistry()
    if directory := os.environ.get(MULTIPROCESS_VARIABLE):
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


_STAGES: Final = (
    5e-05, 1e-04, 2.5e-04, 5e-04, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0,
)  # fmt: skip
REQUEST_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_WORK_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_WAITS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)

# API and model process

HTTP_REQUESTS = Counter(
    "sparsewell_http_requests", "Requests that were answered, by route template.", ["method", "route", "status"]
)
HTTP_DURATION = Histogram(
    "sparsewell_http_request_duration_seconds",
    "From the head of a request to the end of its answer.",
    ["method", "route"],
    buckets=REQUEST_BOUNDS,
)
HTTP_IN_PROGRESS = Gauge(
    "sparsewell_http_requests_in_progress", "Requests that are being answered.", multiprocess_mode="livesum"
)
PROBLEMS = Counter(
    "sparsewell_problems", "Errors that were answered, by their stable code; those of a batch one by one.", ["code"]
)
SEARCHES = Counter("sparsewell_searches", "Searches that were answered, those of a batch one by one.", ["mode"])
SEARCH_STAGE = Histogram(
    "sparsewell_search_stage_duration_seconds",
    "Time of a search by stage; `engine` is what OpenSearch says of itself, a part of `opensearch`.",
    ["stage"],
    buckets=_STAGES,
)
SEARCH_INCOMPLETE = Counter(
    "sparsewell_search_incomplete",
    "Lists for which OpenSearch did not search every shard: one failed, was away or had no more time.",
)
SEARCH_FALLBACKS = Counter(
    "sparsewell_search_fallbacks",
    "Answers that came without something that was asked for, and say so.",
    ["kind", "reason"],
)
INGESTED_DOCUMENTS = Counter(
    "sparsewell_ingested_documents", "Documents that came in, through either door.", ["outcome"]
)
FAILED_ENQUEUES = Counter(
    "sparsewell_not_enqueued", "Times that Redis took no message, so that documents wait for the sweeper."
)

# every process: OpenSearch

OPENSEARCH_DURATION = Histogram(
    "sparsewell_opensearch_request_duration_seconds",
    "Requests to OpenSearch by API, repetitions on other nodes included.",
    ["operation"],
    buckets=REQUEST_BOUNDS,
)
OPENSEARCH_ERRORS = Counter("sparsewell_opensearch_errors", "Requests that failed, by code.", ["operation", "code"])
BULK_ITEMS = Counter(
    "sparsewell_bulk_items",
    "Documents written in bulk, by outcome; `superseded` met a newer version, `repeated` was sent again.",
    ["outcome"],
)

# workers

TASKS = Counter("sparsewell_tasks", "Messages that a worker was done with.", ["task", "outcome"])
TASK_DURATION = Histogram("sparsewell_task_duration_seconds", "Time for one message.", ["task"], buckets=_WORK_BUCKETS)
QUEUE_WAIT = Histogram(
    "sparsewell_queue_wait_seconds", "From sending a message to a worker's beginning with it.", ["task"], buckets=_WAITS
)
ENCODED_DOCUMENTS = Counter(
    "sparsewell_encode_documents", "Documents of encode messages, by what became of them.", ["outcome"]
)
ENCODE_DURATION = Histogram(
    "sparsewell_encode_run_duration_seconds", "One run of the encoder.", ["encoder"], buckets=_WORK_BUCKETS
)
ENCODE_PIECES = Histogram(
    "sparsewell_encode_run_pieces",
    "Pieces of the windows of one run.",
    ["encoder"],
    buckets=(16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768),
)
DEAD_LETTERS = Counter("sparsewell_dead_letters", "Documents that were given up, by code.", ["code"])
CHAPTER_DURATION = Histogram(
    "sparsewell_chapters_duration_seconds", "The chapters of one talk.", ["engine"], buckets=_WORK_BUCKETS
)
CHAPTER_FAILURES = Counter("sparsewell_chapters_failures", "Talks that got no chapters.", ["engine", "code"])
DENSE_FAILURES = Counter("sparsewell_dense_failures", "Documents that got no dense vectors.", ["code"])

# sweeper

SWEPT_DOCUMENTS = Counter(
    "sparsewell_sweeper_documents", "What the sweeper's duties did, by duty and outcome.", ["duty", "outcome"]
)
SWEEPER_PASSES = Counter("sparsewell_sweeper_passes", "Passes by duty and outcome.", ["duty", "outcome"])
SWEEPER_LAST_SUCCESS = Gauge(
    "sparsewell_sweeper_last_success_timestamp_seconds",
    "When a duty was last done without trouble.",
    ["duty"],
    multiprocess_mode="max",
)

# What alerts look for is there from the start: the first of its kind would not be an increase otherwise.
for _outcome in ("stored", "superseded", "refused", "not_stored", "repeated"):
    BULK_ITEMS.labels(_outcome)
for _outcome in ("encoded", "superseded", "dead", "failed", "mismatch", "postponed"):
    ENCODED_DOCUMENTS.labels(_outcome)
PROBLEMS.labels("encoder_mismatch")


def count_ingested(accepted: int, rejected: int) -> None:
    """Counts the documents of one request or message."""
    INGESTED_DOCUMENTS.labels("accepted").inc(accepted)
    INGESTED_DOCUMENTS.labels("rejected").inc(rejected)
