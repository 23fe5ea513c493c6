"""The Celery application of the workers, and a Redis transport that survives errors.

`create_celery` creates the application from settings; an import has no side effects. Celery's settings are in
`celery_configuration`, with their reasons (docs/decisions/0060). kombu's own Redis transport ends the worker on an
item that is not a message and on a full Redis; `TolerantTransport` goes on.
"""

import logging
import time
from typing import Any

from celery import Celery
from celery.exceptions import Reject
from celery.signals import setup_logging, worker_process_init, worker_process_shutdown
from kombu.transport import redis, virtual
from kombu.transport.virtual.base import Empty
from kombu.utils.json import dumps
from pydantic import ValidationError
from redis.exceptions import OutOfMemoryError

from indexer.encode_task import run_encode
from indexer.ingest_task import run_ingest
from indexer.runtime import LoadEncoder, Runtime, WorkerSettings, load_configured_encoder
from indexer.task_logging import describe_validation_error, install_body_filter, observe_task
from services.errors import Overloaded, SparsewellError
from services.queue.lanes import INGEST_QUEUE, is_load_queue
from services.queue.messages import CONTINUED_HEADER, ENCODE_TASK, INGEST_TASK, EncodeMessage
from services.settings import Settings
from services.telemetry import tracing

log = logging.getLogger(__name__)

# A message returns to its queue after this time, while the installation of Redis is unknown or another one.
UNCLAIMED_PAUSE_SECONDS = 2.0


def celery_configuration(settings: Settings, worker: WorkerSettings) -> dict[str, Any]:
    """Return Celery's settings. The measurements behind them are in docs/decisions/0060."""
    return {
        "broker_url": settings.redis_address,
        "broker_transport": "indexer.celery_app:TolerantTransport",
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            # An unacknowledged message is delivered again after this time, which is far above the longest task.
            "visibility_timeout": worker.redelivery,
            # The transport looks for such messages every 5 s. The default is every 100 s: each tenth round of 10 s.
            "queue_order_strategy": "services.queue.lanes:LaneOrder",
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": 5.0,
            # Without a timeout an acknowledgement waits forever for a Redis that vanished without closing connections.
            "socket_timeout": 30.0,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        # A message is acknowledged after its task, and returned when the process dies. Redelivered messages are
        # counted (indexer.encode_task), so that a document that kills its worker does not return forever.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_acks_on_timeout": False,
        # The message of a dead process returns after this time, at the next check of the pool (every 5 s). The default
        # of 10 s is for results that are still in the pipe; these tasks have none.
        "worker_lost_wait": 2.0,
        "task_time_limit": worker.task_limit,
        # A process must not hold messages that another process could handle.
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_soft_shutdown_timeout": worker.soft_shutdown,
        # A child loads its encoder at its first task, but a fork is slow as well on a loaded machine.
        "worker_proc_alive_timeout": 60.0,
        # The states are in OpenSearch. A result backend would be a second source of truth that could fail.
        "result_backend": None,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": INGEST_QUEUE,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_send_task_events": False,
        "enable_utc": True,
    }


def create_celery(
    settings: Settings, worker: WorkerSettings | None = None, load: LoadEncoder = load_configured_encoder
) -> Celery:
    """Create the application with both tasks. It connects to no service and loads no encoder.

    `load` loads the encoder, once in each worker process.
    """
    worker = worker or WorkerSettings.read()
    app = Celery("sparsewell", set_as_current=False)
    app.conf.update(celery_configuration(settings, worker))
    runtime = Runtime(settings, worker, load)
    install_body_filter()
    setup_logging.connect(_keep_logging_configuration)
    worker_process_init.connect(_start_tracing)
    worker_process_shutdown.connect(_stop_tracing)

    @app.task(name=ENCODE_TASK, bind=True, typing=False)  # type: ignore[untyped-decorator]  # Celery has no types
    def encode(self: Any, *_: object, **body: Any) -> dict[str, int]:
        """Handle an EncodeMessage, given as keyword arguments."""
        with observe_task("encode", self.request, body) as observation:
            try:
                message = EncodeMessage.model_validate(body)
            except ValidationError as error:
                log.error("invalid_message: %s", describe_validation_error(error))
                return observation.record({"invalid": 1})
            require_own_redis(runtime)
            return observation.record(
                run_encode(
                    runtime,
                    message,
                    redelivered=is_redelivered(self),
                    loading=is_load_queue(_queue_of(self)),
                    continued=_continued_of(self),
                )
            )

    @app.task(name=INGEST_TASK, bind=True, typing=False)  # type: ignore[untyped-decorator]  # Celery has no types
    def ingest(self: Any, *_: object, **body: Any) -> dict[str, int]:
        """Handle an IngestMessage, given as keyword arguments."""
        with observe_task("ingest", self.request, body) as observation:
            require_own_redis(runtime)
            return observation.record(run_ingest(runtime, body, self.request.id, redelivered=is_redelivered(self)))

    return app


def require_own_redis(runtime: Runtime) -> None:
    """Return the message to its queue unless Redis belongs to this installation. Ask once in each process.

    A worker that starts while OpenSearch is away cannot compare the mark at its start (docs/decisions/0262). It goes on
    while Redis is full, because finished work makes room. Raises celery's Reject.
    """
    if runtime.claim.is_verified:
        return
    try:
        runtime.claim.claim(runtime.search)
    except Overloaded:
        return
    except SparsewellError as error:
        if runtime.should_log(str(error)):
            log.error("messages return to their queue: %s", error)
        time.sleep(UNCLAIMED_PAUSE_SECONDS)
        raise Reject(error.code, requeue=True) from None


def _queue_of(task: Any) -> str:
    """Return the queue that the message was taken from; empty if it is unknown."""
    return str((task.request.delivery_info or {}).get("routing_key") or "")


def _continued_of(task: Any) -> frozenset[str]:
    """Return the documents of the message of which an earlier task encoded a part."""
    named = task.request.get(CONTINUED_HEADER)
    return frozenset(name for name in named if isinstance(name, str)) if isinstance(named, list) else frozenset()


def is_redelivered(task: Any) -> bool:
    """Return whether another worker took this message before and did not finish it."""
    return bool((task.request.delivery_info or {}).get("redelivered"))


def _keep_logging_configuration(**_: object) -> None:
    """Do nothing: any receiver of this signal makes Celery keep the process's logging configuration."""


def _start_tracing(**_: object) -> None:
    """Start tracing in a child process: the exporter's thread does not survive a fork."""
    tracing.start_tracing("worker")


def _stop_tracing(**_: object) -> None:
    tracing.stop_tracing()


class TolerantQoS(redis.QoS):  # type: ignore[misc]  # kombu has no types
    """kombu's Redis QoS, which goes on while Redis refuses writes (`maxmemory`, noeviction): finished work makes room.

    Redis cannot record a message as taken then, so this process keeps the message until it is acknowledged. If the
    process is killed before, the sweeper replaces an encode message; an ingest message is lost.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._unrecorded: dict[str, Any] = {}

    def append(self, message: Any, delivery_tag: str) -> None:
        """Record a message as taken; keep it in this process while Redis is full."""
        try:
            super().append(message, delivery_tag)
        except OutOfMemoryError:
            log.warning("redis_full: Redis cannot record that a message was taken; this process keeps it")
            self._unrecorded[delivery_tag] = message
            virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message, also while Redis is full."""
        self._unrecorded.pop(delivery_tag, None)
        try:
            super().ack(delivery_tag)
        except OutOfMemoryError:
            # A full Redis refuses all transactions, even those that only remove.
            with self.channel.conn_or_acquire() as client:
                client.zrem(self.unacked_index_key, delivery_tag)
                client.hdel(self.unacked_key, delivery_tag)
            virtual.QoS.ack(self, delivery_tag)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Return a message to its queue; try again later while Redis is full."""
        try:
            if tag in self._unrecorded:
                self._requeue(self._unrecorded[tag], client, leftmost)
                del self._unrecorded[tag]
            else:
                super().restore_by_tag(tag, client, leftmost)
        except OutOfMemoryError:
            # The message stays recorded as taken, or in this process, until Redis has room.
            log.warning("redis_full: a message cannot return to its queue yet")

    def restore_visible(self, *arguments: Any, **options: Any) -> None:
        """Requeue the messages of dead workers, and this process's own messages whose connection was lost."""
        for tag in [tag for tag in self._unrecorded if tag not in self._delivered or tag in self._dirty]:
            self.restore_by_tag(tag, leftmost=True)
        try:
            super().restore_visible(*arguments, **options)
        except OutOfMemoryError:
            log.warning("redis_full: the messages of dead workers cannot return to their queues yet")

    def _requeue(self, message: Any, client: Any, leftmost: bool) -> None:
        """Push a message to its queue. The channel's own method would swallow the error and log the message's body."""
        payload, where = message._raw, message.delivery_info
        payload["headers"]["redelivered"] = True
        payload["properties"]["delivery_info"]["redelivered"] = True
        with self.channel.conn_or_acquire(client) as connection:
            push = connection.lpush if leftmost else connection.rpush
            for queue in self.channel._lookup(where["exchange"], where["routing_key"]):
                push(self.channel._q_for_pri(queue, self.channel._get_message_priority(payload, reverse=False)),
                     dumps(payload))  # fmt: skip


class TolerantChannel(redis.Channel):  # type: ignore[misc]  # kombu has no types
    """kombu's Redis channel, which drops items that are not kombu messages. They would end the worker process."""

    QoS = TolerantQoS

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("undecodable_message: an item that is not a message was deleted (%s)", type(error).__name__)
            raise Empty from None


class TolerantTransport(redis.Transport):  # type: ignore[misc]  # kombu has no types
    """kombu's Redis transport with `TolerantChannel`. `celery_configuration` names it by its import path."""

    Channel = TolerantChannel
