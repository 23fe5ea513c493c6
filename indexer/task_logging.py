"""Logs, metrics and traces of the messages that a worker handles.

`observe_task` measures the queue wait and the duration, counts the outcomes and sets the log context of a message.
`BodyLogFilter` keeps documents out of the logs: Celery logs the whole body of a message that it cannot handle.
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

log = logging.getLogger(__name__)

# Outcomes of a whole message. A message without such an outcome is done.
_OUTCOMES = ("invalid", "postponed", "mismatch", "gone")
# Celery's reports of unusable messages, without the body of the message.
_BODYLESS_MESSAGES = {
    consumer.UNKNOWN_FORMAT: "unknown_message: a message that is not a Celery task was deleted from the queue",
    consumer.UNKNOWN_TASK_ERROR: "unknown_task: a message for an unknown task was deleted: %s",
    consumer.INVALID_TASK_ERROR: "invalid_task: a message that breaks Celery's protocol was deleted",
    consumer.MESSAGE_DECODE_ERROR: "undecodable_message: a message that is not JSON was deleted from the queue",
}


@dataclass
class TaskObservation:
    """The outcome of one message, which the task records."""

    task: str
    outcome: str = "done"
    summary: str = "nothing"

    def record(self, counts: dict[str, int]) -> dict[str, int]:
        """Record the outcomes of the documents, and return them."""
        self.outcome = next((name for name in _OUTCOMES if name in counts), "done")
        self.summary = ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "nothing"
        if self.task == "encode":
            for name, count in counts.items():
                ENCODED_DOCUMENTS.labels(name.replace(" ", "_")).inc(count)
        return counts


@contextmanager
def observe_task(task: str, request: Any, body: Mapping[str, Any]) -> Iterator[TaskObservation]:
    """Observe the handling of one message inside the block. `request` is Celery's, with the message's headers."""
    sent_at = request.get(SENT_AT_HEADER)
    if isinstance(sent_at, int | float):
        # The clocks of two machines differ, so the wait may be negative.
        QUEUE_WAIT.labels(task).observe(max(0.0, time.time() - sent_at / 1000))
    observation = TaskObservation(task)
    began = time.perf_counter()
    with (
        log_context(**_log_fields(task, request, body)),
        tracing.open_span(f"process sparsewell.{task}", "consumer", parent=_trace_context(request)) as span,
    ):
        try:
            yield observation
        except Reject:
            observation.outcome = "requeued"
            raise
        except BaseException:
            observation.outcome = "failed"
            raise
        finally:
            span.set_attributes(
                {"messaging.message.id": str(request.id), "outcome": observation.outcome, **current_log_context()}
            )
            seconds = time.perf_counter() - began
            TASKS.labels(task, observation.outcome).inc()
            TASK_DURATION.labels(task).observe(seconds)
            # Celery's own log lines lack the index and the job.
            log.info("%s %s in %.2f s: %s", task, observation.outcome, seconds, observation.summary)


def _trace_context(request: Any) -> dict[str, str]:
    """Return the trace headers of a message (W3C Trace Context); older senders set none."""
    headers = {name: request.get(name) for name in (tracing.TRACEPARENT_HEADER, tracing.TRACESTATE_HEADER)}
    return {name: value for name, value in headers.items() if isinstance(value, str)}


def _log_fields(task: str, request: Any, body: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the log fields of a message. A producer may send anything, so only well-formed values are logged."""
    fields = {name: request.get(name) for name in PROPAGATED_FIELDS} | {"index": body.get("index")}
    if task == "ingest":
        fields[JOB_FIELD] = body.get(JOB_FIELD) or request.id  # `run_ingest` uses the same default.
    well_formed = {
        name: value for name, value in fields.items() if isinstance(value, str) and accept_request_id(value) == value
    }
    return well_formed | {"message_id": request.id}


class BodyLogFilter(logging.Filter):
    """A log filter that replaces Celery's reports of unusable messages by reports with a stable code and no body."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the text of a report, and keep every record."""
        message = _BODYLESS_MESSAGES.get(record.msg)
        if message is not None:
            name = str(record.args[0])[:200] if isinstance(record.args, tuple) and record.args else ""
            record.msg, record.args = message, ((name,) if "%s" in message else ())
            record.exc_info = None
        return True


def install_body_filter() -> None:
    """Add the filter to the logger of Celery's consumer, once."""
    logger = logging.getLogger(consumer.__name__)
    if not any(isinstance(installed, BodyLogFilter) for installed in logger.filters):
        logger.addFilter(BodyLogFilter())


def describe_validation_error(error: ValidationError) -> str:
    """Describe the first error of a message by its location and message, without the message's content."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    location = ".".join(map(str, first["loc"])) or "message"
    return f"{location[:200]}: {first['msg'][:200]}"
