"""The REST door: batches as NDJSON to POST documents, and what is asked about indexes and jobs.

Follows the jobs of a load until every document is encoded, dead or superseded.

The queue's door: batches as `sparsewell.ingest.v1` messages, without HTTP.

Sends what the sources hold through a door, batch by batch, and keeps the record of it.
"""

import hashlib
import time
import uuid
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self
from urllib.parse import quote

import httpx
import orjson

from cli.api_client import connect_api, index_path, read_bulk_answer, read_json_response, unreachable
from cli.loading.checkpoint import LoadCheckpoint
from cli.loading.source import DocumentMaker, LoadSource, Refusal, SourceBatch, SourcePosition, read_batches
from cli.progress import LoadDisplay
from services.errors import BackendUnavailable, Conflict, InvalidInput, NotFound
from services.index_spec import FieldType
from services.queue.messages import INGEST_QUEUE, IngestMessage, Publisher
from services.retry import retry

POLL_SECONDS = 0.5
# After this long without progress the user is told what may be missing.
STALL_WARNING_SECONDS = 30.0

JobAnswer = dict[str, Any]


def wait_for_jobs(
    jobs: Sequence[str],
    expected: int,
    complete: Callable[[JobAnswer], bool],
    ask: Callable[[str], JobAnswer | None],
    show: LoadDisplay,
) -> tuple[Counter[str], list[JobAnswer]]:
    """Polls one job after the other, in the order in which they were made, which is the order of the queue.

    `complete` says whether a job knows of all its documents; returns counts by state, and the finished jobs.
    """
    totals: Counter[str] = Counter()
    finished = []
    show.begin("encoding", expected, unit="documents")
    last, since = -1, time.monotonic()
    for job_id in jobs:
        while True:
            job = ask(job_id)
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
                show.say(f"No progress for {STALL_WARNING_SECONDS:.0f} s: is a worker running (sparsewell worker)?")
            time.sleep(POLL_SECONDS)
    return totals, finished


@dataclass
class SentBatch:
    """What became of a batch: the jobs that carry it, how many were accepted, which lines were not."""

    jobs: list[str] = field(default_factory=list)
    accepted: int = 0
    refusals: list[Refusal] = field(default_factory=list)


class ApiDestination:
    """A client of one API. Calls are repeated for up to `patience` seconds while the API is away or overloaded."""

    def __init__(self, base: str, index: str, patience: float, say: Callable[[str], None]) -> None:
        """Raises ConfigurationError (`bad_address`), InvalidInput (`not_utf8`)."""
        self.base = base.rstrip("/")
        self._path = index_path(index)
        self._patience = patience
        self._say = say
        self._load = uuid.uuid4().hex
        self._client = connect_api(self.base, httpx.Timeout(60, connect=5))

    def create(self, fields: dict[str, str], *, talk: bool = False) -> bool:
        """Creates the index; False when there was one of that name, which is used as it is."""
        try:
            self._ask("PUT", self._path, json={"fields": fields} | ({"talk": {}} if talk else {}))
        except Conflict:
            return False
        return True

    def created_at(self) -> str:
        """When the index was created. Raises NotFound (`index_not_found`) before a file is read for nothing."""
        return str(self._ask("GET", self._path)["created_at"])

    def fields(self) -> dict[str, FieldType]:
        """The metadata fields that the index declares."""
        found: dict[str, FieldType] = self._ask("GET", self._path)["fields"]
        return found

    def takes_talk(self) -> bool:
        """Whether the index declares talk."""
        return self._ask("GET", self._path)["talk"] is not None

    def created_at_if_known(self) -> str:
        """As `created_at`, for a load that can do without the API: asked once, empty for no answer."""
        try:
            return str(self._once("GET", self._path)["created_at"])
        except (BackendUnavailable, NotFound):
            return ""

    def of(self, load: str) -> Self:
        """The door of this load, whose batches keep their keys when it is interrupted and goes on."""
        self._load = load
        return self

    def send(self, batch: SourceBatch) -> SentBatch:
        """Sends a batch until each line is accepted or refused for good; however often, it is one job of the API."""
        body = b"\n".join(text for _, text in batch.lines)
        key = batch_idempotency_key(self._load, batch.lines[0][0], body)

        def once() -> SentBatch:
            answer = self._post_once(body, key)
            left_out = [refusal for refusal in answer["rejected"] if refusal["code"] == "not_stored"]
            if left_out:  # not the documents' fault
                raise BackendUnavailable("not_stored", f"{len(left_out)} documents could not be stored in time.")
            refusals = [
                Refusal(batch.lines[one["position"] - 1][0], one["id"], one["code"], one["reason"])
                for one in answer["rejected"]
            ]
            return SentBatch([answer["job"]["id"]] if "job" in answer else [], len(answer["accepted"]), refusals)

        return retry(once, self._patience, self._say)

    def job(self, job_id: str) -> dict[str, Any] | None:
        """A job's counts; None when there is no such job (yet)."""
        try:
            return self._ask("GET", f"/v1/jobs/{quote(job_id, safe='')}")
        except NotFound:
            return None

    def close(self) -> None:
        self._client.close()

    def _post_once(self, body: bytes, key: str) -> dict[str, Any]:
        try:
            return self._post(body, {"idempotency-key": key})
        except InvalidInput as error:
            if error.code != "body_too_large":
                raise
            # What has a key is read whole. As a stream the line that is too long is refused alone.
            return self._post(body, {})

    def _post(self, body: bytes, key: dict[str, str]) -> dict[str, Any]:
        headers = {"content-type": "application/x-ndjson"} | key
        return read_bulk_answer(lambda: self._once("POST", f"{self._path}/documents", content=body, headers=headers))

    def _ask(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        return retry(lambda: self._once(method, path, **arguments), self._patience, self._say)

    def _once(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        try:
            response = self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise unreachable(self.base, error) from None
        return read_json_response(response)


def batch_idempotency_key(load: str, line: int, body: bytes) -> str:
    """The idempotency key of a batch: of which load it is, where it begins and what it holds."""
    return hashlib.sha256(f"{load} {line} ".encode() + body).hexdigest()


# Redis holds the whole queue in memory, so a long file waits until the workers have caught up.
MAX_WAITING_MESSAGES = 50
MAX_QUEUE_BYTES = 32 * 1024**2
# After this long without room the user is told what may be missing.
NumberedDocument = tuple[int, dict[str, Any]]


class QueueDestination:
    """A producer. All messages of a load share one job."""

    def __init__(
        self, redis_url: str, index: str, job: str | None, patience: float, say: Callable[[str], None]
    ) -> None:
        self.job = job or uuid.uuid4().hex
        self._index = index
        self._publisher = Publisher(redis_url)
        self._patience = patience
        self._say = say

    def send(self, batch: SourceBatch) -> SentBatch:
        """Publishes a batch. Lines that are no JSON objects are refused here; the rest is judged by the workers."""
        sent = SentBatch([self.job])
        documents, sent.refusals = parse_batch(batch)
        for group in group_contiguous(documents):
            message = IngestMessage(
                index=self._index,
                job=self.job,
                sent_at=time.time_ns() // 1000,
                # places in the job are line numbers of the file
                offset=group[0][0] - 1,
                documents=tuple(document for _, document in group),
            )
            retry(self._wait_for_room, self._patience, self._say)
            retry(lambda message=message: self._publisher.ingest(message), self._patience, self._say)  # type: ignore[misc]
            sent.accepted += len(group)
        return sent

    def close(self) -> None:
        self._publisher.close()

    def _wait_for_room(self) -> None:
        since = time.monotonic()
        while is_full(self._publisher.depth(INGEST_QUEUE), self._publisher.queued_bytes(INGEST_QUEUE)):
            if time.monotonic() - since > STALL_WARNING_SECONDS:
                since = time.monotonic()
                self._say(f"No room in the queue for {STALL_WARNING_SECONDS:.0f} s: is a worker running?")
            time.sleep(0.1)


def is_full(messages: int, held: int | None) -> bool:
    """Whether the queue holds enough for now; `held` in bytes, None for a Redis that does not say."""
    return messages > MAX_WAITING_MESSAGES or (messages > 0 and held is not None and held > MAX_QUEUE_BYTES)


def parse_batch(batch: SourceBatch) -> tuple[list[NumberedDocument], list[Refusal]]:
    """The documents of a batch with their line numbers, and the lines that are none."""
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
    """Runs of documents on neighbouring lines: a message counts its documents on from its offset."""
    group: list[NumberedDocument] = []
    for one in documents:
        if group and one[0] != group[-1][0] + 1:
            yield group
            group = []
        group.append(one)
    if group:
        yield group


MAX_BATCH_BYTES = 4 * 1024**2


class LoadDestination(Protocol):
    """Takes batches; lines are numbered over the whole load."""

    def send(self, batch: SourceBatch) -> SentBatch: ...


def send_all(
    sources: Sequence[LoadSource],
    record: LoadCheckpoint,
    door: LoadDestination,
    make: DocumentMaker,
    size: int,
    show: LoadDisplay,
) -> None:
    """From the record's place to the end. A source's lines are numbered on from those of the sources before it."""
    total = sum(source.size for source in sources)
    show.begin("loading", total, first=record.sent)
    before = sum(source.size for source in sources[: record.place.part])
    for part, source in enumerate(sources[record.place.part :], record.place.part):
        began = source.identity()
        for batch in read_batches(source, record.place, make, size, MAX_BATCH_BYTES):
            _send_batch(batch, record, door, sources)
            show.step(before + batch.read, total, record.sent)
        if not _is_unchanged(source, began):
            show.say(f"{source.name} changed while it was read: load it again to be sure of it.")
        record.starts.append(record.starts[part] + record.place.line)
        record.place = SourcePosition(part + 1)
        record.save()
        before += source.size


def _is_unchanged(source: LoadSource, began: str) -> bool:
    try:
        return source.identity() == began
    except OSError:
        return False


def _send_batch(
    batch: SourceBatch, record: LoadCheckpoint, door: LoadDestination, sources: Sequence[LoadSource]
) -> None:
    part = batch.end.part
    refusals = [replace(one, file=one.file or _source_file_name(sources, part)) for one in batch.refusals]
    if batch.lines:
        start = record.starts[part]
        sent = door.send(replace(batch, lines=[(start + number, line) for number, line in batch.lines]))
        record.jobs += [job for job in sent.jobs if job not in record.jobs]
        record.accepted += sent.accepted
        for one in sent.refusals:
            file = batch.files.get((one.line or 0) - start)
            refusals.append(replace(one, line=None, file=file) if file else locate_refusal(one, record, sources))
    record.sent += len(batch.lines)
    record.refuse(refusals)
    record.place = batch.end
    record.save()


def locate_refusal(refusal: Refusal, record: LoadCheckpoint, sources: Sequence[LoadSource]) -> Refusal:
    """A refusal whose line counts over the whole load, with its file and the line in there."""
    line = refusal.line or 1
    part = max(0, bisect_right(record.starts, line - 1) - 1)
    return replace(refusal, line=line - record.starts[part], file=_source_file_name(sources, part))


def _source_file_name(sources: Sequence[LoadSource], part: int) -> str | None:
    return sources[part].name if len(sources) > 1 else None
