"""Real Celery workers are killed, stopped, and sent poison documents and invalid messages."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis
from celery import Celery

from infra.processes import ChildProcess
from services.errors import NotFound
from services.index_spec import IndexNames
from services.opensearch.client import SyncSearchClient
from services.opensearch.jobs import load_job_call
from services.queue.lanes import INGEST_QUEUE, interactive_queue
from services.queue.messages import IngestMessage, Publisher
from services.settings import Settings
from tests.integration.indexer.journalled import Journal, log_of

Eventually = Callable[[Callable[[], object], float, str], None]
Start = Callable[..., ChildProcess]


def pool_of(worker: ChildProcess) -> list[psutil.Process]:
    """Return the child processes that do the work."""
    return psutil.Process(worker.pid).children()


def all_are(journal: Journal, names: list[str], *states: str) -> Callable[[], bool]:
    return lambda: set(journal.states(*names)) <= set(states)


def test_a_producer_s_documents_become_encoded(
    worker: ChildProcess, publisher: Publisher, journal: Journal, eventually: Eventually
) -> None:
    documents = tuple({"id": f"d{i}", "text": f"words number {i}"} for i in range(150))
    publisher.ingest(IngestMessage(index="papers", job="bulk", sent_at=time.time_ns() // 1000, documents=documents))
    names = [document["id"] for document in documents]
    eventually(lambda: len(set(names)) == 150 and _found(journal, names), 60, "a worker has journalled them")
    eventually(all_are(journal, names, "encoded"), 60, "all are encoded")
    assert journal.stored("d7").attempts == 0


def test_a_worker_answers_pings_and_no_other_remote_command(worker: ChildProcess, settings: Settings) -> None:
    with Celery(broker=settings.redis_address, set_as_current=False) as app:
        assert app.control.ping(timeout=20, limit=1)
        for command in ("conf", "stats", "registered", "pool_shrink"):
            (reply,) = app.control.broadcast(command, reply=True, timeout=20, limit=1)
            assert [answer.keys() for answer in reply.values()] == [{"error"}]
        app.control.shutdown()
        assert app.control.ping(timeout=20, limit=1), "it goes on"
    assert worker.alive()


def _found(journal: Journal, names: list[str]) -> bool:
    try:
        return bool(journal.states(*names))
    except KeyError:
        return False


def test_a_worker_that_is_killed_in_the_middle_loses_nothing(
    poisoned_worker: Start, publisher: Publisher, journal: Journal, eventually: Eventually, broker: "redis.Redis",
    tmp_path: Path,
) -> None:  # fmt: skip
    texts = {f"s{i}": f"slowpoison {i}" for i in range(5)} | {f"d{i}": f"harmless {i}" for i in range(40)}
    names = list(texts)
    journal.put(texts)
    # The message comes again 16 s after its delivery.
    times = {"SPARSEWELL_TASK_BUDGET": 4, "SPARSEWELL_TASK_LIMIT": 8, "SPARSEWELL_REDELIVERY": 16}
    log = tmp_path / "encoder.log"
    first = poisoned_worker(**times, SPARSEWELL_WORKER_CONCURRENCY=1, ENCODER_LOG=log)
    publisher.encode("standin", journal.message(*names))
    eventually(log.exists, 60, "the worker has begun")
    for process in [*pool_of(first), psutil.Process(first.pid)]:
        process.kill()
    eventually(lambda: not first.alive(), 60, "it is dead")
    assert "pending" in journal.states(*names)
    second = poisoned_worker(**times, SPARSEWELL_WORKER_CONCURRENCY=1)
    eventually(all_are(journal, names, "encoded"), 90, "the second worker has encoded everything")
    assert {journal.stored(name).attempts for name in names} <= {0, 2}  # a repeated encoding is counted
    eventually(lambda: broker.hlen("unacked") == 0, 60, "nothing is owed")
    assert second.alive()


def test_a_document_that_kills_its_process_is_dead_and_its_neighbours_are_encoded(
    poisoned_worker: Start, publisher: Publisher, journal: Journal, eventually: Eventually, tmp_path: Path
) -> None:
    texts = {f"d{i}": f"harmless {i}" for i in range(20)} | {"k": "killpoison"}
    journal.put(texts)
    log = tmp_path / "encoder.log"
    worker = poisoned_worker(SPARSEWELL_WORKER_CONCURRENCY=1, ENCODER_LOG=log)
    publisher.encode("standin", journal.message(*texts))
    eventually(lambda: journal.states("k") == ["dead"], 120, "the document that kills is dead")
    eventually(all_are(journal, [name for name in texts if name != "k"], "encoded"), 60, "its neighbours are encoded")
    dead = journal.stored("k").source
    assert dead["error"]["code"] == "attempts_exhausted"
    assert dead["attempts"] == 3
    assert dead["text"] == "killpoison"
    # it cost three processes: once with all other documents, and twice alone
    alone = [line for line in log.read_text().splitlines() if line.endswith(" 1")]
    assert len({line.split()[0] for line in log.read_text().splitlines()}) >= 3
    assert len(alone) >= 2
    # and the worker continues
    journal.put({"after": "words"})
    publisher.encode("standin", journal.message("after"))
    eventually(all_are(journal, ["after"], "encoded"), 60, "the next message is handled")
    assert worker.alive()


def test_a_message_that_kills_whoever_journals_it_is_refused_in_its_job(
    poisoned_worker: Start, publisher: Publisher, journal: Journal, search: SyncSearchClient, settings: Settings,
    eventually: Eventually, broker: "redis.Redis",
) -> None:  # fmt: skip
    worker = poisoned_worker(SPARSEWELL_WORKER_CONCURRENCY=1)
    publisher.ingest(IngestMessage(index="papers", job="bad", documents=({"id": "k", "text": "killingest"},)))
    publisher.ingest(IngestMessage(index="papers", job="good", documents=({"id": "g", "text": "harmless"},)))
    names = IndexNames(settings.index_prefix)

    def refused() -> bool:
        try:
            record = search.send(load_job_call(names, "bad"))["_source"]
        except NotFound:
            return False
        return [r["code"] for r in record["rejections"]] == ["attempts_exhausted"]

    # Celery takes some seconds to declare each process lost.
    eventually(refused, 120, "it was given up")
    eventually(lambda: _found(journal, ["g"]), 60, "the other message is journalled")
    eventually(lambda: broker.llen(INGEST_QUEUE) == broker.hlen("unacked") == 0, 60, "nothing goes round")
    assert log_of(worker).count("exited with 'signal 9 (SIGKILL)'") == 3
    assert not broker.keys("sparsewell:began:*")


def test_a_document_that_never_ends_is_dead(
    poisoned_worker: Start, publisher: Publisher, journal: Journal, eventually: Eventually
) -> None:
    journal.put({"s": "stuckpoison", "d": "harmless"})
    poisoned_worker(SPARSEWELL_WORKER_CONCURRENCY=1, SPARSEWELL_TASK_BUDGET=1, SPARSEWELL_TASK_LIMIT=3)
    publisher.encode("standin", journal.message("s", "d"))
    eventually(lambda: journal.states("s", "d") == ["dead", "encoded"], 120, "it was killed thrice and given up")


def test_a_document_that_raises_is_not_lost_and_does_not_disturb(
    poisoned_worker: Start, sweeper_soon: Start, publisher: Publisher, journal: Journal, eventually: Eventually
) -> None:
    journal.put({"r": "raisepoison", "d": "harmless"})
    poisoned_worker(SPARSEWELL_WORKER_CONCURRENCY=1, SPARSEWELL_LEASE_SECONDS=1)
    publisher.encode("standin", journal.message("r", "d"))
    eventually(all_are(journal, ["d"], "encoded"), 60, "the neighbour is encoded")
    sweeper_soon()
    eventually(lambda: journal.states("r") == ["dead"], 60, "it was tried thrice")
    assert journal.stored("r").source["error"] == {"code": "encoding_failed", "reason": "RuntimeError: an accident"}


def test_sigterm_finishes_what_has_begun(
    poisoned_worker: Start, publisher: Publisher, journal: Journal, eventually: Eventually, broker: "redis.Redis",
    tmp_path: Path,
) -> None:  # fmt: skip
    texts = {f"s{i}": f"slowpoison {i}" for i in range(3)} | {f"d{i}": f"harmless {i}" for i in range(40)}
    journal.put(texts)
    log = tmp_path / "encoder.log"
    worker = poisoned_worker(SPARSEWELL_WORKER_CONCURRENCY=1, ENCODER_LOG=log)
    publisher.encode("standin", journal.message(*texts))
    eventually(log.exists, 60, "the worker has begun")
    os.kill(worker.pid, signal.SIGTERM)
    eventually(lambda: not worker.alive(), 60, "it has ended")
    assert set(journal.states(*texts)) == {"encoded"}
    assert broker.llen(interactive_queue("standin")) == broker.hlen("unacked") == 0


def test_nonsense_on_the_queue_is_refused_without_being_printed(
    worker: ChildProcess, broker: "redis.Redis", publisher: Publisher, journal: Journal, eventually: Eventually
) -> None:
    publisher.ingest(IngestMessage(index="papers", job="j", documents=({"id": "a", "text": "SECRET words"},)))
    eventually(lambda: _found(journal, ["a"]), 60, "a good message is handled")
    good = json.loads(_envelope(broker, publisher))
    other = json.loads(json.dumps(good))
    other["headers"]["task"] = "sparsewell.ingest.v9"
    other["headers"]["kwargsrepr"] = "SECRET"
    broken = json.loads(json.dumps(good)) | {"body": "U0VDUkVU"}  # not JSON
    pickled = json.loads(json.dumps(good)) | {"content-type": "application/x-python-serialize"}
    for message in (other, broken, pickled):
        broker.lpush(INGEST_QUEUE, json.dumps(message))
    eventually(lambda: log_of(worker).count("was deleted") >= 2, 60, "they were refused")
    publisher.ingest(IngestMessage(index="papers", documents=({"id": "b", "text": "after"},)))
    eventually(lambda: _found(journal, ["b"]), 60, "the worker goes on")
    assert "SECRET" not in log_of(worker)
    assert "unknown_task: a message for an unknown task was deleted: " in log_of(worker)


def _envelope(broker: "redis.Redis", publisher: Publisher) -> bytes:
    """Return a valid message as it lies in Redis, taken from a queue without a consumer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("services.queue.messages.INGEST_QUEUE", "unread")
        publisher.ingest(IngestMessage(index="papers", documents=({"id": "x", "text": "SECRET"},)))
    raw = broker.lpop("unread")
    assert isinstance(raw, bytes)
    return raw


@pytest.mark.parametrize(
    ("environment", "code", "words"),
    [
        ({"SPARSEWELL_REDIS_URL": "redis://user:hidden@127.0.0.1:9/0", "SPARSEWELL_REDIS_WAIT": "1"},
         "redis_unavailable", "127.0.0.1:9"),
        ({"SPARSEWELL_REDIS_URL": "http://x"}, "bad_setting", "REDIS_URL"),
        ({"SPARSEWELL_ENCODER": "no-such"}, "unknown_encoder", "standin"),
        ({"SPARSEWELL_REDELIVERY": "1"}, "bad_setting", "SPARSEWELL_REDELIVERY"),
    ],
)  # fmt: skip
def test_a_worker_that_cannot_start_says_why(
    start: Start, eventually: Eventually, environment: dict[str, str], code: str, words: str
) -> None:
    worker = start("-m", "cli.main", "worker", **environment)
    eventually(lambda: not worker.alive(), 60, "it has ended")
    assert f"[{code}]" in log_of(worker)
    assert words in log_of(worker)
    assert "hidden" not in log_of(worker)
    assert "Traceback" not in log_of(worker)
