"""Publishes task messages on Redis without importing Celery: message protocol 2 through kombu."""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import redis.exceptions
from kombu import Connection, Producer
from kombu.exceptions import OperationalError
from kombu.utils.json import loads

from services.contracts import ENCODE_TASK, INGEST_QUEUE, INGEST_TASK, EncodeMessage, IngestMessage, encode_queue
from services.errors import BackendUnavailable, Overloaded, SparsewellError
from services.telemetry import tracing
from services.telemetry.context import CARRIED, bound

# Redis is not on the durability path: waiting for it longer than this would only make the caller late.
CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 2.0
# After a failure nobody waits for it again for so long: writers queue behind one another here.
AWAY_SECONDS = 2.0
# Header of our messages: milliseconds since 1970 at which it was sent.
SENT_AT = "sent_at"
# Keys that count how often a message's worker died. Longer than any redelivery.
_BEGAN = "sparsewell:began:"
_BEGAN_SECONDS = 7 * 86400


class Publisher:
    """Sends messages over one connection, from any thread, one at a time."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._away_until = 0.0

    def encode(self, encoder: str, message: EncodeMessage) -> None:
        """Asks the workers that hold `encoder` to encode journalled documents.

        Raises BackendUnavailable, and Overloaded (`redis_full`) when Redis has no memory left.
        """
        self._send(ENCODE_TASK, encode_queue(encoder), message.model_dump(mode="json"))

    def ingest(self, message: IngestMessage) -> None:
        """Hands raw documents to the workers. Raises BackendUnavailable, and Overloaded (`redis_full`)."""
        self._send(INGEST_TASK, INGEST_QUEUE, message.model_dump(mode="json"))

    def depth(self, queue: str) -> int:
        """Messages waiting in a queue. Raises BackendUnavailable."""
        with self._lock:
            try:
                return int(self._open().default_channel.client.llen(queue))
            except Exception as error:
                raise self._failed(error) from error

    def held_bytes(self, queue: str) -> int | None:
        """Memory of the messages that wait in a queue, as Redis estimates it from a few of them.

        None where Redis does not say (the command may be forbidden). Raises BackendUnavailable.
        """
        with self._lock:
            try:
                return int(self._open().default_channel.client.memory_usage(queue) or 0)
            except redis.exceptions.ResponseError:
                return None
            except Exception as error:
                raise self._failed(error) from error

    def oldest(self, queue: str) -> int | None:
        """When the message that is taken next was sent (milliseconds since 1970); None for an empty queue.

        Queues are first in, first out: every message that was sent before has been taken, or is lost. A message of
        another producer that says nothing of its time counts as sent in 1970. Raises BackendUnavailable.
        """
        with self._lock:
            try:
                raw = self._open().default_channel.client.lindex(queue, -1)
            except Exception as error:
                raise self._failed(error) from error
        if raw is None:
            return None
        try:
            return int(loads(raw)["headers"][SENT_AT])
        except (ValueError, KeyError, TypeError):
            return 0

    def began(self, message_id: str) -> int:
        """Counts that a worker begins with a message that came back; how often that was so since `ended`.

        Raises BackendUnavailable, and Overloaded (`redis_full`).
        """
        key = _BEGAN + message_id
        with self._lock:
            try:
                with self._open().default_channel.client.pipeline() as pipe:
                    count, _ = pipe.incr(key).expire(key, _BEGAN_SECONDS).execute()
                    return int(count)
            except Exception as error:
                raise self._failed(error) from error

    def ended(self, message_id: str) -> None:
        """The worker lives: the count begins anew. Raises BackendUnavailable."""
        with self._lock:
            try:
                self._open().default_channel.client.delete(_BEGAN + message_id)
            except Exception as error:
                raise self._failed(error) from error

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _send(self, task: str, queue: str, body: dict[str, Any]) -> None:
        task_id = str(uuid.uuid4())
        headers = {
            "lang": "py", "task": task, "id": task_id, "root_id": task_id, "parent_id": None, "group": None,
            "retries": 0, "eta": None, "expires": None, "timelimit": [None, None],
            # never the documents themselves: brokers' tools and worker logs print these two
            "argsrepr": "()", "kwargsrepr": "{...}",
            SENT_AT: time.time_ns() // 1_000_000,
        }  # fmt: skip
        headers |= {name: value for name, value in bound().items() if name in CARRIED}
        attributes = {"messaging.system": "redis", "messaging.destination.name": queue}
        with tracing.span(f"send {task}", "producer", attributes):
            self._publish(queue, headers | tracing.headers(), body)

    def _publish(self, queue: str, headers: dict[str, Any], body: dict[str, Any]) -> None:
        no_workflow = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        with self._lock:
            if time.monotonic() < self._away_until:
                raise BackendUnavailable("redis_unavailable", "Redis did not answer a moment ago.")
            for attempt in (1, 2):  # a connection that Redis closed meanwhile deserves a second one
                try:
                    Producer(self._open()).publish(
                        [[], body, no_workflow], exchange="", routing_key=queue, serializer="json",
                        headers=headers, correlation_id=headers["id"], retry=False,
                    )  # fmt: skip
                except Exception as error:
                    failure = self._failed(error)
                    if isinstance(failure, Overloaded):
                        raise failure from error
                    if attempt == 2 or _hangs(error):
                        self._away_until = time.monotonic() + AWAY_SECONDS
                        raise failure from error
                else:
                    return

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = Connection(
                self._url,
                transport_options={
                    "socket_connect_timeout": CONNECT_SECONDS,
                    "socket_timeout": ANSWER_SECONDS,
                    "max_retries": 0,
                },
            )
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # it is broken already; nothing is lost with it
                connection.release()

    def _failed(self, error: Exception) -> SparsewellError:
        if any(isinstance(one, redis.exceptions.OutOfMemoryError) for one in _causes(error)):
            return Overloaded(
                "redis_full", "Redis has no memory left for messages; the workers have to catch up first."
            )
        self._drop()
        reason = "no connection" if isinstance(error, OperationalError) else type(error).__name__
        return BackendUnavailable("redis_unavailable", f"Redis did not take the message ({reason}).")


def _hangs(error: BaseException) -> bool:
    """Whether Redis took the connection and did not answer: waiting a second time would double the wait."""
    return any(isinstance(one, TimeoutError | redis.exceptions.TimeoutError) for one in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
