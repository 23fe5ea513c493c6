"""The sweeper: enqueues again what stays pending although its message was taken or lost; its other duties beside it.

It may run twice: each re-enqueueing is a compare-and-swap on the document's version, and only the winner publishes.
"""

import logging
import random
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from types import FrameType

from indexer.duty import Duty
from indexer.expiry import Expiry
from indexer.later_fields import LaterFields
from indexer.overtaken import QueueHead
from indexer.reindex.rescue import rescue
from indexer.state import StateOfService
from indexer.triage import attempts_allowed
from services.contracts import encode_messages, encode_queue
from services.errors import BackendUnavailable, NotFound, SparsewellError
from services.index_spec import Generation, Names
from services.opensearch.bulk import Outcome, write
from services.opensearch.client import SyncSearch
from services.opensearch.generations import list_call, read_written, refresh_call
from services.opensearch.jobs import read_traces, traces_call
from services.opensearch.journal import Stored, dead_write, now_ms, overdue_call, read_hits, requeued_write
from services.presence import Presence
from services.queue import Publisher
from services.settings import Settings
from services.telemetry import tracing
from services.telemetry.exposition import exposed
from services.telemetry.metrics import DEAD_LETTERS

log = logging.getLogger(__name__)

# Documents of one look at a generation.
PAGE = 1000
# What could not be written in this time is still overdue at the next pass; and SIGTERM does not wait longer.
WRITE_SECONDS = 5.0
# Doubled leases end here: a document that nobody can encode at present is tried once an hour.
LONGEST_LEASE = 3600.0
NEVER_ENDED = (
    "attempts_exhausted",
    "Its encoding was begun {attempts} times and never ended: it seems to need more memory or time than a worker has.",
)
TRANSITIONS_EXHAUSTED = ("given_up", "It was enqueued a thousand times and never encoded; the workers' logs say why.")


def next_lease(stored: Stored, lease_seconds: float) -> float:
    """Seconds until it is looked at again: the lease, doubled for each transition that it has been through."""
    return min(max(lease_seconds, LONGEST_LEASE), lease_seconds * 2.0 ** min(stored.transitions, 16))


def end_of(stored: Stored, max_attempts: int) -> tuple[str, str] | None:
    """Code and reason when there is no use in another attempt, else None.

    Only attempts that a worker began count; waiting and lost messages do not.
    """
    if stored.attempts >= attempts_allowed(stored, max_attempts):
        error = stored.source.get("error")
        if error:
            return str(error["code"]), str(error["reason"])
        return NEVER_ENDED[0], NEVER_ENDED[1].format(attempts=stored.attempts)
    return None if stored.may_change else TRANSITIONS_EXHAUSTED


@dataclass
class Sweeper:
    """One pass at a time over all generations. Keeps what it saw of the queues between passes."""

    settings: Settings
    search: SyncSearch
    publisher: Publisher
    heads: dict[str, QueueHead] = field(default_factory=dict)

    def sweep(self) -> Counter[str]:
        """One pass; counts what became of overdue documents. Raises BackendUnavailable or Overloaded."""
        counts: Counter[str] = Counter()
        if finished := rescue(self.search, self.publisher, self.settings):
            counts["swaps finished"] = finished
        found = read_written(self.search.send(list_call(Names(self.settings.index_prefix))))
        by_encoder: dict[str, list[Generation]] = defaultdict(list)
        for generation in found:
            by_encoder[generation.encoder.name].append(generation)
        for encoder, generations in by_encoder.items():
            head = self.heads.setdefault(encoder, QueueHead(self.settings.lease_seconds))
            # Redis is asked before anything is written: while it is away nothing is touched.
            head.saw(now_ms(), self.publisher.oldest(encode_queue(encoder)))
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
            page = read_hits(self.search.send(overdue_call(generation.physical, before, PAGE)))
            done = self._again(generation, page)
            counts += done
            if len(page) < PAGE or not (done["enqueued"] or done["dead"]):
                return counts
            # What was just written is still seen with its old lease until then.
            self.search.send(refresh_call(generation.physical))

    def _again(self, generation: Generation, overdue: Sequence[Stored]) -> Counter[str]:
        settings = self.settings
        ends = [end_of(stored, settings.max_attempts) for stored in overdue]
        writes = [
            requeued_write(generation, stored, next_lease(stored, settings.lease_seconds))
            if end is None
            else dead_write(generation, stored, *end)
            for stored, end in zip(overdue, ends, strict=True)
        ]
        verdicts = write(self.search, writes, settings.journal_bytes, WRITE_SECONDS)
        counts: Counter[str] = Counter()
        won = []
        for stored, end, verdict in zip(overdue, ends, verdicts, strict=True):
            if verdict.outcome is not Outcome.STORED:
                counts[verdict.outcome.value] += 1
            elif end is None:
                won.append(stored.id)
            else:
                counts["dead"] += 1
                DEAD_LETTERS.labels(end[0]).inc()
                log.warning("document %r of %s: %s", stored.id, generation.physical, end[0])
        if won:
            jobs = {str(stored.source["job"]) for stored in overdue if "job" in stored.source}
            links = self._traces(jobs) if tracing.on() else []
            attributes: tracing.Attributes = {"index": generation.index, "documents": len(won)}
            with tracing.span("requeue", attributes=attributes, links=links):
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
        call = traces_call(Names(self.settings.index_prefix), sorted(jobs)[:100])
        try:
            return read_traces(self.search.send(call))
        except SparsewellError:
            return []


def run_duties(duties: Sequence[Duty], interval: float, stop: threading.Event) -> None:
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
    search, publisher = SyncSearch(settings), Publisher(settings.redis_address)
    log.info("sweeping every %g s; a lease is %g s", settings.sweep_interval, settings.lease_seconds)
    presence = Presence(settings.redis_address)
    state = StateOfService(settings, search, publisher, presence)
    try:
        with exposed(settings, "sweeper", state), tracing.traced("sweeper"):
            run_duties(
                [
                    Duty("looking", "seen", state.look),
                    Duty("adding fields", "given the later fields", LaterFields(settings, search).add),
                    Duty("sweeping", "overdue documents", Sweeper(settings, search, publisher).sweep),
                    Duty("removing what has expired", "expired", Expiry(settings, search).remove),
                ],
                settings.sweep_interval,
                stop,
            )
    finally:
        search.close()
        publisher.close()
        presence.close()
    log.info("stopped")
