"""Run a worker without some protections, for the controls of the fault tests: `worker.py NAME ...`

late_acks         a message is acknowledged at its receipt, not when its task is done
requeue           a message whose process died is dropped
attempts          no attempts are counted: a repeated message is encoded as if it were new
isolation         if one document of a run fails, all documents of the run fail
versions          encoded documents are written without a version: the last write wins
budget            a task has no time limit
redelivery        a message comes again after two seconds, even if its task is done
graceful_end      SIGTERM ends the running task
claim             nobody asks which installation the Redis belongs to
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import orjson
from celery.signals import worker_ready

import indexer.celery_app
import indexer.encode_task
import indexer.triage
from indexer.encoding import EncodedDocument, EncodingFailure, WindowedDocument, encode_run
from models.encoder import Encoder
from services.opensearch import bulk
from tests.faults.accidents import work


def late_acks(app: Any) -> None:
    app.conf.task_acks_late = False


def requeue(app: Any) -> None:
    app.conf.task_reject_on_worker_lost = False


def attempts(_: Any) -> None:
    def all_fresh(documents: Any, *, redelivered: bool, max_attempts: int) -> indexer.triage.Triage:
        return indexer.triage.Triage(first_attempt=[stored for stored in documents if stored.state == "pending"])

    indexer.encode_task.triage_documents = all_fresh


def isolation(_: Any) -> None:
    def all_or_nothing(
        encoder: Encoder, group: Sequence[WindowedDocument], *, jointly: bool = False
    ) -> list[EncodedDocument | EncodingFailure]:
        outcomes = encode_run(encoder, group, jointly=jointly)
        failed = [one for one in outcomes if isinstance(one, EncodingFailure)]
        if not failed:
            return outcomes
        return [EncodingFailure(one.stored, failed[0].code, failed[0].reason, failed[0].final) for one in group]

    careful = indexer.encode_task.triage_documents

    def never_alone(documents: Any, *, redelivered: bool, max_attempts: int) -> indexer.triage.Triage:
        found = careful(documents, redelivered=redelivered, max_attempts=max_attempts)
        found.requeued += found.isolated
        found.isolated = []
        return found

    indexer.encode_task.encode_run = all_or_nothing
    indexer.encode_task.triage_documents = never_alone


def versions(_: Any) -> None:
    class Unversioned(bulk.Write):
        def lines(self) -> bytes:
            head, _, rest = bulk.Write.lines(self).partition(b"\n")
            ((operation, action),) = orjson.loads(head).items()
            kept = {name: value for name, value in action.items() if not name.startswith("version")}
            return orjson.dumps({operation: kept}) + b"\n" + rest

    checked: Callable[..., Any] = indexer.encode_task.write_bulk

    def write(client: Any, writes: Sequence[bulk.Write], *limits: Any) -> Any:
        naive = [Unversioned(**{one.name: getattr(write, one.name) for one in fields(write)}) for write in writes]
        return checked(client, naive, *limits)

    indexer.encode_task.write_bulk = write


def budget(_: Any) -> None:
    indexer.encode_task.EncodeRun.in_time = property(lambda self: True)  # type: ignore[method-assign, assignment]


def redelivery(app: Any) -> None:
    app.conf.task_time_limit = None
    app.conf.broker_transport_options = app.conf.broker_transport_options | {
        "visibility_timeout": 2,
        "unacked_restore_interval": 1,
    }


def graceful_end(_: Any) -> None:
    def at_once(**_: Any) -> None:
        # (the pool is in the worker's process group)
        signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))

    worker_ready.connect(at_once, weak=False)


def transport(app: Any) -> None:
    app.conf.broker_transport = "redis"


PROTECTIONS: dict[str, Callable[[Any], None]] = {
    one.__name__: one
    for one in (
        late_acks, requeue, attempts, isolation, versions, budget, redelivery, transport, graceful_end,
    )
}  # fmt: skip


def main(names: Sequence[str]) -> int:
    def take_out(app: object) -> None:
        for name in names:
            if name != "claim":
                PROTECTIONS[name](app)

    if "claim" in names:
        indexer.celery_app.require_own_redis = lambda runtime: None

    return work(take_out, claim="claim" not in names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
