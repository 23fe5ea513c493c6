"""What no process can count by itself: queues, and what waits in the indexes. The sweeper looks and shows it.

Its numbers are those of the whole installation: of several sweepers each shows the same (take the max, never the sum).
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.errors import SparsewellError
from services.index_spec import Generation, IndexNames
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import list_generations_call, read_active_generations, read_writable_generations
from services.opensearch.maintenance import EMPTY_BACKLOG, BacklogCounts, backlog_call, read_backlog
from services.opensearch.reindex import ReindexRecord, ReindexRecords
from services.queue.messages import INGEST_QUEUE, Publisher, encode_queue
from services.queue.worker_registry import WorkerRegistry
from services.settings import Settings

OBSERVATION_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class QueueState:
    """Messages in a queue; `oldest` as `Publisher.oldest` says it."""

    messages: int
    oldest: int | None


@dataclass
class ServiceState:
    """One look; None: it could not be seen."""

    queues: dict[str, QueueState] | None = None
    workers: Counter[str] | None = None
    waiting: dict[str, BacklogCounts] | None = None
    generations: list[Generation] = field(default_factory=list)
    searched: set[str] = field(default_factory=set)  # those of them, by their physical names
    reindexes: list[ReindexRecord] = field(default_factory=list)


# name, help, labels of each family, as docs/observability.md lists them
METRIC_FAMILIES = {
    "sparsewell_dependency_up": ("1 where it answered the sweeper's last look.", ("dependency",)),
    "sparsewell_queue_messages": ("Messages that wait in a queue.", ("queue",)),
    "sparsewell_queue_oldest_message_age_seconds": ("Age of the message that is taken next; 0: none.", ("queue",)),
    "sparsewell_workers": ("Workers that said so in the last half minute, by their encoder.", ("encoder",)),
    "sparsewell_pending_documents": ("Documents that wait for their vectors.", ("index", "generation")),
    "sparsewell_pending_oldest_age_seconds": (
        "How long the oldest pending document of a generation that is searched has been in; 0: none is.",
        ("index", "generation"),
    ),
    "sparsewell_dead_documents": ("Documents that were given up and not retried.", ("index", "generation")),
    "sparsewell_reindex_carried_documents": ("Documents that a reindexing has carried over.", ("index", "step")),
    "sparsewell_reindex_idle_seconds": ("Since a reindexing was last heard of.", ("index", "step")),
}  # fmt: skip


class ServiceStateCollector(Collector):
    """Looks at the stores when it is told to, and shows what it saw last."""

    def __init__(
        self, settings: Settings, search: SyncSearchClient, publisher: Publisher, presence: WorkerRegistry
    ) -> None:
        self._names = IndexNames(settings.index_prefix)
        self._search = search
        self._publisher = publisher
        self._presence = presence
        self._records = ReindexRecords(search, settings)
        self._seen: ServiceState | None = None

    def look(self) -> Counter[str]:
        """Looks once. What is away is left out, and `sparsewell_dependency_up` says so; other duties log it."""
        seen = ServiceState()
        with suppress(SparsewellError):
            listed = self._search.send(list_generations_call(self._names))
            seen.generations = read_writable_generations(listed)
            seen.searched = {one.physical for one in read_active_generations(listed)}
            seen.waiting = read_backlog(self._search.send(backlog_call(self._names, OBSERVATION_TIMEOUT_SECONDS)))
            seen.reindexes = self._records.every()
        with suppress(SparsewellError):
            queues = [INGEST_QUEUE, *sorted({encode_queue(one.encoder.name) for one in seen.generations})]
            seen.queues = {
                name: QueueState(self._publisher.depth(name), self._publisher.oldest_sent_at(name)) for name in queues
            }
            seen.workers = Counter(dict.fromkeys((one.encoder.name for one in seen.generations), 0))
            seen.workers.update(worker.encoder for worker in self._presence.workers())
        self._seen = seen
        return Counter()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families, empty where nothing was seen."""
        found = {name: GaugeMetricFamily(name, said, labels=labels) for name, (said, labels) in METRIC_FAMILIES.items()}
        if self._seen is not None:
            _fill(found, self._seen, time.time() * 1000)
        yield from found.values()


def _fill(found: dict[str, GaugeMetricFamily], seen: ServiceState, now: float) -> None:
    def add(name: str, labels: tuple[str, ...], value: float) -> None:
        found[f"sparsewell_{name}"].add_metric(labels, value)

    def age(moment: int | None) -> float:
        return 0.0 if not moment else max(0.0, (now - moment) / 1000)

    add("dependency_up", ("opensearch",), seen.waiting is not None)
    add("dependency_up", ("redis",), seen.queues is not None)
    for queue, state in (seen.queues or {}).items():
        add("queue_messages", (queue,), state.messages)
        add("queue_oldest_message_age_seconds", (queue,), age(state.oldest))
    for encoder, workers in (seen.workers or {}).items():
        add("workers", (encoder,), workers)
    if seen.waiting is not None:
        for one in seen.generations:
            labels, waiting = (one.index, str(one.number)), seen.waiting.get(one.physical, EMPTY_BACKLOG)
            add("pending_documents", labels, waiting.pending)
            if one.physical in seen.searched:
                # (one that is being built has documents that came long ago: searches find them in the other one)
                add("pending_oldest_age_seconds", labels, age(waiting.oldest))
            add("dead_documents", labels, waiting.dead)
    for record in seen.reindexes:
        add("reindex_carried_documents", (record.index, record.step), record.carried)
        add("reindex_idle_seconds", (record.index, record.step), age(record.updated_at))
