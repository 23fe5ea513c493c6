"""The Celery application of the workers. Nothing happens at import: `create_celery` makes one from settings."""

import logging
from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_process_init, worker_process_shutdown
from pydantic import ValidationError

from indexer.encode_task import run_encode
from indexer.ingest_task import run_ingest
from indexer.observed_task import observed_task
from indexer.quiet import complaint, install
from indexer.runtime import LoadEncoder, Runtime, load_configured
from indexer.settings import WorkerSettings
from services.contracts import ENCODE_TASK, INGEST_QUEUE, INGEST_TASK, EncodeMessage
from services.settings import Settings
from services.telemetry import tracing

log = logging.getLogger(__name__)


def configuration(settings: Settings, worker: WorkerSettings) -> dict[str, Any]:
    """Celery's settings; each is there for a reason, and docs/decisions/0060 has the measurements."""
    return {
        "broker_url": settings.redis_address,
        "broker_transport": "indexer.transport:TolerantTransport",
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
        # go round for ever, what comes back is counted (indexer.triage).
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
    settings: Settings, worker: WorkerSettings | None = None, load: LoadEncoder = load_configured
) -> Celery:
    """The application with both tasks. Neither Redis nor OpenSearch is asked, no encoder is loaded.

    `load` makes the encoder, once in each worker process.
    """
    worker = worker or WorkerSettings.read()
    app = Celery("sparsewell", set_as_current=False)
    app.conf.update(configuration(settings, worker))
    runtime = Runtime(settings, worker, load)
    install()
    setup_logging.connect(_leave_logging_alone)
    worker_process_init.connect(_trace)
    worker_process_shutdown.connect(_send_spans)

    @app.task(name=ENCODE_TASK, bind=True, typing=False)  # type: ignore[untyped-decorator]
    def encode(self: Any, *_: object, **body: Any) -> dict[str, int]:
        """EncodeMessage as keyword arguments."""
        with observed_task("encode", self.request, body) as observed:
            try:
                message = EncodeMessage.model_validate(body)
            except ValidationError as error:
                log.error("invalid_message: %s", complaint(error))
                return observed.ended({"invalid": 1})
            return observed.ended(run_encode(runtime, message, redelivered=redelivered(self)))

    @app.task(name=INGEST_TASK, bind=True, typing=False)  # type: ignore[untyped-decorator]
    def ingest(self: Any, *_: object, **body: Any) -> dict[str, int]:
        """IngestMessage as keyword arguments."""
        with observed_task("ingest", self.request, body) as observed:
            return observed.ended(run_ingest(runtime, body, self.request.id, redelivered=redelivered(self)))

    return app


def redelivered(task: Any) -> bool:
    """Whether a worker took this message before and did not finish."""
    return bool((task.request.delivery_info or {}).get("redelivered"))


def _leave_logging_alone(**_: object) -> None:
    """A receiver of this signal is all that Celery asks before it leaves logging as the process has set it up."""


def _trace(**_: object) -> None:
    """Of a process of the pool: what sends spans does not survive a fork."""
    tracing.start("worker")


def _send_spans(**_: object) -> None:
    tracing.stop()
