"""External versions: one number orders raw writes, lifecycle transitions and encodings of a document.

A client version v (or the server's clock in microseconds) owns the 1,024 external versions from 1024 v. The raw write
takes the first, each transition of the same raw document (another attempt, dead, retried) the next free one, the
encoded document the last. So duplicates and any order of delivery end in the same state, a transition is a
compare-and-swap, and a newer raw write beats everything that belongs to an older one. See docs/decisions/0002.
"""

import threading
import time

STRIDE = 1024
# 2**53 - 1 is the largest integer that every JSON reader keeps exact; times the stride it still fits Lucene's long.
LARGEST_CLIENT_VERSION = 2**53 - 1


def raw(version: int) -> int:
    """External version of the raw write (and of a tombstone) of client version `version`."""
    return version * STRIDE


def encoded(version: int) -> int:
    """External version of the encoded document of client version `version`."""
    return version * STRIDE + STRIDE - 1


def transition(external: int) -> int:
    """The next external version for the same raw document. Raises ValueError when only the encoded one is left."""
    if external % STRIDE >= STRIDE - 2:
        raise ValueError("a document has 1,022 lifecycle transitions at most")
    return external + 1


def client(external: int) -> int:
    """The client version that an external version belongs to."""
    return external // STRIDE


class Clock:
    """Client versions for writers that give none: microseconds since 1970, strictly increasing in this process."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def next(self) -> int:
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1000)
            return self._last
