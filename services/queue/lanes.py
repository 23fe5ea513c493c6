"""Lanes: the queues of one encoder, so that short writes pass loads and indexes take turns.

An encoder has one interactive lane, for writes that somebody waits for, and `LOAD_LANES` load lanes. The documents of
an index are all loaded through the same lane. A worker takes from the interactive lane first and then one message from
each load lane in turn, so an index waits for one message of each other index and not for all of them. A load lane also
gets a turn after `INTERACTIVE_TURNS` interactive messages. See docs/decisions/0248.
"""

import re
import zlib
from collections.abc import Iterable
from typing import Final

from kombu.utils.scheduling import round_robin_cycle

INGEST_QUEUE: Final = "sparsewell.ingest"
# Two indexes that are loaded at once share a lane with a probability of 1/16. Each lane is one more Redis list, and one
# more trigger of an autoscaler.
LOAD_LANES: Final = 16
# A write with at most this many documents and bytes is interactive: two cores encode it in about a second.
INTERACTIVE_DOCUMENTS: Final = 16
INTERACTIVE_BYTES: Final = 64 * 1024
# An index with more pending documents is being loaded, even if each request has one document only.
INTERACTIVE_PENDING: Final = 256
# A worker takes at most this many interactive messages between two messages of other lanes. Without a bound, an index
# that is updated faster than its workers encode stops every load: a reindex stayed at 2 % for 300 s.
INTERACTIVE_TURNS: Final = 7
_LOAD_QUEUE = re.compile(r"sparsewell\.encode\..+\.load\.\d+")


def interactive_queue(encoder: str) -> str:
    """Return the interactive lane of the workers that hold this encoder.

    Each encoder has lanes of its own, so that none waits for another.
    """
    return f"sparsewell.encode.{encoder}"


def load_queue(encoder: str, index: str) -> str:
    """Return the lane in which the documents of an index are loaded."""
    return _load_queue(encoder, zlib.crc32(index.encode()) % LOAD_LANES)


def encode_queues(encoder: str) -> list[str]:
    """Return all lanes of an encoder, the interactive one first."""
    return [interactive_queue(encoder), *(_load_queue(encoder, number) for number in range(LOAD_LANES))]


def queues_by_name(encoders: Iterable[str]) -> dict[str, list[str]]:
    """Return the queues to report, by name. The load lanes of an encoder are reported together, as `...load`."""
    named = {INGEST_QUEUE: [INGEST_QUEUE]}
    for encoder in sorted(encoders):
        interactive, *loads = encode_queues(encoder)
        named |= {interactive: [interactive], f"{interactive}.load": loads}
    return named


def is_load_queue(queue: str) -> bool:
    """Tell whether a queue is a load lane."""
    return _LOAD_QUEUE.fullmatch(queue) is not None


def is_interactive(documents: int, size: int, pending: int) -> bool:
    """Tell whether a request is interactive: it is small, and its index is not being loaded.

    `size`: the bytes of its documents. `pending`: the pending documents of its index.
    """
    return documents <= INTERACTIVE_DOCUMENTS and size <= INTERACTIVE_BYTES and pending <= INTERACTIVE_PENDING


class LaneOrder(round_robin_cycle):  # type: ignore[misc]  # kombu has no types
    """The order in which a worker asks its queues: the interactive lane first, then the others in turn.

    The others go first after `INTERACTIVE_TURNS` interactive messages in a row. kombu's own order would give the
    interactive lane one turn of eighteen. Celery gets the class by its path.
    """

    def __init__(self, it: list[str] | None = None) -> None:
        super().__init__(it)
        self._in_a_row = 0

    def consume(self, n: int) -> list[str]:
        """Return the queues to ask, the most urgent first. `n` is their number."""
        interactive_first = self._in_a_row < INTERACTIVE_TURNS
        return sorted(self.items[:n], key=lambda queue: _is_interactive_queue(queue) != interactive_first)

    def rotate(self, last_used: str) -> str:
        """Count the message that was taken from a queue, and move the queue behind the others of its kind."""
        self._in_a_row = self._in_a_row + 1 if _is_interactive_queue(last_used) else 0
        return str(super().rotate(last_used))


def _is_interactive_queue(queue: str) -> bool:
    return not is_load_queue(queue) and queue != INGEST_QUEUE


def _load_queue(encoder: str, number: int) -> str:
    return f"sparsewell.encode.{encoder}.load.{number}"
