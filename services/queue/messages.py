"""Messages on the queues: their schemas, names and queues, and a publisher that does not import Celery.

Tasks are Celery messages (protocol 2, JSON) on Redis lists, sent through kombu. So a producer can be any Celery client
or anything that writes such a message (docs/queue.md). The version of a contract is part of the task's name.
"""

import json
import sys
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

import redis.exceptions
from kombu import Connection, Producer
from kombu.exceptions import OperationalError
from kombu.utils.json import loads
from pydantic import BaseModel, ConfigDict, Field, field_validator

from services.dates import now_ms
from services.documents.document import MAX_CLIENT_VERSION
from services.errors import BackendUnavailable, Overloaded, SparsewellError
from services.queue.lanes import INGEST_QUEUE, interactive_queue, load_queue
from services.telemetry import tracing
from services.telemetry.logs import PROPAGATED_FIELDS, current_log_context

ENCODE_TASK: Final = "sparsewell.encode.v1"
INGEST_TASK: Final = "sparsewell.ingest.v1"
MAX_MESSAGE_DOCUMENTS: Final = 1000

# Redis is not on the durability path, so a longer wait would only delay the caller.
CONNECT_SECONDS = 1.0
RESPONSE_SECONDS = 2.0
# Circuit breaker: after a failure, calls fail at once for this long. Otherwise writers would queue behind each other.
CIRCUIT_OPEN_SECONDS = 2.0
# Header of our messages: the time of sending, in milliseconds since 1970.
SENT_AT_HEADER = "sent_at"
# Documents of which an earlier task encoded a part (indexer.partial_encoding).
CONTINUED_HEADER = "continued"
# Redis key with the mark of the installation that the messages belong to.
_CLAIM_KEY = "sparsewell:installation"
# Redis keys that count the attempts of redelivered messages. They outlive any redelivery.
_ATTEMPTS_KEY_PREFIX = "sparsewell:began:"
_ATTEMPTS_TTL_SECONDS = 7 * 86400


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EncodeMessage(_Message):
    """Documents in the journal that wait for their vectors. Senders are the API, the ingest task and the sweeper."""

    contract: Literal["sparsewell.encode.v1"] = ENCODE_TASK
    index: str = Field(description="name of the index, as in the REST paths")
    ids: tuple[str, ...] = Field(min_length=1, max_length=MAX_MESSAGE_DOCUMENTS)

    @field_validator("ids")
    @classmethod
    def _validate_ids(cls, ids: tuple[str, ...]) -> tuple[str, ...]:
        "".join(ids).encode()  # half a surrogate pair raises a ValueError
        return ids

    generation: int | None = Field(None, ge=1, description="generation of the index. None: the one that is searched")


class IngestMessage(_Message):
    """Raw documents from a producer. They are durable once a worker has written them to the journal, not before.

    The job records each refused document with its reason.
    """

    contract: Literal["sparsewell.ingest.v1"] = INGEST_TASK
    index: str = Field(description="name of an index that exists")
    job: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="job that the documents belong to; several messages may share one. None: a job per message",
    )
    sent_at: int | None = Field(
        None,
        ge=0,
        le=MAX_CLIENT_VERSION,
        description="microseconds since 1970, from the producer's clock. It is the version of documents without one, "
        "so that a repeated delivery stores the same. None: the time at which a worker received the message",
    )
    offset: int = Field(
        0,
        ge=0,
        description="documents of the job in earlier messages; refusals report the position in the job",
    )
    documents: tuple[dict[str, Any], ...] = Field(
        min_length=1, max_length=MAX_MESSAGE_DOCUMENTS, description="as in POST /v1/indexes/{index}/documents"
    )


CONTRACTS: Final[dict[str, type[BaseModel]]] = {ENCODE_TASK: EncodeMessage, INGEST_TASK: IngestMessage}


def encode_messages(index: str, ids: Sequence[str], size: int, generation: int) -> list[EncodeMessage]:
    """Return messages of at most `size` documents each, in the order of the ids."""
    return [
        EncodeMessage(index=index, ids=tuple(ids[at : at + size]), generation=generation)
        for at in range(0, len(ids), size)
    ]


def message_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each message by task name, as published in docs/contracts/."""
    return {name: model.model_json_schema() for name, model in CONTRACTS.items()}


def write_schemas(directory: Path) -> None:
    """Write the schemas to a directory, one file a message."""
    for name, schema in message_schemas().items():
        (directory / f"{name}.schema.json").write_text(json.dumps(schema, indent=2) + "\n")


class Publisher:
    """A sender of messages over one connection. Threads may share it; it sends one message at a time."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._retry_at = 0.0

    def encode(
        self, encoder: str, message: EncodeMessage, *, interactive: bool = False, continued: Collection[str] = ()
    ) -> None:
        """Ask the workers that hold `encoder` to encode journalled documents.

        `interactive`: the documents pass those of loads. `continued`: the documents of which a part is encoded; a
        header names them, because former workers refuse a message with another member.

        Raises BackendUnavailable, and Overloaded (`redis_full`) when Redis has no memory left.
        """
        queue = interactive_queue(encoder) if interactive else load_queue(encoder, message.index)
        more = {CONTINUED_HEADER: sorted(continued)} if continued else {}
        self._send(ENCODE_TASK, queue, message.model_dump(mode="json"), more)

    def ingest(self, message: IngestMessage) -> None:
        """Send raw documents to the workers. Raises BackendUnavailable, and Overloaded (`redis_full`)."""
        self._send(INGEST_TASK, INGEST_QUEUE, message.model_dump(mode="json"))

    def depth(self, *queues: str) -> int:
        """Return the number of messages waiting in these queues together. Raises BackendUnavailable."""
        with self._client() as client, client.pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.llen(queue)
            return sum(map(int, pipe.execute()))

    def clock_lead(self) -> float | None:
        """Return how far the clock of this host is ahead of Redis's, in seconds, to half of the time of the answer.

        None if Redis does not answer that (the command may be forbidden). Raises BackendUnavailable.
        """
        with self._client() as client, suppress(redis.exceptions.ResponseError):
            began = time.time()
            seconds, microseconds = client.time()
            return float((began + time.time()) / 2 - seconds - microseconds / 1e6)
        return None

    def queued_bytes(self, queue: str) -> int | None:
        """Return the memory of the messages in a queue, as Redis estimates it from a sample.

        None if Redis does not answer that (the command may be forbidden). Raises BackendUnavailable.
        """
        with self._client() as client, suppress(redis.exceptions.ResponseError):
            return int(client.memory_usage(queue) or 0)
        return None

    def oldest_sent_at(self, *queues: str) -> int | None:
        """Return when the oldest waiting message was sent (milliseconds since 1970), or None for empty queues.

        Queues are first in, first out, so every message sent before that has been received or is lost. A message from
        another producer without a time counts as sent in 1970. Raises BackendUnavailable.
        """
        with self._client() as client, client.pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.lindex(queue, -1)
            heads = pipe.execute()
        return min((_sent_at(raw) for raw in heads if raw is not None), default=None)

    def count_attempt(self, message_id: str) -> int:
        """Count one more attempt at a redelivered message and return the attempts since `clear_attempts`.

        Raises BackendUnavailable, and Overloaded (`redis_full`).
        """
        key = _ATTEMPTS_KEY_PREFIX + message_id
        with self._client() as client, client.pipeline() as pipe:
            count, _ = pipe.incr(key).expire(key, _ATTEMPTS_TTL_SECONDS).execute()
            return int(count)

    def clear_attempts(self, message_id: str) -> None:
        """Reset the count of attempts, because the worker survived the message. Raises BackendUnavailable."""
        with self._client() as client:
            client.delete(_ATTEMPTS_KEY_PREFIX + message_id)

    def read_value(self, key: str) -> bytes | None:
        """Return a value that `write_value` stored; None if it expired or was lost. Raises BackendUnavailable."""
        with self._client() as client:
            value: bytes | None = client.get(key)
        return value

    def write_value(self, key: str, value: bytes, seconds: int) -> None:
        """Store a value that may be lost for some seconds.

        Raises BackendUnavailable, and Overloaded (`redis_full`).
        """
        with self._client() as client:
            client.set(key, value, ex=seconds)

    def claim(self, mark: str) -> str:
        """Write the mark of an installation unless there is a mark, and return the mark that Redis has now.

        Raises BackendUnavailable, and Overloaded (`redis_full`).
        """
        with self._client() as client, client.pipeline() as pipe:
            found = client.get(_CLAIM_KEY)  # A full Redis answers reads.
            if found is None:
                _, found = pipe.setnx(_CLAIM_KEY, mark).get(_CLAIM_KEY).execute()
            return str(found, errors="replace")

    def release_claim(self) -> None:
        """Delete the mark of the installation. Raises BackendUnavailable."""
        with self._client() as client:
            client.delete(_CLAIM_KEY)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def _send(self, task: str, queue: str, body: dict[str, Any], more: Mapping[str, Any] | None = None) -> None:
        task_id = str(uuid.uuid4())
        headers = {
            "lang": "py", "task": task, "id": task_id, "root_id": task_id, "parent_id": None, "group": None,
            "retries": 0, "eta": None, "expires": None, "timelimit": [None, None],
            # Brokers' tools and worker logs print these two, so they never hold documents.
            "argsrepr": "()", "kwargsrepr": "{...}",
            SENT_AT_HEADER: now_ms(),
            **(more or {}),
        }  # fmt: skip
        headers |= {name: value for name, value in current_log_context().items() if name in PROPAGATED_FIELDS}
        attributes = {"messaging.system": "redis", "messaging.destination.name": queue}
        with tracing.open_span(f"send {task}", "producer", attributes):
            self._publish(queue, headers | tracing.trace_headers(), body)

    def _publish(self, queue: str, headers: dict[str, Any], body: dict[str, Any]) -> None:
        no_workflow = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        with self._lock:
            if time.monotonic() < self._retry_at:
                raise BackendUnavailable("redis_unavailable", "Redis did not answer a moment ago; try again later.")
            for attempt in (1, 2):  # a second attempt replaces a connection that Redis has closed meanwhile
                try:
                    Producer(self._open()).publish(
                        [[], body, no_workflow], exchange="", routing_key=queue, serializer="json",
                        headers=headers, correlation_id=headers["id"], retry=False,
                    )  # fmt: skip
                except Exception as error:
                    failure = self._translate_error(error)
                    if isinstance(failure, Overloaded):
                        raise failure from error
                    if attempt == 2 or _is_response_timeout(error):
                        self._retry_at = time.monotonic() + CIRCUIT_OPEN_SECONDS
                        raise failure from error
                else:
                    return

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """Yield the connection's client of Redis, for one thread at a time, and translate the errors of the block."""
        with self._lock:
            try:
                yield self._open().default_channel.client
            except Exception as error:
                raise self._translate_error(error) from error

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = Connection(
                self._url,
                transport_options={
                    "socket_connect_timeout": CONNECT_SECONDS,
                    "socket_timeout": RESPONSE_SECONDS,
                    "max_retries": 0,
                },
            )
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # the connection is broken already
                connection.release()

    def _translate_error(self, error: Exception) -> SparsewellError:
        if any(isinstance(cause, redis.exceptions.OutOfMemoryError) for cause in _iter_causes(error)):
            return Overloaded("redis_full", "Redis has no memory left for messages until the workers catch up.")
        self._drop()
        reason = "no connection" if isinstance(error, OperationalError) else type(error).__name__
        return BackendUnavailable("redis_unavailable", f"Redis did not accept the message ({reason}).")


def _sent_at(raw: bytes) -> int:
    try:
        return int(loads(raw)["headers"][SENT_AT_HEADER])
    except (ValueError, KeyError, TypeError):
        return 0


def _is_response_timeout(error: BaseException) -> bool:
    """Return whether Redis accepted the connection but did not answer. A second attempt would only double the wait."""
    return any(isinstance(cause, TimeoutError | redis.exceptions.TimeoutError) for cause in _iter_causes(error))


def _iter_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the chain of its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
