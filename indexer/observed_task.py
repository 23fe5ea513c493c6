"""What a worker says of each message: how long it waited and took, how it ended, and in log lines whose it was."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery.exceptions import Reject

from services.queue import SENT_AT
from services.telemetry import tracing
from services.telemetry.context import CARRIED, JOB, accepted_request_id, binding, bound
from services.telemetry.metrics import ENCODED, QUEUE_WAIT, TASK_DURATION, TASKS

log = logging.getLogger(__name__)

# Endings of a whole message; without one of them it was done.
_ENDINGS = ("invalid", "postponed", "mismatch", "gone")


@dataclass
class Observed:
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
                ENCODED.labels(name.replace(" ", "_")).inc(count)
        return counts


@contextmanager
def observed_task(task: str, request: Any, body: Mapping[str, Any]) -> Iterator[Observed]:
    """Around the handling of one message; `request` is Celery's, which has the message's headers."""
    sent_at = request.get(SENT_AT)
    if isinstance(sent_at, int | float):
        # Clocks of two machines: a message is never received before it was sent.
        QUEUE_WAIT.labels(task).observe(max(0.0, time.time() - sent_at / 1000))
    observed = Observed(task)
    began = time.perf_counter()
    names = _names(task, request, body)
    with binding(**names), tracing.span(f"process sparsewell.{task}", "consumer", parent=_carrier(request)) as span:
        try:
            yield observed
        except Reject:
            observed.outcome = "requeued"
            raise
        except BaseException:
            observed.outcome = "failed"
            raise
        finally:
            span.set_attributes({"messaging.message.id": str(request.id), "outcome": observed.outcome, **bound()})
            seconds = time.perf_counter() - began
            TASKS.labels(task, observed.outcome).inc()
            TASK_DURATION.labels(task).observe(seconds)
            # (Celery's own lines know nothing of whose it is)
            log.info("%s %s in %.2f s: %s", task, observed.outcome, seconds, observed.said)


def _carrier(request: Any) -> dict[str, str]:
    """Whose trace the message belongs to, as its sender said; an older one says nothing."""
    given = {name: request.get(name) for name in (tracing.PARENT, tracing.STATE)}
    return {name: value for name, value in given.items() if isinstance(value, str)}


def _names(task: str, request: Any, body: Mapping[str, Any]) -> dict[str, str | None]:
    """A producer's message may hold anything; of it only what is well-formed gets into a log line."""
    given = {name: request.get(name) for name in CARRIED} | {"index": body.get("index")}
    if task == "ingest":
        given[JOB] = body.get(JOB) or request.id  # as `run_ingest` calls it
    return {name: one for name, one in given.items() if isinstance(one, str) and accepted_request_id(one) == one} | {
        "message_id": request.id
    }
