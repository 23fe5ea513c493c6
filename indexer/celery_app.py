"""The Celery application of the workers. Nothing happens at import: `create_celery` makes one from settings.

Redis transport that survives what is no message, and a Redis that is full: kombu's own would end the worker.
"""

import logging
from typing import Any

from celery import Celery
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
from services.queue.messages import ENCODE_TASK, INGEST_QUEUE, INGEST_TASK, EncodeMessage
from services.settings import Settings
from services.telemetry import tracing

log = logging.getLogger(__name__)


class TolerantQoS(redis.QoS):  # type: ignore[misc]
    """Goes on while Redis refuses writes (`maxmemory`, noeviction): working is what makes room there.

    A message that is taken then cannot be written down as taken. It is kept here until it is acknowledged; should this
    process be killed before, an encode message is replaced by the sweeper, an ingest message is lost.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._unwritten: dict[str, Any] = {}

    def append(self, message: Any, delivery_tag: str) -> None:
        try:
            super().append(message, delivery_tag)
        except OutOfMemoryError:
            log.warning("redis_full: a message was taken and cannot be written down as taken")
            self._unwritten[delivery_tag] = message
            virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        self._unwritten.pop(delivery_tag, None)
        try:
            super().ack(delivery_tag)
        except OutOfMemoryError:
            # A full Redis refuses whole transactions, even those that only remove.
            with self.channel.conn_or_acquire() as client:
                client.zrem(self.unacked_index_key, delivery_tag)
                client.hdel(self.unacked_key, delivery_tag)
            virtual.QoS.ack(self, delivery_tag)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        try:
            if tag in self._unwritten:
                self._give_back(self._unwritten[tag], client, leftmost)
                del self._unwritten[tag]
            else:
                super().restore_by_tag(tag, client, leftmost)
        except OutOfMemoryError:
            # It stays among the taken ones, or here, and is given back when there is room.
            log.warning("redis_full: a message cannot be given back yet")

    def restore_visible(self, *arguments: Any, **options: Any) -> None:
        for tag in [tag for tag in self._unwritten if tag not in self._delivered or tag in self._dirty]:
            self.restore_by_tag(tag, leftmost=True)
        try:
            super().restore_visible(*arguments, **options)
        except OutOfMemoryError:
            log.warning("redis_full: messages of workers that died wait until there is room")

    def _give_back(self, message: Any, client: Any, leftmost: bool) -> None:
        """As the channel does it, which would swallow the error and log the whole message."""
        payload, where = message._raw, message.delivery_info
        payload["headers"]["redelivered"] = True
        payload["properties"]["delivery_info"]["redelivered"] = True
        with self.channel.conn_or_acquire(client) as connection:
            push = connection.lpush if leftmost else connection.rpush
            for queue in self.channel._lookup(where["exchange"], where["routing_key"]):
                push(self.channel._q_for_pri(queue, self.channel._get_message_priority(payload, reverse=False)),
                     dumps(payload))  # fmt: skip


class TolerantChannel(redis.Channel):  # type: ignore[misc]
    """Drops items that are not kombu messages. Without it one such item ends the worker process that takes it."""

    QoS = TolerantQoS

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("undecodable_message: an item that is no message was deleted (%s)", type(error).__name__)
            raise Empty from None


class TolerantTransport(redis.Transport):  # type: ignore[misc]
    """kombu's Redis transport with `TolerantChannel`."""

    Channel = TolerantChannel


def celery_configuration(settings: Settings, worker: WorkerSettings) -> dict[str, Any]:
    """Celery's settings; each is there for a reason, and docs/decisions/0060 has the measurements."""
    return {
        "broker_url": settings.redis_address,
        "broker_transport": "indexer.celery_app:TolerantTransport",
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            # A message that nobody acknowledged for this long is delivered again: far above the longest task.
            "visibility_timeout": worker.redelivery,
            # Looked for every 5 s. By default it is every 100 s: each tenth of rounds of 10 s.
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": 5.0,
            # A Redis that vanished without closing its connections: without this an acknowledgement waits for ever.
            "socket_timeout": 30.0,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        # Acknowledged when it is done. A child that dies gives its message back; so that a document that kills cannot
        # go round for ever, what comes back is counted (indexer.encode_task).
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_acks_on_timeout": False,
        # A message whose process died goes back after this long (by default 10 s, for results that are still in the
        # pipe; ours has none that anybody waits for), when the pool is looked after next, which it is every 5 s.
        "worker_lost_wait": 2.0,
        "task_time_limit": worker.task_limit,
        # No process holds messages that another one could work on.
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_soft_shutdown_timeout": worker.soft_shutdown,
        # A child loads its encoder at its first task, but a loaded machine is slow to fork as well.
        "worker_proc_alive_timeout": 60.0,
        # States are in OpenSearch. A result backend would be a second truth, and a second thing to be down.
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
    """The application with both tasks. Neither Redis nor OpenSearch is asked, no encoder is loaded.

    `load` makes the encoder, once in each worker process.
    """
    worker = worker or WorkerSettings.read()
    app = Celery("sparsewell", set_as_current=False)
    app.conf.update(celery_configuration(settings, worker))
    runtime = Runtime(settings, worker, load)
    install_body_filter()
    setup_logging.connect(_keep_logging_configuration)
    worker_process_init.connect(_trace)
    worker_process_shutdown.connect(_send_spans)

    @app.task(name=ENCODE_TASK, bind=True, typing=False)  # type: ignore[untyped-decorator]
    def encode(self: Any, *_: object, **body: Any) -> dict[str, int]:
        """EncodeMessage as keyword arguments."""
        with observe_task("encode", self.request, body) as observed:
            try:
                message = EncodeMessage.model_validate(body)
            except ValidationError as error:
                log.error("invalid_message: %s", describe_validation_error(error))
                return observed.ended({"invalid": 1})
            return observed.ended(run_encode(runtime, message, redelivered=is_redelivered(self)))

    @app.task(name=INGEST_TASK, bind=True, typing=False)  # type: ignore[untyped-decorator]
    def ingest(self: Any, *_: object, **body: Any) -> dict[str, int]:
        """IngestMessage as keyword arguments."""
        with observe_task("ingest", self.request, body) as observed:
            return observed.ended(run_ingest(runtime, body, self.request.id, redelivered=is_redelivered(self)))

    return app


def is_redelivered(task: Any) -> bool:
    """Whether a worker took this message before and did not finish."""
    return bool((task.request.delivery_info or {}).get("redelivered"))


def _keep_logging_configuration(**_: object) -> None:
    """A receiver of this signal is all that Celery asks before it leaves logging as the process has set it up."""


def _trace(**_: object) -> None:
    """Of a process of the pool: what sends spans does not survive a fork."""
    tracing.start_tracing("worker")


def _send_spans(**_: object) -> None:
    tracing.stop_tracing()
