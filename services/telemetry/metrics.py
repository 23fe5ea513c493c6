"""Every metric that a process counts, by the stage that it measures. Names, units and labels: docs/operation.md.

Labels are bounded: routes by their template, codes by the error table, encoders by what exists. Nothing that a client
makes up is ever a label. What no process can count by itself (queues, what is pending) is in `indexer.state`.

Buckets follow what was measured: stages of a search take 20 microseconds to 50 ms, an encoder's run 30 ms to seconds.
"""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_STAGES: Final = (
    5e-05, 1e-04, 2.5e-04, 5e-04, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0,
)  # fmt: skip
REQUEST_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_WORK: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
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
INGESTED = Counter("sparsewell_ingested_documents", "Documents that came in, through either door.", ["outcome"])
NOT_ENQUEUED = Counter(
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
TASK_DURATION = Histogram("sparsewell_task_duration_seconds", "Time for one message.", ["task"], buckets=_WORK)
QUEUE_WAIT = Histogram(
    "sparsewell_queue_wait_seconds", "From sending a message to a worker's beginning with it.", ["task"], buckets=_WAITS
)
ENCODED = Counter("sparsewell_encode_documents", "Documents of encode messages, by what became of them.", ["outcome"])
ENCODE_DURATION = Histogram(
    "sparsewell_encode_run_duration_seconds", "One run of the encoder.", ["encoder"], buckets=_WORK
)
ENCODE_PIECES = Histogram(
    "sparsewell_encode_run_pieces",
    "Pieces of the windows of one run.",
    ["encoder"],
    buckets=(16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768),
)
DEAD_LETTERS = Counter("sparsewell_dead_letters", "Documents that were given up, by code.", ["code"])
CHAPTER_DURATION = Histogram(
    "sparsewell_chapters_duration_seconds", "The chapters of one talk.", ["engine"], buckets=_WORK
)
CHAPTER_FAILURES = Counter("sparsewell_chapters_failures", "Talks that got no chapters.", ["engine", "code"])
DENSE_FAILURES = Counter("sparsewell_dense_failures", "Documents that got no dense vectors.", ["code"])

# sweeper

SWEPT = Counter(
    "sparsewell_sweeper_documents", "What the sweeper's duties did, by duty and outcome.", ["duty", "outcome"]
)
SWEEPER_PASSES = Counter("sparsewell_sweeper_passes", "Passes by duty and outcome.", ["duty", "outcome"])
SWEEPER_LAST = Gauge(
    "sparsewell_sweeper_last_success_timestamp_seconds",
    "When a duty was last done without trouble.",
    ["duty"],
    multiprocess_mode="max",
)

# What alerts look for is there from the start: the first of its kind would not be an increase otherwise.
for _outcome in ("stored", "superseded", "refused", "not_stored", "repeated"):
    BULK_ITEMS.labels(_outcome)
for _outcome in ("encoded", "superseded", "dead", "failed", "mismatch", "postponed"):
    ENCODED.labels(_outcome)
PROBLEMS.labels("encoder_mismatch")


def count_ingested(accepted: int, rejected: int) -> None:
    """Counts the documents of one request or message."""
    INGESTED.labels("accepted").inc(accepted)
    INGESTED.labels("rejected").inc(rejected)
