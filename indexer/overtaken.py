"""Tells a message that still waits from one that was taken or lost, by the age of the queue's head. Pure.

A queue is first in, first out. Once the message that is taken next was sent after a document's, the document's own was
taken, or it is lost. A worker then has one lease to finish. Until then the document waits in line, however long that
takes: it is left alone. (Two other ways were dropped, see docs/decisions/0061.)
"""

from collections import deque
from dataclasses import dataclass, field


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
