"""What a worker says of each message: how long it waited and took, how it ended, and in log lines whose it was.

Keeps documents out of the logs: Celery prints the whole body of a message that it cannot handle.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery.exceptions import Reject
from celery.worker.consumer import consumer
from pydantic import ValidationError

from services.queue.messages import SENT_AT_HEADER
from services.telemetry import tracing
from services.telemetry.logs import JOB_FIELD, PROPAGATED_FIELDS, accept_request_id, current_log_context, log_context
from services.telemetry.metrics import ENCODED_DOCUMENTS, QUEUE_WAIT, TASK_DURATION, TASKS

_BODYLESS_MESSAGES = {
    consumer.UNKNOWN_FORMAT: "unknown_message: a message that is no Celery task was deleted from the queue",
    consumer.UNKNOWN_TASK_ERROR: "unknown_task: a message for a task that no worker here knows was deleted: %s",
    consumer.INVALID_TASK_ERROR: "invalid_task: a message that breaks Celery's protocol was deleted",
    consumer.MESSAGE_DECODE_ERROR: "undecodable_message: a message that is not JSON was deleted from the queue",
}


class BodyLogFilter(logging.Filter):
    """Replaces Celery's reports of unusable messages by ours, which have a stable code and no body."""

    def filter(self, record: logging.LogRecord) -> bool:
        plain = _BODYLESS_MESSAGES.get(record.msg)
        if plain is not None:
            name = str(record.args[0])[:200] if isinstance(record.args, tuple) and record.args else ""
            record.msg, record.args = plain, ((name,) if "%s" in plain else ())
            record.exc_info = None
        return True


def install_body_filter() -> None:
    """Filters the logger of Celery's consumer; more than once does no harm."""
    logger = logging.getLogger(consumer.__name__)
    if not any(isinstance(one, BodyLogFilter) for one in logger.filters):
        logger.addFilter(BodyLogFilter())


def describe_validation_error(error: ValidationError) -> str:
    """What is wrong with a message, without what it holds: the first error's place and words."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"])) or "message"
    return f"{place[:200]}: {first['msg'][:200]}"


log = logging.getLogger(__name__)

# Endings of a whole message; without one of them it was done.
_ENDINGS = ("invalid", "postponed", "mismatch", "gone")


@dataclass
class TaskObservation:
    """Filled in by the task."""

    task: str
    outcome: str = "done"
    said: str = "nothing"

    def ended(self, counts: dict[str, int]) -> dict[str, int]:
        """Takes what became of the documents, and gives it back."""
        self.outcome = next((name for name in _ENDINGS if name in counts), "done")
        self.said = ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "nothing"
        if self.task == "encode":
            for name, count in counts.items():
                ENCODED_DOCUMENTS.labels(name.replace(" ", "_")).inc(count)
        return counts


@contextmanager
def observe_task(task: str, request: Any, body: Mapping[str, Any]) -> Iterator[TaskObservation]:
    """Around the handling of one message; `request` is Celery's, which has the message's headers."""
    sent_at = request.get(SENT_AT_HEADER)
    if isinstance(sent_at, int | float):
        # Clocks of two machines: a message is never received before it was sent.
        QUEUE_WAIT.labels(task).observe(max(0.0, time.time() - sent_at / 1000))
    observed = TaskObservation(task)
    began = time.perf_counter()
    names = _names(task, request, body)
    with (
        log_context(**names),
        tracing.open_span(f"process sparsewell.{task}", "consumer", parent=_carrier(request)) as span,
    ):
        try:
            yield observed
        except Reject:
            observed.outcome = "requeued"
            raise
        except BaseException:
            observed.outcome = "failed"
            raise
        finally:
            span.set_attributes(
                {"messaging.message.id": str(request.id), "outcome": observed.outcome, **current_log_context()}
            )
            seconds = time.perf_counter() - began
            TASKS.labels(task, observed.outcome).inc()
            TASK_DURATION.labels(task).observe(seconds)
            # (Celery's own lines know nothing of whose it is)
            log.info("%s %s in %.2f s: %s", task, observed.outcome, seconds, observed.said)


def _carrier(request: Any) -> dict[str, str]:
    """Whose trace the message belongs to, as its sender said; an older one says nothing."""
    given = {name: request.get(name) for name in (tracing.TRACEPARENT_HEADER, tracing.TRACESTATE_HEADER)}
    return {name: value for name, value in given.items() if isinstance(value, str)}


def _names(task: str, request: Any, body: Mapping[str, Any]) -> dict[str, str | None]:
    """A producer's message may hold anything; of it only what is well-formed gets into a log line."""
    given = {name: request.get(name) for name in PROPAGATED_FIELDS} | {"index": body.get("index")}
    if task == "ingest":
        given[JOB_FIELD] = body.get(JOB_FIELD) or request.id  # as `run_ingest` calls it
    return {name: one for name, one in given.items() if isinstance(one, str) and accept_request_id(one) == one} | {
        "message_id": request.id
    }
