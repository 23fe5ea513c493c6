"""Destinations of a load: the REST API, and the bulk queue.

`send_all` sends the sources batch by batch and saves a checkpoint after each batch. `ApiDestination` sends NDJSON to
POST /documents with an idempotency key; `QueueDestination` publishes `sparsewell.ingest.v1` messages to Redis.
`wait_for_jobs` follows the jobs until every document is encoded, dead or superseded.
"""

import hashlib
import time
import uuid
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, Self
from urllib.parse import quote

import httpx
import orjson

from cli.api_client import connect_api, index_path, quote_path_segment, read_bulk_answer, request_json
from cli.loading.checkpoint import LoadCheckpoint
from cli.loading.export import iter_pages
from cli.loading.source import DocumentMaker, LoadSource, Refusal, SourceBatch, SourcePosition, read_batches
from cli.terminal import LoadDisplay
from services.errors import BackendUnavailable, Conflict, InvalidInput, NotFound
from services.index_spec import IndexSpec
from services.retry import retry

POLL_SECONDS = 0.5
# Time without progress before a warning that a worker may be missing.
STALL_WARNING_SECONDS = 30.0
MAX_BATCH_BYTES = 4 * 1024**2
EXPORT_PAGE_DOCUMENTS = 1000
# Backpressure: Redis holds the queue in memory, so a load waits while the queue is longer than this.
MAX_WAITING_MESSAGES = 50
MAX_QUEUE_BYTES = 32 * 1024**2
JobAnswer = dict[str, Any]
NumberedDocument = tuple[int, dict[str, Any]]


@dataclass
class SentBatch:
    """Outcome of a batch: its jobs, the number of accepted documents, and the refused lines."""

    jobs: list[str] = field(default_factory=list)
    accepted: int = 0
    refusals: list[Refusal] = field(default_factory=list)


class LoadDestination(Protocol):
    """A receiver of batches. Line numbers count over all sources."""

    def send(self, batch: SourceBatch) -> SentBatch:
        """Send a batch and return its outcome."""


def send_all(
    sources: Sequence[LoadSource],
    record: LoadCheckpoint,
    destination: LoadDestination,
    make: DocumentMaker,
    size: int,
    show: LoadDisplay,
    is_known: Callable[[bytes], bool] = lambda _: False,
) -> None:
    """Send the sources from the checkpoint's position to the end, in batches of `size` documents.

    Documents that the index has already (`is_known`) are counted and not sent.
    """
    total = sum(source.size for source in sources)
    show.begin("loading", total, first=record.sent)
    before = sum(source.size for source in sources[: record.place.part])
    for part, source in enumerate(sources[record.place.part :], record.place.part):
        identity = source.identity()
        for batch in read_batches(source, record.place, make, size, MAX_BATCH_BYTES):
            fresh = [(number, line) for number, line in batch.lines if not is_known(line)]
            record.unchanged += len(batch.lines) - len(fresh)
            _send_batch(replace(batch, lines=fresh), record, destination, sources)
            show.step(before + batch.read, total, record.sent)
        if not _is_unchanged(source, identity):
            show.report(f"{source.name} changed while it was read: load it again.")
        record.starts.append(record.starts[part] + record.place.line)
        record.place = SourcePosition(part + 1)
        record.save()
        before += source.size


def _send_batch(
    batch: SourceBatch, record: LoadCheckpoint, destination: LoadDestination, sources: Sequence[LoadSource]
) -> None:
    """Send a batch with line numbers of the whole load, and save its outcome in the checkpoint."""
    part = batch.end.part
    refusals = [replace(refusal, file=refusal.file or _source_file_name(sources, part)) for refusal in batch.refusals]
    if batch.lines:
        start = record.starts[part]
        sent = destination.send(replace(batch, lines=[(start + number, line) for number, line in batch.lines]))
        record.jobs += [job for job in sent.jobs if job not in record.jobs]
        record.accepted += sent.accepted
        for refusal in sent.refusals:
            file = batch.files.get((refusal.line or 0) - start)
            located = replace(refusal, line=None, file=file) if file else locate_refusal(refusal, record, sources)
            refusals.append(located)
    record.sent += len(batch.lines)
    record.refuse(refusals)
    record.place = batch.end
    record.save()


def locate_refusal(refusal: Refusal, record: LoadCheckpoint, sources: Sequence[LoadSource]) -> Refusal:
    """Replace the line number of the whole load by the file and its line."""
    line = refusal.line or 1
    part = max(0, bisect_right(record.starts, line - 1) - 1)
    return replace(refusal, line=line - record.starts[part], file=_source_file_name(sources, part))


def _source_file_name(sources: Sequence[LoadSource], part: int) -> str | None:
    return sources[part].name if len(sources) > 1 else None


def _is_unchanged(source: LoadSource, identity: str) -> bool:
    try:
        return source.identity() == identity
    except OSError:
        return False


class ApiDestination:
    """A client of one API. Retries for up to `retry_seconds` while the API is unavailable or overloaded."""

    def __init__(self, base: str, index: str, retry_seconds: float, report: Callable[[str], None]) -> None:
        """Connect to the API. Raises ConfigurationError (`bad_address`), InvalidInput (`not_utf8`)."""
        self.base = base.rstrip("/")
        self._path = index_path(index)
        self._retry_seconds = retry_seconds
        self._report = report
        self._load = uuid.uuid4().hex
        self._client = connect_api(self.base, httpx.Timeout(60, connect=5))

    def create(self, declaration: Mapping[str, Any]) -> bool:
        """Create the index. Return False if the index exists; it does not change."""
        try:
            self._request("PUT", self._path, json=dict(declaration))
        except Conflict as error:
            if error.code != "index_exists":
                raise
            return False
        return True

    def export(self) -> Iterator[tuple[list[bytes], dict[str, Any]]]:
        """Yield the documents and the trailer of each page of an export of the index."""
        first = {"size": EXPORT_PAGE_DOCUMENTS}
        return iter_pages(self.base, f"{self._path}/export", first, self._retry_seconds, self._report)

    def delete(self, document_id: str, version: int) -> bool:
        """Delete a document up to a version. Return False if the index has a newer version."""
        path = f"{self._path}/documents/{quote_path_segment(document_id, 'The id')}"
        try:
            self._request("DELETE", path, params={"version": version})
        except Conflict:
            return False
        return True

    def created_at(self) -> str:
        """Return the creation time of the index. Raises NotFound (`index_not_found`)."""
        return str(self._request("GET", self._path)["created_at"])

    def spec(self) -> IndexSpec:
        """Return the fields and the talk that the index declares."""
        answer = self._request("GET", self._path)
        return IndexSpec(fields=answer["fields"], talk=answer["talk"])

    def created_at_if_known(self) -> str:
        """Return the creation time, or an empty text if the API does not answer at once (a load by the queue)."""
        try:
            return str(self._once("GET", self._path)["created_at"])
        except (BackendUnavailable, NotFound):
            return ""

    def of(self, load: str) -> Self:
        """Set the id of the load, which makes the idempotency keys of its batches."""
        self._load = load
        return self

    def send(self, batch: SourceBatch) -> SentBatch:
        """Send a batch until each line is accepted or refused. Repeated requests share one job by their key."""
        body = b"\n".join(text for _, text in batch.lines)
        key = batch_idempotency_key(self._load, batch.lines[0][0], body)

        def once() -> SentBatch:
            answer = self._post_once(body, key)
            not_stored = [refusal for refusal in answer["rejected"] if refusal["code"] == "not_stored"]
            if not_stored:  # a fault of the service, not of the documents: try again
                raise BackendUnavailable("not_stored", f"{len(not_stored)} documents could not be stored in time.")
            refusals = [
                Refusal(batch.lines[refused["position"] - 1][0], refused["id"], refused["code"], refused["reason"])
                for refused in answer["rejected"]
            ]
            return SentBatch([answer["job"]["id"]] if "job" in answer else [], len(answer["accepted"]), refusals)

        return retry(once, self._retry_seconds, self._report)

    def job(self, job_id: str) -> dict[str, Any] | None:
        """Return the counts of a job, or None if the job does not exist (yet)."""
        try:
            return self._request("GET", f"/v1/jobs/{quote(job_id, safe='')}")
        except NotFound:
            return None

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _post_once(self, body: bytes, key: str) -> dict[str, Any]:
        try:
            return self._post(body, {"idempotency-key": key})
        except InvalidInput as error:
            if error.code != "body_too_large":
                raise
            # The API reads a request with a key as a whole. Without a key it streams, and refuses only the long line.
            return self._post(body, {})

    def _post(self, body: bytes, key: dict[str, str]) -> dict[str, Any]:
        headers = {"content-type": "application/x-ndjson"} | key
        return read_bulk_answer(lambda: self._once("POST", f"{self._path}/documents", content=body, headers=headers))

    def _request(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        return retry(lambda: self._once(method, path, **arguments), self._retry_seconds, self._report)

    def _once(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        return request_json(self._client, self.base, method, path, **arguments)


def batch_idempotency_key(load: str, line: int, body: bytes) -> str:
    """Return the idempotency key of a batch: a hash of the load, the first line number and the content."""
    return hashlib.sha256(f"{load} {line} ".encode() + body).hexdigest()


class QueueDestination:
    """A producer of messages of the bulk queue. All messages of a load share one job.

    The queue's clients take a third of a second to import, and a load through the API needs none of them.
    """

    def __init__(
        self, redis_url: str, index: str, job: str | None, retry_seconds: float, report: Callable[[str], None]
    ) -> None:
        from services.queue.messages import Publisher

        self.job = job or uuid.uuid4().hex
        self._index = index
        self._publisher = Publisher(redis_url)
        self._retry_seconds = retry_seconds
        self._report = report

    def send(self, batch: SourceBatch) -> SentBatch:
        """Publish a batch. Lines that are not JSON objects are refused here; workers validate the documents."""
        from services.queue.messages import IngestMessage

        sent = SentBatch([self.job])
        documents, sent.refusals = parse_batch(batch)
        for group in group_contiguous(documents):
            message = IngestMessage(
                index=self._index,
                job=self.job,
                sent_at=time.time_ns() // 1000,
                # The positions of a job are line numbers of the load.
                offset=group[0][0] - 1,
                documents=tuple(document for _, document in group),
            )
            retry(self._wait_for_room, self._retry_seconds, self._report)
            retry(partial(self._publisher.ingest, message), self._retry_seconds, self._report)
            sent.accepted += len(group)
        return sent

    def close(self) -> None:
        """Close the connection."""
        self._publisher.close()

    def _wait_for_room(self) -> None:
        from services.queue.lanes import INGEST_QUEUE

        since = time.monotonic()
        while is_full(self._publisher.depth(INGEST_QUEUE), self._publisher.queued_bytes(INGEST_QUEUE)):
            if time.monotonic() - since > STALL_WARNING_SECONDS:
                since = time.monotonic()
                self._report(f"The queue has been full for {STALL_WARNING_SECONDS:.0f} s: is a worker running?")
            time.sleep(0.1)


def is_full(messages: int, size: int | None) -> bool:
    """Tell whether the queue is full. `size` is in bytes, None if Redis does not tell it."""
    return messages > MAX_WAITING_MESSAGES or (messages > 0 and size is not None and size > MAX_QUEUE_BYTES)


def parse_batch(batch: SourceBatch) -> tuple[list[NumberedDocument], list[Refusal]]:
    """Return the documents of a batch with their line numbers, and the refused lines."""
    documents: list[NumberedDocument] = []
    refusals = []
    for number, text in batch.lines:
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            refusals.append(Refusal(number, None, "invalid_json", f"Not JSON in UTF-8: {error}"))
            continue
        if isinstance(value, dict):
            documents.append((number, value))
        else:
            refusals.append(Refusal(number, None, "not_an_object", "A document is a JSON object with `id` and `text`."))
    return documents, refusals


def group_contiguous(documents: list[NumberedDocument]) -> Iterator[list[NumberedDocument]]:
    """Yield runs of documents on neighbouring lines, because a message numbers its documents from an offset."""
    group: list[NumberedDocument] = []
    for document in documents:
        if group and document[0] != group[-1][0] + 1:
            yield group
            group = []
        group.append(document)
    if group:
        yield group


def wait_for_jobs(
    jobs: Sequence[str],
    expected: int,
    complete: Callable[[JobAnswer], bool],
    get_job: Callable[[str], JobAnswer | None],
    show: LoadDisplay,
) -> tuple[Counter[str], list[JobAnswer]]:
    """Poll the jobs one after another, in the order of the queue, until each is finished and `complete`.

    `complete` tells whether a job knows all its documents. Returns documents by state, and the finished jobs.
    """
    totals: Counter[str] = Counter()
    finished = []
    show.begin("encoding", expected, unit="documents")
    last, since = -1, time.monotonic()
    for job_id in jobs:
        while True:
            job = get_job(job_id)
            states = Counter(job["states"] if job else {})
            encoded = totals["encoded"] + states["encoded"]
            show.step(encoded + totals["dead"] + totals["superseded"], expected, encoded)
            if job and job["finished"] and complete(job):
                totals += states
                finished.append(job)
                break
            if encoded != last:
                last, since = encoded, time.monotonic()
            elif time.monotonic() - since > STALL_WARNING_SECONDS:
                since = time.monotonic()
                show.report(f"No progress for {STALL_WARNING_SECONDS:.0f} s: is a worker running (sparsewell worker)?")
            time.sleep(POLL_SECONDS)
    return totals, finished
