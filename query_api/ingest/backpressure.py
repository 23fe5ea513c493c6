"""Backpressure: limits on the requests in flight and on the backlog behind the API.

`InFlightRequests` limits concurrent requests and the bytes of their bodies in one process. `BacklogMonitor` samples
the pending documents and queued messages at most once a second and refuses a request when there are too many.
`BackgroundReader` parses long documents in a thread, so that searches are answered meanwhile (docs/decisions/0190).
"""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from services.documents.document import Document
from services.errors import Overloaded, SparsewellError
from services.index_spec import Generation, IndexNames
from services.opensearch.client import AsyncSearchClient
from services.opensearch.generations import PendingCounts, count_pending_call, read_pending_counts
from services.queue.lanes import encode_queues
from services.queue.messages import Publisher
from services.settings import Settings

T = TypeVar("T")

MAX_WAIT_SECONDS = 60
# Used while the rate at which the backlog shrinks is unknown.
UNKNOWN_WAIT_SECONDS = 10
# When a client returns, this share of the limit should be free, or the API would refuse it again.
MIN_ROOM_SHARE = 0.01
# OpenSearch counts a document only after a refresh of its shard. This covers the delay.
STEADY_SECONDS = 3.0
SAMPLE_INTERVAL_SECONDS = 1.0
# The drain rate is computed from samples of this period.
SAMPLE_HISTORY_SECONDS = 60.0
SAMPLE_TIMEOUT_SECONDS = 2.0
# A talk of this size takes about 20 ms to parse.
_LONG_DOCUMENT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class BacklogSample:
    """The backlog at one time (seconds of a monotonic clock): pending documents and queued messages. None: unknown.

    `journalled` is the total of documents that this process had journalled by then.
    """

    at: float
    pending: int | None
    messages: int | None
    journalled: int = 0


class BacklogMonitor:
    """The backlog of the installation, sampled at most once a second per encoder.

    OpenSearch counts the pending documents, so the limit holds while Redis is away. A count is as old as the last
    refresh and the last sample. The monitor adds the documents that this process has journalled since.
    """

    def __init__(self, settings: Settings, search: AsyncSearchClient, publisher: Publisher) -> None:
        self._settings = settings
        self._search = search
        self._publisher = publisher
        self._names = IndexNames(settings.index_prefix)
        self._samples: dict[str, deque[BacklogSample]] = {}
        self._sampling: dict[str, asyncio.Lock] = {}
        self._journalled = 0
        self._by_generation: Mapping[str, int] = {}
        self._journalled_since: Counter[str] = Counter()

    def journalled(self, physical: str, documents: int) -> None:
        """Count documents that the process has just journalled in a generation and that wait for an encoder."""
        self._journalled += documents
        self._journalled_since[physical] += documents

    def pending_of(self, physical: str) -> int:
        """Return the pending documents of a generation: the last count, and those journalled since."""
        return self._by_generation.get(physical, 0) + self._journalled_since[physical]

    async def admit(self, generation: Generation) -> None:
        """Admit a request with documents for a generation. Raises Overloaded (`too_many_pending`, `queue_full`)."""
        encoder = generation.encoder.name
        samples = self._samples.setdefault(encoder, deque())
        lock = self._sampling.setdefault(encoder, asyncio.Lock())
        if not samples:
            async with lock:
                if not samples:
                    await self._sample(encoder, samples)
        elif time.monotonic() - samples[-1].at >= SAMPLE_INTERVAL_SECONDS and not lock.locked():
            # One request takes the sample. Concurrent requests use the previous one.
            async with lock:
                await self._sample(encoder, samples)
        pending = count_waiting_documents(samples, time.monotonic(), self._journalled)
        settings = self._settings
        error = backlog_refusal(
            [*samples, replace(samples[-1], pending=pending)],
            settings.max_pending_documents,
            settings.max_queue_messages,
        ) or index_refusal(generation, self.pending_of(generation.physical), pending, settings.max_pending_documents)
        if error is not None:
            raise error

    async def _sample(self, encoder: str, samples: deque[BacklogSample]) -> None:
        journalled, since = self._journalled, self._journalled_since.copy()
        counts, messages = await asyncio.gather(self._count_pending(), self._count_messages(encoder))
        pending = None if counts is None else counts.total
        if counts is not None:
            self._by_generation = counts.by_generation
            self._journalled_since -= since
        now = time.monotonic()
        samples.append(BacklogSample(now, pending, messages, journalled))
        while len(samples) > 1 and now - samples[0].at > SAMPLE_HISTORY_SECONDS:
            samples.popleft()

    async def _count_pending(self) -> PendingCounts | None:
        try:
            return read_pending_counts(await self._search.send(count_pending_call(self._names, SAMPLE_TIMEOUT_SECONDS)))
        except SparsewellError:
            return None

    async def _count_messages(self, encoder: str) -> int | None:
        try:
            return await asyncio.to_thread(self._publisher.depth, *encode_queues(encoder))
        except SparsewellError:
            return None


def count_waiting_documents(samples: Sequence[BacklogSample], now: float, journalled: int) -> int | None:
    """Return a lower bound of the pending documents; None when it is unknown.

    It is the largest recent count plus the documents journalled since.
    """
    last = samples[-1]
    if last.pending is None:
        return None
    recent = [sample for sample in samples if now - sample.at <= STEADY_SECONDS and sample.pending is not None]
    return max((sample.pending or 0) + journalled - sample.journalled for sample in recent or [last])


def backlog_refusal(samples: Sequence[BacklogSample], max_pending: int, max_messages: int) -> Overloaded | None:
    """Return the error that refuses more documents, or None to admit them. `samples` are in order of time.

    An unknown count refuses nothing. Without Redis documents are still journalled, and an OpenSearch that cannot count
    cannot store either, and its own error says so.
    """
    if not samples:
        return None
    first, last = samples[0], samples[-1]
    if last.pending is not None and last.pending >= max_pending:
        rate = drain_rate(first.at, first.pending, last.at, last.pending)
        return Overloaded(
            "too_many_pending",
            f"{last.pending:,} documents are pending, and the limit is {max_pending:,}; no further document was "
            "accepted.",
            limit=max_pending,
            retry_after=retry_after_seconds(last.pending, max_pending, rate),
        )
    if last.messages is not None and last.messages >= max_messages:
        rate = drain_rate(first.at, first.messages, last.at, last.messages)
        return Overloaded(
            "queue_full",
            f"{last.messages:,} messages wait for the workers, and the limit is {max_messages:,}; no further document "
            "was accepted.",
            limit=max_messages,
            retry_after=retry_after_seconds(last.messages, max_messages, rate),
        )
    return None


def index_refusal(generation: Generation, own: int, pending: int | None, max_pending: int) -> Overloaded | None:
    """Return the error that refuses more documents of one index, or None.

    An index may have as many pending documents as there is room left for all indexes: alone it gets half of the limit,
    and with another full index a third. So no index takes the last place of the others (dynamic thresholds, Choudhury
    and Hahne, 1998). `own` and `pending`: the pending documents of the index and of all indexes.
    """
    if pending is None or own < max_pending - pending:
        return None
    return Overloaded(
        "too_many_pending",
        f"{own:,} documents of the index {generation.index!r} are pending, as many as there is room for; no further "
        "document was accepted.",
        limit=max_pending,
        retry_after=UNKNOWN_WAIT_SECONDS,
    )


def drain_rate(earlier: float, before: int | None, later: float, after: int | None) -> float | None:
    """Return how fast a backlog shrank between two samples, per second; None when it did not or is unknown."""
    if before is None or after is None or later <= earlier or after >= before:
        return None
    return (before - after) / (later - earlier)


def retry_after_seconds(waiting: int, limit: int, drained: float | None) -> int:
    """Return the seconds until there is room again at this rate, from 1 to 60, for the Retry-After header."""
    if drained is None:
        return UNKNOWN_WAIT_SECONDS
    return min(MAX_WAIT_SECONDS, max(1, math.ceil((waiting - limit + math.ceil(limit * MIN_ROOM_SHARE)) / drained)))


class InFlightRequests:
    """The ingestion requests in flight in one process: their number and the bytes of their bodies in memory."""

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.requests = 0
        self.bytes = 0

    @contextmanager
    def slot(self) -> Iterator["RequestSlot"]:
        """Hold a slot for one request inside the block. Raises Overloaded (`too_many_requests`)."""
        if self.requests >= self.max_requests:
            raise Overloaded(
                "too_many_requests",
                f"{self.requests} requests with documents are in flight; send this one again.",
                limit=self.max_requests,
                retry_after=1,
            )
        slot = RequestSlot(self)
        self.requests += 1
        try:
            yield slot
        finally:
            self.requests -= 1
            self.bytes -= slot.reserved


class RequestSlot:
    """A request in flight. `reserved` counts the bytes of its body that are in memory or announced."""

    def __init__(self, in_flight: InFlightRequests) -> None:
        self._in_flight = in_flight
        self.reserved = 0

    def reserve(self, size: int) -> None:
        """Raise the reservation to `size` bytes in all. Raises Overloaded (`too_many_bytes`).

        A single request is admitted at any size: its own limit applies, and otherwise it could never be admitted.
        """
        more = size - self.reserved
        if more <= 0:
            return
        others = self._in_flight.bytes - self.reserved
        if others and self._in_flight.bytes + more > self._in_flight.max_bytes:
            raise Overloaded(
                "too_many_bytes",
                f"Bodies of {self._in_flight.bytes:,} bytes are in flight; send this one again.",
                limit=self._in_flight.max_bytes,
                retry_after=1,
            )
        self.reserved = size
        self._in_flight.bytes += more


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """A document that was parsed before it is journalled, with the bytes of its JSON."""

    document: Document
    size: int


class BackgroundReader:
    """A single thread that parses long documents.

    The event loop shares the interpreter with all threads: while six threads parsed talk of 50,000 segments, searches
    took ten times as long as with one thread (docs/decisions/0190).
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "long-reading")

    async def run(self, read: Callable[[], T], size: int) -> T:
        """Call `read` in the thread, or directly if the document is short. Pass on its result and its errors."""
        if size < _LONG_DOCUMENT_BYTES:
            return read()
        return await asyncio.get_running_loop().run_in_executor(self._executor, read)

    def close(self) -> None:
        """Cancel the documents that wait for the thread."""
        self._executor.shutdown(wait=False, cancel_futures=True)
