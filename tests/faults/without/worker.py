"""A worker with protections taken out: the controls of the fault tests. `worker.py NAME ...`

late_acks         a message is acknowledged when it is taken, not when it is done
requeue           a message whose process died is dropped
attempts          nothing is counted: what comes back is encoded like the first time
isolation         when one document of a run fails, all of it have failed
versions          encoded documents are written without a version: the last write wins
budget            a task goes on until it is done
redelivery        a message comes again after two seconds, done or not
graceful_end      SIGTERM ends the running task
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from faults.accidents import work

import indexer.encode_task
import indexer.triage
from indexer.encoding import Cut, Encoded, Failed, encode
from models.encoder import Encoder
from services.opensearch import bulk


def late_acks(app: Any) -> None:
    app.conf.task_acks_late = False


def requeue(app: Any) -> None:
    app.conf.task_reject_on_worker_lost = False


def attempts(_: Any) -> None:
    def all_fresh(documents: Any, *, redelivered: bool, max_attempts: int) -> indexer.triage.Triage:
        return indexer.triage.Triage(fresh=[stored for stored in documents if stored.state == "pending"])

    indexer.encode_task.triage = all_fresh


def isolation(_: Any) -> None:
    def all_or_nothing(encoder: Encoder, group: Sequence[Cut]) -> list[Encoded | Failed]:
        outcomes = encode(encoder, group)
        failed = [one for one in outcomes if isinstance(one, Failed)]
        if not failed:
            return outcomes
        return [Failed(one.stored, failed[0].code, failed[0].reason, failed[0].final) for one in group]

    indexer.encode_task.encode = all_or_nothing


def versions(_: Any) -> None:
    @dataclass(frozen=True, slots=True)
    class Unversioned(bulk.Write):
        def lines(self) -> bytes:
            action = {"_index": self.index, "_id": self.id}
            return orjson.dumps({"index": action}) + b"\n" + orjson.dumps(self.source) + b"\n"

    checked: Callable[..., Any] = indexer.encode_task.write

    def write(client: Any, writes: Sequence[bulk.Write], max_bytes: int, seconds: float) -> Any:
        naive = [Unversioned(one.index, one.id, one.version, one.source) for one in writes]
        return checked(client, naive, max_bytes, seconds)

    indexer.encode_task.write = write


def budget(_: Any) -> None:
    indexer.encode_task.EncodeRun._in_time = property(lambda self: True)  # type: ignore[method-assign, assignment]


def redelivery(app: Any) -> None:
    app.conf.task_time_limit = None
    app.conf.broker_transport_options = app.conf.broker_transport_options | {
        "visibility_timeout": 2,
        "unacked_restore_interval": 1,
    }


def graceful_end(app: Any) -> None:
    # read by Celery when it installs its signal handlers
    os.environ["REMAP_SIGTERM"] = "SIGQUIT"
    app.conf.worker_soft_shutdown_timeout = 0


PROTECTIONS = {
    one.__name__: one for one in (late_acks, requeue, attempts, isolation, versions, budget, redelivery, graceful_end)
}


def main(names: Sequence[str]) -> int:
    def take_out(app: object) -> None:
        for name in names:
            PROTECTIONS[name](app)

    return work(take_out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
