"""Whether a request with documents is let in: decided from a few numbers, before anything of it is accepted.

Nothing here does I/O. What is in flight is counted by the process itself, what waits behind it is looked up by
`query_api.backlog`.

Documents that take long to read, read beside the event loop, so that searches are answered meanwhile.

Looks at what waits behind the API, a second old at most, and refuses more when it is too much.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from services.documents.document import Document
from services.errors import Overloaded, SparsewellError
from services.index_spec import IndexNames
from services.opensearch.client import AsyncSearchClient
from services.opensearch.generations import count_pending_call, read_pending_count
from services.queue.messages import Publisher, encode_queue
from services.settings import Settings

T = TypeVar("T")

_LONG_DOCUMENT_BYTES = 64 * 1024  # bytes of JSON: of talk that is read in some 20 ms


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """A document that was read before it is journalled, with the bytes of its JSON."""

    document: Document
    size: int


class BackgroundReader:
    """One at a time: each thread takes its turn of the interpreter, and the event loop is one among them. Beside six
    that read talk of 50,000 segments, searches took ten times as long as beside one (docs/decisions/0190).
    """

    def __init__(self) -> None:
        self._beside = ThreadPoolExecutor(1, "long-reading")

    async def run(self, read: Callable[[], T], size: int) -> T:
        """What `read` returns or raises; at once where it is short."""
        if size < _LONG_DOCUMENT_BYTES:
            return read()
        return await asyncio.get_running_loop().run_in_executor(self._beside, read)

    def close(self) -> None:
        """Begins nothing more."""
        self._beside.shutdown(wait=False, cancel_futures=True)


MAX_WAIT_SECONDS = 60
# When nothing is known of how fast the backlog shrinks.
UNKNOWN_WAIT_SECONDS = 10
# Room for this share of the limit should be there again when a client returns, or it would be refused once more.
MIN_ROOM_SHARE = 0.01


# A document is counted some time after it was journalled: when its shard was refreshed.
STEADY_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class BacklogSample:
    """What waited at one moment (seconds of a steady clock): documents to be encoded, messages. None: unknown.

    `journalled` is how many documents this process had journalled by then, ever.
    """

    at: float
    pending: int | None
    messages: int | None
    journalled: int = 0


def count_waiting_documents(looks: Sequence[BacklogSample], now: float, journalled: int) -> int | None:
    """Documents that wait to be encoded, at least: the last count, or one shortly before and what came since."""
    last = looks[-1]
    if last.pending is None:
        return None
    recent = [one for one in looks if now - one.at <= STEADY_SECONDS and one.pending is not None] or [last]
    return max((one.pending or 0) + journalled - one.journalled for one in recent)


def drain_rate(earlier: float, before: int | None, later: float, after: int | None) -> float | None:
    """How fast a backlog shrank between two looks; None when it did not, or nobody knows."""
    if before is None or after is None or later <= earlier or after >= before:
        return None
    return (before - after) / (later - earlier)


def retry_after_seconds(waiting: int, limit: int, drained: float | None) -> int:
    """Retry-After: until there is some room again at this rate, from 1 to 60 seconds."""
    if drained is None:
        return UNKNOWN_WAIT_SECONDS
    return min(MAX_WAIT_SECONDS, max(1, math.ceil((waiting - limit + math.ceil(limit * MIN_ROOM_SHARE)) / drained)))


def backlog_refusal(looks: Sequence[BacklogSample], max_pending: int, max_messages: int) -> Overloaded | None:
    """The reason to refuse more documents, from looks in the order of time; None lets them in.

    What is unknown refuses nobody: without Redis documents are journalled all the same, and an OpenSearch that cannot
    count cannot store either and says so itself.
    """
    if not looks:
        return None
    first, last = looks[0], looks[-1]
    if last.pending is not None and last.pending >= max_pending:
        drained = drain_rate(first.at, first.pending, last.at, last.pending)
        return Overloaded(
            "too_many_pending",
            f"{last.pending:,} documents wait to be encoded, and {max_pending:,} may; nothing more was accepted.",
            limit=max_pending,
            retry_after=retry_after_seconds(last.pending, max_pending, drained),
        )
    if last.messages is not None and last.messages >= max_messages:
        drained = drain_rate(first.at, first.messages, last.at, last.messages)
        return Overloaded(
            "queue_full",
            f"{last.messages:,} messages wait for the workers, and {max_messages:,} may; nothing more was accepted.",
            limit=max_messages,
            retry_after=retry_after_seconds(last.messages, max_messages, drained),
        )
    return None


class InFlightRequests:
    """Requests with documents of one process: how many at once, and how many bytes of their bodies are in memory."""

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.requests = 0
        self.bytes = 0

    @contextmanager
    def slot(self) -> Iterator["RequestSlot"]:
        """A place for one request, given back however it ends. Raises Overloaded (`too_many_requests`)."""
        if self.requests >= self.max_requests:
            raise Overloaded(
                "too_many_requests",
                f"{self.requests} requests with documents are being taken in at once; send this one again.",
                limit=self.max_requests,
                retry_after=1,
            )
        slot = RequestSlot(self)
        self.requests += 1
        try:
            yield slot
        finally:
            self.requests -= 1
            self.bytes -= slot.held


class RequestSlot:
    """One request in flight. `held` counts the bytes of its body that are in memory or promised to be."""

    def __init__(self, fleet: InFlightRequests) -> None:
        self._fleet = fleet
        self.held = 0

    def reserve(self, size: int) -> None:
        """Holds `size` bytes in all. Raises Overloaded (`too_many_bytes`).

        A request that is alone is let in whatever its size: its own limit holds, and it could never pass otherwise.
        """
        more = size - self.held
        if more <= 0:
            return
        others = self._fleet.bytes - self.held
        if others and self._fleet.bytes + more > self._fleet.max_bytes:
            raise Overloaded(
                "too_many_bytes",
                f"Bodies of {self._fleet.bytes:,} bytes are being taken in at once; send this one again.",
                limit=self._fleet.max_bytes,
                retry_after=1,
            )
        self.held = size
        self._fleet.bytes += more


SAMPLE_INTERVAL_SECONDS = 1.0
# Looks that the rate is told from.
SAMPLE_HISTORY_SECONDS = 60.0
# A look is a small request; one that takes longer is no look.
SAMPLE_TIMEOUT_SECONDS = 2.0


class BacklogMonitor:
    """What waits to be encoded: documents of all indexes, as OpenSearch counts them, and messages of each encoder.

    Documents are counted where they are durable, so the limit holds with Redis away as well. A count is as old as a
    refresh and a look; what this process journalled meanwhile is added to it.
    """

    def __init__(self, settings: Settings, search: AsyncSearchClient, publisher: Publisher) -> None:
        self._settings = settings
        self._search = search
        self._publisher = publisher
        self._names = IndexNames(settings.index_prefix)
        self._looks: dict[str, deque[BacklogSample]] = {}
        self._looking: dict[str, asyncio.Lock] = {}
        self._journalled = 0

    def journalled(self, documents: int) -> None:
        """Counts documents that were accepted a moment ago."""
        self._journalled += documents

    async def admit(self, encoder: str) -> None:
        """Raises Overloaded (`too_many_pending`, `queue_full`) when more documents for this encoder are too many."""
        looks = self._looks.setdefault(encoder, deque())
        lock = self._looking.setdefault(encoder, asyncio.Lock())
        if not looks:
            async with lock:
                if not looks:
                    await self._look(encoder, looks)
        elif time.monotonic() - looks[-1].at >= SAMPLE_INTERVAL_SECONDS and not lock.locked():
            # One request looks; those that come meanwhile go by the look before.
            async with lock:
                await self._look(encoder, looks)
        pending = count_waiting_documents(looks, time.monotonic(), self._journalled)
        settings = self._settings
        error = backlog_refusal(
            [*looks, replace(looks[-1], pending=pending)], settings.max_pending_documents, settings.max_queue_messages
        )
        if error is not None:
            raise error

    async def _look(self, encoder: str, looks: deque[BacklogSample]) -> None:
        journalled = self._journalled
        pending, messages = await asyncio.gather(self._pending(), self._messages(encoder))
        now = time.monotonic()
        looks.append(BacklogSample(now, pending, messages, journalled))
        while len(looks) > 1 and now - looks[0].at > SAMPLE_HISTORY_SECONDS:
            looks.popleft()

    async def _pending(self) -> int | None:
        try:
            return read_pending_count(await self._search.send(count_pending_call(self._names, SAMPLE_TIMEOUT_SECONDS)))
        except SparsewellError:
            return None

    async def _messages(self, encoder: str) -> int | None:
        try:
            return await asyncio.to_thread(self._publisher.depth, encode_queue(encoder))
        except SparsewellError:
            return None
