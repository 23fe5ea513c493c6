"""Metrics of the whole installation: queues, workers, pending documents, dead letters, reindexing.

The sweeper samples OpenSearch and Redis and exports the last sample. Several sweepers export the same values, so a
dashboard must aggregate with max and not with sum (docs/observability.md).
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
from services.opensearch.journal import EMPTY_BACKLOG, BacklogCounts, backlog_call, read_backlog
from services.opensearch.reindex import ReindexRecord, ReindexRecords
from services.queue.lanes import queues_by_name
from services.queue.messages import Publisher
from services.queue.worker_registry import WorkerRegistry
from services.settings import Settings

OBSERVATION_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class QueueState:
    """The state of a queue: its messages and the time of the oldest one, as `Publisher.oldest` returns it."""

    messages: int
    oldest: int | None


@dataclass
class ServiceState:
    """A sample of the installation. None: the value could not be read."""

    listed: bool = False  # OpenSearch answered, perhaps without some shards
    queues: dict[str, QueueState] | None = None
    workers: Counter[str] | None = None
    backlogs: dict[str, BacklogCounts] | None = None
    generations: list[Generation] = field(default_factory=list)
    searched: set[str] = field(default_factory=set)  # physical names of the active generations
    reindexes: list[ReindexRecord] = field(default_factory=list)


# The help text and the labels of each metric family, as in docs/observability.md.
METRIC_FAMILIES = {
    "sparsewell_dependency_up": ("1: the service answered the sweeper's last sample.", ("dependency",)),
    "sparsewell_backlog_counted": ("1: the last sample counted the documents of every shard.", ()),
    "sparsewell_queue_messages": ("Messages that wait in a queue.", ("queue",)),
    "sparsewell_queue_oldest_message_age_seconds": ("Age of the message that is taken next; 0: none.", ("queue",)),
    "sparsewell_workers": ("Workers with a heartbeat in the last half minute, by encoder.", ("encoder",)),
    "sparsewell_pending_documents": ("Documents that wait for their vectors.", ("index", "generation")),
    "sparsewell_pending_oldest_age_seconds": (
        "Age of the oldest pending document of an active generation; 0: none.",
        ("index", "generation"),
    ),
    "sparsewell_dead_documents": ("Dead letters that were not retried.", ("index", "generation")),
    "sparsewell_reindex_copied_documents": ("Documents that a reindexing has copied.", ("index", "step")),
    "sparsewell_reindex_idle_seconds": ("Seconds since the last progress of a reindexing.", ("index", "step")),
}  # fmt: skip


class ServiceStateCollector(Collector):
    """A Prometheus collector that exports the last sample of the installation."""

    def __init__(
        self, settings: Settings, search: SyncSearchClient, publisher: Publisher, registry: WorkerRegistry
    ) -> None:
        self._names = IndexNames(settings.index_prefix)
        self._search = search
        self._publisher = publisher
        self._registry = registry
        self._records = ReindexRecords(search, settings)
        self._sample: ServiceState | None = None

    def sample(self) -> Counter[str]:
        """Take a sample. Return no counts.

        Values of an unavailable service are missing, and `sparsewell_dependency_up` is 0. Other tasks log the error.
        """
        state = ServiceState()
        with suppress(SparsewellError):
            listed = self._search.send(list_generations_call(self._names))
            state.listed = True
            state.generations = read_writable_generations(listed)
            state.searched = {generation.physical for generation in read_active_generations(listed)}
            state.reindexes = self._records.every()
        # Apart from the rest: one red shard fails this count alone.
        with suppress(SparsewellError):
            state.backlogs = read_backlog(self._search.send(backlog_call(self._names, OBSERVATION_TIMEOUT_SECONDS)))
        with suppress(SparsewellError):
            encoders = {generation.encoder.name for generation in state.generations}
            state.queues = {
                name: QueueState(self._publisher.depth(*queues), self._publisher.oldest_sent_at(*queues))
                for name, queues in queues_by_name(encoders).items()
            }
            state.workers = Counter(dict.fromkeys(sorted(encoders), 0))
            state.workers.update(worker.encoder for worker in self._registry.workers())
        self._sample = state
        return Counter()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield all metric families, with the values of the last sample."""
        families = {
            name: GaugeMetricFamily(name, documentation, labels=labels)
            for name, (documentation, labels) in METRIC_FAMILIES.items()
        }
        if self._sample is not None:
            _fill(families, self._sample, time.time() * 1000)
        yield from families.values()


def _fill(families: dict[str, GaugeMetricFamily], state: ServiceState, now: float) -> None:
    def add(name: str, labels: tuple[str, ...], value: float) -> None:
        families[f"sparsewell_{name}"].add_metric(labels, value)

    def age(moment: int | None) -> float:
        return 0.0 if not moment else max(0.0, (now - moment) / 1000)

    add("dependency_up", ("opensearch",), state.listed)
    if state.listed:
        add("backlog_counted", (), state.backlogs is not None)
    add("dependency_up", ("redis",), state.queues is not None)
    for name, queue in (state.queues or {}).items():
        add("queue_messages", (name,), queue.messages)
        add("queue_oldest_message_age_seconds", (name,), age(queue.oldest))
    for encoder, workers in (state.workers or {}).items():
        add("workers", (encoder,), workers)
    if state.backlogs is not None:
        for generation in state.generations:
            labels = (generation.index, str(generation.number))
            backlog = state.backlogs.get(generation.physical, EMPTY_BACKLOG)
            add("pending_documents", labels, backlog.pending)
            if generation.physical in state.searched:
                # A generation that is being built has old documents, which searches find in the active generation.
                add("pending_oldest_age_seconds", labels, age(backlog.oldest))
            add("dead_documents", labels, backlog.dead)
    for record in state.reindexes:
        add("reindex_copied_documents", (record.index, record.step), record.copied)
        add("reindex_idle_seconds", (record.index, record.step), age(record.updated_at))
