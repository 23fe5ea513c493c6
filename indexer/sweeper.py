"""The sweeper: a process that repairs lost work and removes expired data, periodically.

`Sweeper` enqueues pending documents again whose messages were lost. `QueueHead` detects lost messages: a queue is first
in, first out, so a document's message was taken or lost once the queue's head was sent after it (docs/decisions/0061).
`MappingUpgrade` adds fields to the indexes of older versions. Several sweepers may run: every write is a
compare-and-swap, and only the winner acts.
"""

import logging
import random
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType

from indexer.piece_frequencies import FrequencyUpdate
from indexer.queue_metrics import ServiceStateCollector
from indexer.reindex.run import finish_abandoned_swaps
from indexer.retention import RetentionCleanup, order_in_turn
from indexer.triage import exhaustion_reason
from services.dates import now_ms
from services.encoders.catalogue import load_known_encoders
from services.errors import BackendUnavailable, NotFound, SparsewellError
from services.index_spec import Generation, IndexNames
from services.opensearch.bulk import WriteOutcome, write_bulk
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import (
    add_later_fields_call,
    list_generations_call,
    read_writable_generations,
    refresh_call,
)
from services.opensearch.jobs import job_traces_call, read_job_traces
from services.opensearch.journal import (
    dead_write,
    get_documents_call,
    overdue_documents_call,
    overdue_indexes_call,
    read_counted_generations,
    read_stored_documents,
    read_stored_hits,
    requeue_write,
)
from services.opensearch.stored_document import StoredDocument, WholeDocumentPages
from services.queue.installation import InstallationClaim
from services.queue.lanes import interactive_queue, load_queue
from services.queue.messages import Publisher, encode_messages
from services.queue.worker_registry import WorkerRegistry
from services.settings import Settings
from services.telemetry import tracing
from services.telemetry.metrics import (
    DEAD_LETTERS,
    SWEEPER_LAST_SUCCESS,
    SWEEPER_PASSES,
    SWEPT_DOCUMENTS,
    expose_metrics,
)

log = logging.getLogger(__name__)

SWEEP_PAGE_DOCUMENTS = 1000
# An index with many overdue documents leaves time for the others, and a pass for the other tasks. The next pass begins
# with the index after the last one.
INDEX_SECONDS = 5.0
PASS_SECONDS = 30.0
# The time for the writes of a page. The next pass repeats the missing ones, and SIGTERM waits no longer than this.
WRITE_SECONDS = 5.0
# The limit of doubled leases: a document that no worker can encode at present is tried once an hour.
MAX_LEASE_SECONDS = 3600.0


@dataclass
class QueueHead:
    """The heads of one queue during the last lease. Times are milliseconds since 1970."""

    lease_seconds: float
    _samples: deque[tuple[int, int]] = field(default_factory=deque)

    def record(self, now: int, oldest: int | None) -> None:
        """Record when the message at the head was sent, None for an empty queue."""
        self._samples.append((now, now if oldest is None else min(oldest, now)))
        # The latest sample that is a lease old stays: `overdue_before` needs it.
        while len(self._samples) > 1 and now - self._samples[1][0] >= self._lease:
            self._samples.popleft()

    def overdue_before(self, now: int) -> int | None:
        """Return the time before which the lease of an overdue document ended; None before a whole lease of samples.

        A document is overdue when its lease began before the head of one lease ago was sent: its message was taken or
        lost before, and a worker has had one lease to finish. A message is sent a little after its lease begins, and
        the messages of one batch one after another; a quarter of a lease allows for that. A clock that was set back
        delays the result and never advances it.
        """
        if not self._samples or now - self._samples[0][0] < self._lease:
            return None
        return min(now, self._samples[0][1] - self._lease // 4 + self._lease)

    @property
    def _lease(self) -> int:
        return int(self.lease_seconds * 1000)


@dataclass
class Sweeper:
    """The re-enqueueing of overdue documents of all generations. It keeps the queue heads between passes."""

    settings: Settings
    search: SyncSearchClient
    publisher: Publisher
    heads: dict[str, QueueHead] = field(default_factory=dict)
    claim: InstallationClaim = field(init=False)
    _last: str = ""  # the generation that the last pass ended with

    def __post_init__(self) -> None:
        self.claim = InstallationClaim(self.settings, self.publisher)

    def sweep(self) -> Counter[str]:
        """Make one pass. Return the outcomes of the overdue documents.

        Raises BackendUnavailable, Overloaded, ConfigurationError (`foreign_redis`).
        """
        counts: Counter[str] = Counter()
        if finished := finish_abandoned_swaps(self.search, self.publisher, self.settings):
            counts["swaps finished"] = finished
        writable = read_writable_generations(self.search.send(list_generations_call(self._names)))
        # These raise while Redis is unavailable or another installation's, before the pass writes anything.
        self.claim.claim(self.search)
        self._record_heads({generation.encoder.name for generation in writable}, writable)
        overdue = read_counted_generations(self.search.send(overdue_indexes_call(self._names, now_ms())))
        ended = time.monotonic() + PASS_SECONDS
        swept = [generation for generation in writable if generation.physical in overdue]
        for generation in order_in_turn(swept, self._last):
            before = self._overdue_before(generation)
            if before is None:
                continue
            self._last = generation.physical
            try:
                counts += self._sweep(generation, before)
            except NotFound:
                continue  # deleted meanwhile
            except BackendUnavailable as error:
                if error.code != "search_incomplete":
                    raise
                # A missing shard concerns one index. The documents of other indexes must not wait for it.
                counts["generations with a shard away"] += 1
            if time.monotonic() > ended:
                break
        return counts

    @property
    def _names(self) -> IndexNames:
        return IndexNames(self.settings.index_prefix)

    def _record_heads(self, encoders: Collection[str], generations: Sequence[Generation]) -> None:
        """Record the heads of all queues in which messages of these generations may wait."""
        queues = set(map(interactive_queue, encoders))
        queues |= {load_queue(generation.encoder.name, generation.index) for generation in generations}
        for queue in sorted(queues):
            head = self.heads.setdefault(queue, QueueHead(self.settings.lease_seconds))
            head.record(now_ms(), self.publisher.oldest_sent_at(queue))

    def _overdue_before(self, generation: Generation) -> int | None:
        """Return the time before which the lease of an overdue document ended; None while that is unknown.

        The message of a document may wait in either lane, so both must have passed it.
        """
        encoder, now = generation.encoder.name, now_ms()
        heads = (self.heads[interactive_queue(encoder)], self.heads[load_queue(encoder, generation.index)])
        moments = [head.overdue_before(now) for head in heads]
        return None if None in moments else min(moment for moment in moments if moment is not None)

    def _sweep(self, generation: Generation, before: int) -> Counter[str]:
        counts: Counter[str] = Counter()
        ended = time.monotonic() + INDEX_SECONDS
        while True:
            found = read_stored_hits(
                self.search.send(overdue_documents_call(generation.physical, before, SWEEP_PAGE_DOCUMENTS))
            )
            outcomes: Counter[str] = Counter()
            requeued: list[StoredDocument] = []
            for documents in self._read(generation, found):
                requeued += self._requeue(generation, documents, outcomes)
                if len(requeued) >= self.settings.message_documents:
                    self._enqueue(generation, requeued, outcomes)
                    requeued = []
                if time.monotonic() > ended:
                    break
            self._enqueue(generation, requeued, outcomes)
            counts += outcomes
            more = len(found) == SWEEP_PAGE_DOCUMENTS and (outcomes["enqueued"] or outcomes["dead"])
            if not more or time.monotonic() > ended:
                return counts
            # Without a refresh the next search finds the same documents with their old leases.
            self.search.send(refresh_call(generation.physical))

    def _read(self, generation: Generation, found: Sequence[StoredDocument]) -> Iterator[list[StoredDocument]]:
        """Yield the found documents whole, a few at a time. A document that has changed since is left out.

        A requeue writes the whole document, with its earlier vectors.
        """
        versions = {stored.id: stored.external for stored in found}
        ids: Sequence[str] = list(versions)
        pages = WholeDocumentPages()
        while ids:
            page, ids = pages.take(ids)
            documents = read_stored_documents(self.search.send(get_documents_call(generation.physical, page)))
            pages.record(documents)
            yield [stored for stored in documents if stored.external == versions[stored.id]]

    def _requeue(
        self, generation: Generation, overdue: Sequence[StoredDocument], counts: Counter[str]
    ) -> list[StoredDocument]:
        """Give overdue documents a new lease, or mark them dead when another attempt is useless; count the outcomes.

        Return the documents that must be enqueued.
        """
        settings = self.settings
        reasons = [exhaustion_reason(stored, settings.max_attempts) for stored in overdue]
        writes = [
            requeue_write(generation, stored, next_lease_seconds(stored, settings.lease_seconds))
            if reason is None
            else dead_write(generation, stored, *reason)
            for stored, reason in zip(overdue, reasons, strict=True)
        ]
        verdicts = write_bulk(self.search, writes, settings.journal_bytes, WRITE_SECONDS)
        requeued = []
        for stored, reason, verdict in zip(overdue, reasons, verdicts, strict=True):
            if verdict.outcome is not WriteOutcome.STORED:
                counts[verdict.outcome.value] += 1
            elif reason is None:
                # The text is not needed any more.
                requeued.append(StoredDocument(stored.id, stored.external, {"job": stored.source.get("job")}))
            else:
                counts["dead"] += 1
                DEAD_LETTERS.labels(reason[0]).inc()
                log.warning("document %r of %s: %s", stored.id, generation.physical, reason[0])
        return requeued

    def _enqueue(self, generation: Generation, requeued: Sequence[StoredDocument], counts: Counter[str]) -> None:
        if not requeued:
            return
        jobs = {str(stored.source["job"]) for stored in requeued if stored.source["job"] is not None}
        links = self._job_traces(jobs) if tracing.is_tracing() else []
        attributes: tracing.SpanAttributes = {"index": generation.index, "documents": len(requeued)}
        ids = [stored.id for stored in requeued]
        with tracing.open_span("requeue", attributes=attributes, links=links):
            for message in encode_messages(generation.index, ids, self.settings.message_documents, generation.number):
                self.publisher.encode(generation.encoder.name, message)
                counts["enqueued"] += len(message.ids)

    def _job_traces(self, jobs: Collection[str]) -> list[str]:
        """Return the traces in which these jobs began, of at most a hundred jobs.

        Returns no traces when they cannot be read: the documents have new leases by now and must be enqueued.
        """
        if not jobs:
            return []
        call = job_traces_call(IndexNames(self.settings.index_prefix), sorted(jobs)[:100])
        try:
            return read_job_traces(self.search.send(call))
        except SparsewellError:
            return []


def next_lease_seconds(stored: StoredDocument, lease_seconds: float) -> float:
    """Return the lease of a document that is enqueued again: doubled for each transition, up to MAX_LEASE_SECONDS."""
    return min(max(lease_seconds, MAX_LEASE_SECONDS), lease_seconds * 2.0 ** min(stored.transitions, 16))


@dataclass
class MappingUpgrade:
    """The addition of later fields to the strict mappings of generations that an older version created.

    It sends the fields once to each generation. Existing fields do not change.
    """

    settings: Settings
    search: SyncSearchClient
    _upgraded: set[str] = field(default_factory=set)

    def add(self) -> Counter[str]:
        """Upgrade all new generations. Return their number. Raises BackendUnavailable or Overloaded."""
        counts: Counter[str] = Counter()
        for generation in read_writable_generations(
            self.search.send(list_generations_call(IndexNames(self.settings.index_prefix)))
        ):
            if generation.physical not in self._upgraded:
                self.search.send(add_later_fields_call(generation.physical))
                self._upgraded.add(generation.physical)
                counts["generations"] += 1
        return counts


@dataclass
class PeriodicTask:
    """A task of the sweeper process. A failure of a task does not stop the others.

    `name` is its activity ("sweeping"); `counted` names the counted things. The log has the start and the end of an
    error, each once.
    """

    name: str
    counted: str
    run: Callable[[], Counter[str]]
    _error: str | None = None

    @property
    def _label(self) -> str:
        return self.name.replace(" ", "_")

    def perform(self) -> None:
        """Run once. Raises nothing, because the next pass begins afresh."""
        try:
            counts = self.run()
        except SparsewellError as error:
            SWEEPER_PASSES.labels(self._label, error.code).inc()
            if error.code != self._error:
                log.warning("not %s: %s", self.name, error)
            self._error = error.code
        except Exception:
            # An unexpected error of one task must not end the process.
            SWEEPER_PASSES.labels(self._label, "unexpected").inc()
            if self._error != "unexpected":
                log.exception("not %s: unexpected error", self.name)
            self._error = "unexpected"
        else:
            if self._error is not None:
                log.info("%s again", self.name)
            self._error = None
            SWEEPER_PASSES.labels(self._label, "done").inc()
            SWEEPER_LAST_SUCCESS.labels(self._label).set_to_current_time()
            for outcome, count in counts.items():
                SWEPT_DOCUMENTS.labels(self._label, outcome).inc(count)
            if counts:
                log.info("%s: %s", self.counted, ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))


def run_periodic_tasks(tasks: Sequence[PeriodicTask], interval: float, stop: threading.Event) -> None:
    """Perform all tasks about every `interval` seconds, until `stop` is set."""
    while not stop.is_set():
        for task in tasks:
            if not stop.is_set():
                task.perform()
        # A random interval keeps several sweepers from running at the same time.
        stop.wait(interval * random.uniform(0.8, 1.2))  # noqa: S311 (not a secret)


def run_sweeper(settings: Settings) -> None:
    """Run the sweeper until SIGTERM or SIGINT."""
    stop = threading.Event()

    def request_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request_stop)
    search, publisher = SyncSearchClient(settings), Publisher(settings.redis_address)
    log.info("sweeping every %g s; a lease is %g s", settings.sweep_interval, settings.lease_seconds)
    registry = WorkerRegistry(settings.redis_address)
    frequencies = FrequencyUpdate(settings, search, load_known_encoders(settings))
    state = ServiceStateCollector(settings, search, publisher, registry)
    try:
        with expose_metrics(settings, "sweeper", state), tracing.tracing_session("sweeper"):
            run_periodic_tasks(
                [
                    PeriodicTask("looking", "seen", state.sample),
                    PeriodicTask("adding fields", "given the later fields", MappingUpgrade(settings, search).add),
                    PeriodicTask("sweeping", "overdue documents", Sweeper(settings, search, publisher).sweep),
                    PeriodicTask("counting pieces", "counted anew", frequencies.update),
                    PeriodicTask("removing what has expired", "expired", RetentionCleanup(settings, search).remove),
                ],
                settings.sweep_interval,
                stop,
            )
    finally:
        search.close()
        publisher.close()
        registry.close()
    log.info("stopped")
