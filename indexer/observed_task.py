"""What a worker says of each message: how long it waited and took, how it ended, and in log lines whose it was."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery.exceptions import Reject

from services.queue import SENT_AT
from services.telemetry.context import REQUEST_ID, accepted_request_id, binding
from services.telemetry.metrics import ENCODED, QUEUE_WAIT, TASK_DURATION, TASKS

# Endings of a whole message; without one of them it was done.
_ENDINGS = ("invalid", "postponed", "mismatch", "gone")


@dataclass
class Observed:
    """Filled in by the task."""

    task: str
    outcome: str = "done"

    def ended(self, counts: dict[str, int]) -> dict[str, int]:
        """Takes what became of the documents, and gives it back."""
        self.outcome = next((name for name in _ENDINGS if name in counts), "done")
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
    with binding(**_names(request, body)):
        try:
            yield observed
        except Reject:
            observed.outcome = "requeued"
            raise
        except BaseException:
            observed.outcome = "failed"
            raise
        finally:
            TASKS.labels(task, observed.outcome).inc()
            TASK_DURATION.labels(task).observe(time.perf_counter() - began)


def _names(request: Any, body: Mapping[str, Any]) -> dict[str, str | None]:
    """A producer's message may hold anything; of it only what is well-formed gets into a log line."""
    given = {REQUEST_ID: request.get(REQUEST_ID), "job": body.get("job"), "index": body.get("index")}
    return {name: one for name, one in given.items() if isinstance(one, str) and accepted_request_id(one) == one} | {
        "message": request.id
    }
