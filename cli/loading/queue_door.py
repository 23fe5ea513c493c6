"""The queue's door: batches as `sparsewell.ingest.v1` messages, without HTTP."""

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from cli.loading.api_door import Sent
from cli.loading.refusal import Refusal
from cli.loading.source import Batch
from services.contracts import INGEST_QUEUE, IngestMessage
from services.queue import Publisher
from services.retry import retry

# Redis holds the whole queue in memory, so a long file waits until the workers have caught up.
MOST_WAITING = 50
MOST_BYTES = 32 * 1024**2
# After this long without room the user is told what may be missing.
SUSPICIOUS_SECONDS = 30.0
Numbered = tuple[int, dict[str, Any]]


class QueueDoor:
    """A producer. All messages of a load share one job."""

    def __init__(
        self, redis_url: str, index: str, job: str | None, patience: float, say: Callable[[str], None]
    ) -> None:
        self.job = job or uuid.uuid4().hex
        self._index = index
        self._publisher = Publisher(redis_url)
        self._patience = patience
        self._say = say

    def send(self, batch: Batch) -> Sent:
        """Publishes a batch. Lines that are no JSON objects are refused here; the rest is judged by the workers."""
        sent = Sent([self.job])
        documents, sent.refusals = parsed(batch)
        for group in contiguous(documents):
            message = IngestMessage(
                index=self._index,
                job=self.job,
                sent_at=time.time_ns() // 1000,
                # places in the job are line numbers of the file
                offset=group[0][0] - 1,
                documents=tuple(document for _, document in group),
            )
            retry(self._wait_for_room, self._patience, self._say)
            retry(lambda message=message: self._publisher.ingest(message), self._patience, self._say)  # type: ignore[misc]
            sent.accepted += len(group)
        return sent

    def close(self) -> None:
        self._publisher.close()

    def _wait_for_room(self) -> None:
        since = time.monotonic()
        while full(self._publisher.depth(INGEST_QUEUE), self._publisher.held_bytes(INGEST_QUEUE)):
            if time.monotonic() - since > SUSPICIOUS_SECONDS:
                since = time.monotonic()
                self._say(f"No room in the queue for {SUSPICIOUS_SECONDS:.0f} s: is a worker running?")
            time.sleep(0.1)


def full(messages: int, held: int | None) -> bool:
    """Whether the queue holds enough for now; `held` in bytes, None for a Redis that does not say."""
    return messages > MOST_WAITING or (messages > 0 and held is not None and held > MOST_BYTES)


def parsed(batch: Batch) -> tuple[list[Numbered], list[Refusal]]:
    """The documents of a batch with their line numbers, and the lines that are none."""
    documents: list[Numbered] = []
    refusals = []
    for number, text in batch.lines:
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            refusals.append(Refusal(number, None, "invalid_json", f"Not JSON in UTF-8: {error}"))
            continue
        if isinstance(value, dict):
            documents.append((number, value))
        else:
            refusals.append(Refusal(number, None, "not_an_object", "A document is a JSON object with `id` and `text`."))
    return documents, refusals


def contiguous(documents: list[Numbered]) -> Iterator[list[Numbered]]:
    """Runs of documents on neighbouring lines: a message counts its documents on from its offset."""
    group: list[Numbered] = []
    for one in documents:
        if group and one[0] != group[-1][0] + 1:
            yield group
            group = []
        group.append(one)
    if group:
        yield group
