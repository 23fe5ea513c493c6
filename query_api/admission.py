"""Whether a request with documents is let in: decided from a few numbers, before anything of it is accepted.

Nothing here does I/O. What is in flight is counted by the process itself, what waits behind it is looked up by
`query_api.backlog`.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from services.errors import Overloaded

LONGEST_WAIT = 60
# When nothing is known of how fast the backlog shrinks.
UNKNOWN_WAIT = 10
# Room for this share of the limit should be there again when a client returns, or it would be refused once more.
ROOM = 0.01


# A document is counted some time after it was journalled: when its shard was refreshed.
SETTLED_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Look:
    """What waited at one moment (seconds of a steady clock): documents to be encoded, messages. None: unknown.

    `journalled` is how many documents this process had journalled by then, ever.
    """

    at: float
    pending: int | None
    messages: int | None
    journalled: int = 0


def waiting_documents(looks: Sequence[Look], now: float, journalled: int) -> int | None:
    """Documents that wait to be encoded, at least: the last count, or one shortly before and what came since."""
    last = looks[-1]
    if last.pending is None:
        return None
    recent = [one for one in looks if now - one.at <= SETTLED_SECONDS and one.pending is not None] or [last]
    return max((one.pending or 0) + journalled - one.journalled for one in recent)


def drained_a_second(earlier: float, before: int | None, later: float, after: int | None) -> float | None:
    """How fast a backlog shrank between two looks; None when it did not, or nobody knows."""
    if before is None or after is None or later <= earlier or after >= before:
        return None
    return (before - after) / (later - earlier)


def wait_seconds(waiting: int, limit: int, drained: float | None) -> int:
    """Retry-After: until there is some room again at this rate, from 1 to 60 seconds."""
    if drained is None:
        return UNKNOWN_WAIT
    return min(LONGEST_WAIT, max(1, math.ceil((waiting - limit + math.ceil(limit * ROOM)) / drained)))


def refusal(looks: Sequence[Look], max_pending: int, max_messages: int) -> Overloaded | None:
    """The reason to refuse more documents, from looks in the order of time; None lets them in.

    What is unknown refuses nobody: without Redis documents are journalled all the same, and an OpenSearch that cannot
    count cannot store either and says so itself.
    """
    if not looks:
        return None
    first, last = looks[0], looks[-1]
    if last.pending is not None and last.pending >= max_pending:
        drained = drained_a_second(first.at, first.pending, last.at, last.pending)
        return Overloaded(
            "too_many_pending",
            f"{last.pending:,} documents wait to be encoded, and {max_pending:,} may; nothing more was accepted.",
            limit=max_pending,
            retry_after=wait_seconds(last.pending, max_pending, drained),
        )
    if last.messages is not None and last.messages >= max_messages:
        drained = drained_a_second(first.at, first.messages, last.at, last.messages)
        return Overloaded(
            "queue_full",
            f"{last.messages:,} messages wait for the workers, and {max_messages:,} may; nothing more was accepted.",
            limit=max_messages,
            retry_after=wait_seconds(last.messages, max_messages, drained),
        )
    return None


class InFlight:
    """Requests with documents of one process: how many at once, and how many bytes of their bodies are in memory."""

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.requests = 0
        self.bytes = 0

    @contextmanager
    def slot(self) -> Iterator["Slot"]:
        """A place for one request, given back however it ends. Raises Overloaded (`too_many_requests`)."""
        if self.requests >= self.max_requests:
            raise Overloaded(
                "too_many_requests",
                f"{self.requests} requests with documents are being taken in at once; send this one again.",
                limit=self.max_requests,
                retry_after=1,
            )
        slot = Slot(self)
        self.requests += 1
        try:
            yield slot
        finally:
            self.requests -= 1
            self.bytes -= slot.held


class Slot:
    """One request in flight. `held` counts the bytes of its body that are in memory or promised to be."""

    def __init__(self, fleet: InFlight) -> None:
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
