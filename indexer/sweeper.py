"""The sweeper: enqueues again what stays pending although its message was taken or lost; its other duties beside it.

It may run twice: each re-enqueueing is a compare-and-swap on the document's version, and only the winner publishes.

Something that the sweeper does in each of its passes, whatever becomes of its other duties.

Removes tombstones and job records whose time is over: page by page, some seconds of each pass.

It may run twice: of two that remove the same document one finds it gone. A document that came back is never removed,
because a delete names the very write that was found. See docs/decisions/0090.

Adds to generations that an older version made the fields that this one writes: their mappings are strict.

Tells a message that still waits from one that was taken or lost, by the age of the queue's head. Pure.

A queue is first in, first out. Once the message that is taken next was sent after a document's, the document's own was
taken, or it is lost. A worker then has one lease to finish. Until then the document waits in line, however long that
takes: it is left alone. (Two other ways were dropped, see docs/decisions/0061.)
"""

import logging
import random
import signal
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from types import FrameType

from indexer.encode_task import attempts_allowed
from indexer.queue_metrics import ServiceStateCollector
from indexer.reindex.run import finish_abandoned_swaps
from services.errors import BackendUnavailable, NotFound, SparsewellError
from services.index_spec import Generation, IndexNames
from services.opensearch.bulk import WriteOutcome, write_bulk
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import (
    add_later_fields_call,
    list_generations_call,
    read_writable_generations,
    refresh_call,
)
from services.opensearch.jobs import job_traces_call, read_job_traces
from services.opensearch.journal import (
    StoredDocument,
    days_ms,
    dead_write,
    now_ms,
    overdue_documents_call,
    read_stored_hits,
    requeue_write,
)
from services.opensearch.maintenance import (
    expired_jobs_call,
    expired_tombstones_call,
    read_expired,
    read_removal_counts,
    remove_expired_call,
)
from services.queue.messages import Publisher, encode_messages, encode_queue
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


@dataclass
class PeriodicTask:
    """`name` is what it does ("sweeping"), `done` what its counts are of. Trouble is reported once, and its end."""

    name: str
    done: str
    act: Callable[[], Counter[str]]
    _trouble: str | None = None

    @property
    def _label(self) -> str:
        return self.name.replace(" ", "_")

    def perform(self) -> None:
        """Acts once. Raises nothing: the next pass begins afresh."""
        try:
            counts = self.act()
        except SparsewellError as error:
            SWEEPER_PASSES.labels(self._label, error.code).inc()
            if error.code != self._trouble:
                log.warning("not %s: %s", self.name, error)
            self._trouble = error.code
        except Exception:
            # Whatever it is, a sweeper that has ended helps nobody.
            SWEEPER_PASSES.labels(self._label, "unexpected").inc()
            if self._trouble != "unexpected":
                log.exception("not %s: unexpected error", self.name)
            self._trouble = "unexpected"
        else:
            if self._trouble is not None:
                log.info("%s again", self.name)
            self._trouble = None
            SWEEPER_PASSES.labels(self._label, "done").inc()
            SWEEPER_LAST_SUCCESS.labels(self._label).set_to_current_time()
            for outcome, count in counts.items():
                SWEPT_DOCUMENTS.labels(self._label, outcome).inc(count)
            if counts:
                log.info("%s: %s", self.done, ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))


# Documents of one look, and of one bulk request: some 100 bytes each.
EXPIRY_PAGE_RECORDS = 1000
# What there was no time for is still there at the next pass; and SIGTERM does not wait longer.
EXPIRY_PASS_SECONDS = 5.0


@dataclass
class RetentionCleanup:
    """One pass at a time over all generations that are written to, and over the jobs."""

    settings: Settings
    search: SyncSearchClient

    def remove(self) -> Counter[str]:
        """One pass; counts what was removed. Raises BackendUnavailable or Overloaded."""
        end = time.monotonic() + EXPIRY_PASS_SECONDS
        names = IndexNames(self.settings.index_prefix)
        counts: Counter[str] = Counter()
        before = now_ms() - days_ms(self.settings.tombstone_days)
        # A generation that is kept for going back to is left as it was when it was replaced.
        for generation in read_writable_generations(self.search.send(list_generations_call(names))):
            physical = generation.physical
            found = expired_tombstones_call(physical, before, EXPIRY_PAGE_RECORDS)
            counts["tombstones"] += self._remove(physical, found, generation.write_alias, end)
        before = now_ms() - days_ms(self.settings.job_days)
        counts["job records"] += self._remove(
            names.jobs, expired_jobs_call(names.jobs, before, EXPIRY_PAGE_RECORDS), names.jobs, end
        )
        return +counts

    def _remove(self, index: str, look: Call, door: str, end: float) -> int:
        """Removes what `look` finds in `index` through `door`, the name that it is written by."""
        removed = 0
        try:
            while time.monotonic() < end:
                page = read_expired(self.search.send(look))
                if not page:
                    break
                done = read_removal_counts(self.search.send(remove_expired_call(door, page)))
                removed += done["removed"]
                if len(page) < EXPIRY_PAGE_RECORDS or not done["removed"]:
                    break
                # What was just removed is still found until then.
                self.search.send(refresh_call(index))
        except NotFound:
            pass  # deleted meanwhile, or there are no jobs yet
        return removed


@dataclass
class MappingUpgrade:
    """Once for each generation; where the fields are there already, nothing changes."""

    settings: Settings
    search: SyncSearchClient
    _done: set[str] = field(default_factory=set)

    def add(self) -> Counter[str]:
        """Counts the generations that were seen to. Raises BackendUnavailable or Overloaded."""
        counts: Counter[str] = Counter()
        for generation in read_writable_generations(
            self.search.send(list_generations_call(IndexNames(self.settings.index_prefix)))
        ):
            if generation.physical not in self._done:
                self.search.send(add_later_fields_call(generation.physical))
                self._done.add(generation.physical)
                counts["generations"] += 1
        return counts


@dataclass
class QueueHead:
    """What was seen of one queue in the last lease. Times are milliseconds since 1970."""

    lease_seconds: float
    _seen: deque[tuple[int, int]] = field(default_factory=deque)

    def saw(self, now: int, oldest: int | None) -> None:
        """Takes one look: when the next message was sent, None for an empty queue."""
        self._seen.append((now, now if oldest is None else min(oldest, now)))
        # The last look that is a lease old stays: it is the answer.
        while len(self._seen) > 1 and now - self._seen[1][0] >= self._lease:
            self._seen.popleft()

    def overdue_before(self, now: int) -> int | None:
        """Documents whose lease ended before this are overdue; None while we have not watched for a whole lease.

        A document whose lease began before the head of one lease ago was sent has been overtaken. Its own message was
        sent a little after its lease began, and those of one batch one after the other: a quarter of a lease is
        granted for that. A clock that was set back makes us wait, never hurry.
        """
        if not self._seen or now - self._seen[0][0] < self._lease:
            return None
        return min(now, self._seen[0][1] - self._lease // 4 + self._lease)

    @property
    def _lease(self) -> int:
        return int(self.lease_seconds * 1000)


# Documents of one look at a generation.
SWEEP_PAGE_DOCUMENTS = 1000
# What could not be written in this time is still overdue at the next pass; and SIGTERM does not wait longer.
WRITE_SECONDS = 5.0
# Doubled leases end here: a document that nobody can encode at present is tried once an hour.
MAX_LEASE_SECONDS = 3600.0
ATTEMPTS_EXHAUSTED = (
    "attempts_exhausted",
    "Its encoding was begun {attempts} times and never ended: it seems to need more memory or time than a worker has.",
)
TRANSITIONS_EXHAUSTED = ("given_up", "It was enqueued a thousand times and never encoded; the workers' logs say why.")


def next_lease_seconds(stored: StoredDocument, lease_seconds: float) -> float:
    """Seconds until it is looked at again: the lease, doubled for each transition that it has been through."""
    return min(max(lease_seconds, MAX_LEASE_SECONDS), lease_seconds * 2.0 ** min(stored.transitions, 16))


def exhaustion_reason(stored: StoredDocument, max_attempts: int) -> tuple[str, str] | None:
    """Code and reason when there is no use in another attempt, else None.

    Only attempts that a worker began count; waiting and lost messages do not.
    """
    if stored.attempts >= attempts_allowed(stored, max_attempts):
        error = stored.source.get("error")
        if error:
            return str(error["code"]), str(error["reason"])
        return ATTEMPTS_EXHAUSTED[0], ATTEMPTS_EXHAUSTED[1].format(attempts=stored.attempts)
    return None if stored.may_change else TRANSITIONS_EXHAUSTED


@dataclass
class Sweeper:
    """One pass at a time over all generations. Keeps what it saw of the queues between passes."""

    settings: Settings
    search: SyncSearchClient
    publisher: Publisher
    heads: dict[str, QueueHead] = field(default_factory=dict)

    def sweep(self) -> Counter[str]:
        """One pass; counts what became of overdue documents. Raises BackendUnavailable or Overloaded."""
        counts: Counter[str] = Counter()
        if finished := finish_abandoned_swaps(self.search, self.publisher, self.settings):
            counts["swaps finished"] = finished
        found = read_writable_generations(
            self.search.send(list_generations_call(IndexNames(self.settings.index_prefix)))
        )
        by_encoder: dict[str, list[Generation]] = defaultdict(list)
        for generation in found:
            by_encoder[generation.encoder.name].append(generation)
        for encoder, generations in by_encoder.items():
            head = self.heads.setdefault(encoder, QueueHead(self.settings.lease_seconds))
            # Redis is asked before anything is written: while it is away nothing is touched.
            head.saw(now_ms(), self.publisher.oldest_sent_at(encode_queue(encoder)))
            before = head.overdue_before(now_ms())
            if before is None:
                continue
            for generation in generations:
                try:
                    counts += self._sweep(generation, before)
                except NotFound:
                    continue  # deleted meanwhile
                except BackendUnavailable as error:
                    if error.code != "search_incomplete":
                        raise
                    # a shard that is away is the trouble of one index: the documents of others do not wait for it
                    counts["generations with a shard away"] += 1
        return counts

    def _sweep(self, generation: Generation, before: int) -> Counter[str]:
        counts: Counter[str] = Counter()
        while True:
            page = read_stored_hits(
                self.search.send(overdue_documents_call(generation.physical, before, SWEEP_PAGE_DOCUMENTS))
            )
            done = self._again(generation, page)
            counts += done
            if len(page) < SWEEP_PAGE_DOCUMENTS or not (done["enqueued"] or done["dead"]):
                return counts
            # What was just written is still seen with its old lease until then.
            self.search.send(refresh_call(generation.physical))

    def _again(self, generation: Generation, overdue: Sequence[StoredDocument]) -> Counter[str]:
        settings = self.settings
        ends = [exhaustion_reason(stored, settings.max_attempts) for stored in overdue]
        writes = [
            requeue_write(generation, stored, next_lease_seconds(stored, settings.lease_seconds))
            if end is None
            else dead_write(generation, stored, *end)
            for stored, end in zip(overdue, ends, strict=True)
        ]
        verdicts = write_bulk(self.search, writes, settings.journal_bytes, WRITE_SECONDS)
        counts: Counter[str] = Counter()
        won = []
        for stored, end, verdict in zip(overdue, ends, verdicts, strict=True):
            if verdict.outcome is not WriteOutcome.STORED:
                counts[verdict.outcome.value] += 1
            elif end is None:
                won.append(stored.id)
            else:
                counts["dead"] += 1
                DEAD_LETTERS.labels(end[0]).inc()
                log.warning("document %r of %s: %s", stored.id, generation.physical, end[0])
        if won:
            jobs = {str(stored.source["job"]) for stored in overdue if "job" in stored.source}
            links = self._traces(jobs) if tracing.is_tracing() else []
            attributes: tracing.SpanAttributes = {"index": generation.index, "documents": len(won)}
            with tracing.open_span("requeue", attributes=attributes, links=links):
                for message in encode_messages(generation.index, won, settings.message_documents, generation.number):
                    self.publisher.encode(generation.encoder.name, message)
                    counts["enqueued"] += len(message.ids)
        return counts

    def _traces(self, jobs: Collection[str]) -> list[str]:
        """The traces in which these jobs began, of a hundred at most; none where they cannot be read: the documents
        have a new lease by now, and their message must not wait for it.
        """
        if not jobs:
            return []
        call = job_traces_call(IndexNames(self.settings.index_prefix), sorted(jobs)[:100])
        try:
            return read_job_traces(self.search.send(call))
        except SparsewellError:
            return []


def run_periodic_tasks(duties: Sequence[PeriodicTask], interval: float, stop: threading.Event) -> None:
    """Performs all duties, again and again, until `stop`."""
    while not stop.is_set():
        for duty in duties:
            if not stop.is_set():
                duty.perform()
        # Several sweepers should not look at the same moment.
        stop.wait(interval * random.uniform(0.8, 1.2))  # noqa: S311 (not a secret)


def run_sweeper(settings: Settings) -> None:
    """Sweeps until SIGTERM or SIGINT."""
    stop = threading.Event()

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    search, publisher = SyncSearchClient(settings), Publisher(settings.redis_address)
    log.info("sweeping every %g s; a lease is %g s", settings.sweep_interval, settings.lease_seconds)
    presence = WorkerRegistry(settings.redis_address)
    state = ServiceStateCollector(settings, search, publisher, presence)
    try:
        with expose_metrics(settings, "sweeper", state), tracing.tracing_session("sweeper"):
            run_periodic_tasks(
                [
                    PeriodicTask("looking", "seen", state.look),
                    PeriodicTask("adding fields", "given the later fields", MappingUpgrade(settings, search).add),
                    PeriodicTask("sweeping", "overdue documents", Sweeper(settings, search, publisher).sweep),
                    PeriodicTask("removing what has expired", "expired", RetentionCleanup(settings, search).remove),
                ],
                settings.sweep_interval,
                stop,
            )
    finally:
        search.close()
        publisher.close()
        presence.close()
    log.info("stopped")
