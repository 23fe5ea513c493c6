"""Real sweepers enqueue lost documents again and leave waiting ones alone. Two sweepers act as one."""

import base64
import json
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from indexer.encode_task import run_encode
from indexer.runtime import Runtime
from indexer.sweeper import QueueHead, Sweeper
from infra.local_servers import LocalSettings
from infra.ports import find_free_port
from infra.processes import ChildProcess
from infra.redis import RedisConfig, start_redis
from models.encoder import Encoder
from services.dates import now_ms
from services.documents.document import Document
from services.encoders.vectors import SparseVector
from services.errors import BackendUnavailable
from services.index_spec import IndexNames
from services.opensearch.bulk import WriteOutcome, write_bulk
from services.opensearch.client import INCOMPLETE_SEARCH_DETAIL, Call, SyncSearchClient
from services.opensearch.generations import create_generation_call, new_generation, refresh_call
from services.opensearch.journal import attempt_write, raw_write, requeue_write
from services.opensearch.stored_document import PAGE_BYTES, stored_size
from services.queue.lanes import encode_queues, load_queue
from services.queue.messages import Publisher
from services.settings import Settings
from services.telemetry import tracing
from tests.integration.indexer.journalled import Journal, log_of

Eventually = Callable[[Callable[[], object], float, str], None]
Start = Callable[..., ChildProcess]
QUEUE = load_queue("standin", "papers")
LEASE = 2.0


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"lease_seconds": LEASE, "sweep_interval": 0.2})


@pytest.fixture
def sweeper_here(journal: Journal, settings: Settings, search: SyncSearchClient, publisher: Publisher) -> Sweeper:
    """Return a sweeper in this process that has watched the queue for a lease."""
    one = Sweeper(settings, search, publisher)
    assert not sweep_for(1.5 * LEASE, one, journal)
    return one


def sweep_for(seconds: float, sweeper: Sweeper, journal: Journal) -> Counter[str]:
    """Run passes at intervals, as the process does. Return the results for overdue documents."""
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        journal.refresh()
        counts += sweeper.sweep()
        time.sleep(0.2)
    return counts


def test_what_lost_its_message_is_enqueued_again_and_encoded(
    journal: Journal, sweeper_here: Sweeper, runtime: Runtime, broker: "redis.Redis"
) -> None:
    journal.put({"a": "one", "b": "two"})
    assert not sweep_for(0.5 * LEASE, sweeper_here, journal)  # their lease has just begun
    assert broker.llen(QUEUE) == 0
    assert sweep_for(1.5 * LEASE, sweeper_here, journal) == {"enqueued": 2}
    assert broker.llen(QUEUE) == 1
    assert journal.stored("a").attempts == 0
    assert run_encode(runtime, journal.message("a", "b"), redelivered=False) == {"encoded": 2}
    broker.delete(QUEUE)
    assert not sweep_for(4 * LEASE, sweeper_here, journal)


def test_traces_that_cannot_be_read_keep_no_document_waiting(
    journal: Journal, settings: Settings, search: SyncSearchClient, publisher: Publisher, broker: "redis.Redis",
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    class WithoutJobs(SyncSearchClient):
        def send(self, call: Call) -> object:
            if "_jobs/" in call.path:
                raise BackendUnavailable("opensearch_timeout", "OpenSearch did not answer in time.")
            return search.send(call)

    monkeypatch.setattr(tracing, "is_tracing", lambda: True)
    journal.put({"a": "one"})
    put_back(search, journal, "a", seconds=-600)
    journal.refresh()
    with closing(WithoutJobs(settings)) as deaf:
        assert Sweeper(settings, deaf, publisher, long_watched()).sweep() == {"enqueued": 1}
    assert broker.llen(QUEUE) == 1


def test_an_index_that_lacks_a_shard_keeps_no_other_one_waiting(
    journal: Journal, settings: Settings, search: SyncSearchClient, publisher: Publisher, standin: Encoder
) -> None:
    names = IndexNames(settings.index_prefix)
    broken = new_generation(names, "broken", 1, journal.generation.spec, standin.manifest)
    search.send(create_generation_call(broken, settings, [names.alias("broken")]))
    write_bulk(search, [raw_write(broken, Document("b", "two"), "job", 1, -600)], 1024, 10)
    search.send(refresh_call(broken.physical))

    class WithoutAShard(SyncSearchClient):
        def send(self, call: Call) -> object:
            if call.path == f"/{broken.physical}/_search":
                raise BackendUnavailable("search_incomplete", INCOMPLETE_SEARCH_DETAIL)
            return search.send(call)

    journal.put({"a": "one"})
    put_back(search, journal, "a", seconds=-600)
    journal.refresh()
    with closing(WithoutAShard(settings)) as client:
        sweeper = Sweeper(settings, client, publisher, long_watched())
        assert sweeper.sweep() == {"enqueued": 1, "generations with a shard away": 1}


def long_watched() -> dict[str, QueueHead]:
    """Observe the encoder's queues as empty two leases ago."""
    head = QueueHead(LEASE)
    head.record(now_ms() - int(2000 * LEASE), None)
    return dict.fromkeys(encode_queues("standin"), head)


def put_back(search: SyncSearchClient, journal: Journal, name: str, seconds: float) -> None:
    """Give a document a lease that ends the given number of seconds from now."""
    (verdict,) = write_bulk(search, [requeue_write(journal.generation, journal.stored(name), seconds)], 1024**2, 10)
    assert verdict.outcome is WriteOutcome.STORED


def test_of_two_sweepers_one_enqueues(
    journal: Journal, sweeper_here: Sweeper, settings: Settings, search: SyncSearchClient, publisher: Publisher,
    broker: "redis.Redis",
) -> None:  # fmt: skip
    journal.put({f"d{i}": "words" for i in range(10)})
    others = [Sweeper(settings, search, publisher, sweeper_here.heads) for _ in range(2)]
    end = time.monotonic() + 3 * LEASE
    counts: Counter[str] = Counter()
    while time.monotonic() < end:
        journal.refresh()
        with ThreadPoolExecutor(2) as pool:
            for found in pool.map(Sweeper.sweep, others):
                counts += found
        time.sleep(0.1)
    assert counts["enqueued"] == 10
    # Each sweeper may have won some documents, but no document is in two messages.
    bodies = [json.loads(base64.b64decode(json.loads(raw)["body"]))[1] for raw in broker.lrange(QUEUE, 0, -1)]
    assert sorted(one for body in bodies for one in body["ids"]) == sorted(f"d{i}" for i in range(10))


def test_a_long_backlog_is_left_alone_for_ever(
    journal: Journal, sweeper_here: Sweeper, publisher: Publisher, broker: "redis.Redis"
) -> None:
    journal.put({"a": "one", "b": "two"})
    publisher.encode("standin", journal.message("a"))
    publisher.encode("standin", journal.message("b"))
    assert not sweep_for(4 * LEASE, sweeper_here, journal)  # no worker runs for many leases
    assert broker.llen(QUEUE) == 2
    assert [journal.stored(name).transitions for name in ("a", "b")] == [0, 0]
    # The control: once the messages are gone, the same documents are overdue.
    broker.delete(QUEUE)
    assert sweep_for(2 * LEASE, sweeper_here, journal) == {"enqueued": 2}


def test_while_redis_is_away_nothing_is_touched(journal: Journal, settings: Settings, search: SyncSearchClient) -> None:
    journal.put({"a": "one"})
    time.sleep(LEASE + 0.1)
    with closing(Publisher("redis://127.0.0.1:9/0")) as nowhere:
        one = Sweeper(settings, search, nowhere)
        for _ in range(3):
            with pytest.raises(BackendUnavailable):
                one.sweep()
    assert journal.stored("a").transitions == 0


def test_more_than_a_page_is_swept_in_one_pass(
    journal: Journal, sweeper_here: Sweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.sweeper.SWEEP_PAGE_DOCUMENTS", 10)
    journal.put({f"d{i}": "words" for i in range(35)})
    assert sweep_for(2 * LEASE, sweeper_here, journal) == {"enqueued": 35}


def test_indexes_take_turns_and_an_index_with_much_to_sweep_ends_its_turn(
    journal: Journal, settings: Settings, search: SyncSearchClient, publisher: Publisher, standin: Encoder,
    broker: "redis.Redis", monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("indexer.sweeper.INDEX_SECONDS", 0.0)
    monkeypatch.setattr("indexer.sweeper.PASS_SECONDS", 0.0)
    names = IndexNames(settings.index_prefix)
    other = new_generation(names, "zebras", 1, journal.generation.spec, standin.manifest)
    search.send(create_generation_call(other, settings, [names.alias("zebras")]))
    for generation, count in ((journal.generation, 20), (other, 1)):
        writes = [raw_write(generation, Document(f"d{n}", "words"), "job", 1, -600) for n in range(count)]
        write_bulk(search, writes, 1024**2, 10)
        search.send(refresh_call(generation.physical))
    sweeper = Sweeper(settings, search, publisher, long_watched())
    assert sweeper.sweep() == {"enqueued": 1}, "one read of the first index, and the pass is over"
    assert sweeper.sweep() == {"enqueued": 1}
    assert broker.llen(load_queue("standin", "zebras")) == 1, "the second pass begins with the second index"
    journal.refresh()
    assert sweeper.sweep() == {"enqueued": 1}
    assert broker.llen(QUEUE) == 2


def test_texts_are_read_by_bytes(
    journal: Journal, settings: Settings, search: SyncSearchClient, publisher: Publisher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A container of 384 MiB must bear a thousand texts of 70 KB (docs/guarantees.md)."""
    read: list[int] = []
    monkeypatch.setattr("indexer.sweeper.INDEX_SECONDS", 600.0)  # A busy machine writes 15 such texts in a slice.

    class Watched(SyncSearchClient):
        def send(self, call: Call) -> object:
            answer = search.send(call)
            if call.path.endswith("/_mget"):
                read.append(sum(len(document["_source"]["text"]) for document in answer["docs"]))
            return answer

    text = "words and more words. " * 12_000  # 264 KB
    writes = [raw_write(journal.generation, Document(f"d{n}", text), "job", 1, -600) for n in range(60)]
    write_bulk(search, writes, 4 * 1024**2, 30)
    journal.refresh()
    with closing(Watched(settings)) as client:
        assert Sweeper(settings, client, publisher, long_watched()).sweep() == {"enqueued": 60}
    assert sum(read) == 60 * len(text)
    assert max(read) <= PAGE_BYTES


def test_earlier_vectors_are_read_by_bytes(
    journal: Journal, settings: Settings, search: SyncSearchClient, publisher: Publisher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Eight short documents whose earlier version had 1,200 windows took the sweeper to 681 MiB."""
    read: list[int] = []
    monkeypatch.setattr("indexer.sweeper.INDEX_SECONDS", 600.0)

    class Watched(SyncSearchClient):
        def send(self, call: Call) -> object:
            answer = search.send(call)
            if call.path.endswith("/_mget"):
                read.append(sum(stored_size(document["_source"]) for document in answer["docs"]))
            return answer

    vector = SparseVector.of(list(range(100)), [1.0] * 100).pack()
    windows = [{"start": n, "end": n + 1, "vector": vector} for n in range(1200)]
    writes = []
    for number in range(24):
        write = raw_write(journal.generation, Document(f"d{number}", "short"), "job", 1, -600)
        source = write.source | {"earlier": {"vectors": {"version": 0, "windows": windows}}}
        writes.append(replace(write, source=source))
    write_bulk(search, writes, 4 * 1024**2, 30)
    journal.refresh()
    with closing(Watched(settings)) as client:
        assert Sweeper(settings, client, publisher, long_watched()).sweep() == {"enqueued": 24}
    assert max(read) <= PAGE_BYTES < sum(read)


def test_documents_of_which_no_attempt_ended_are_dead(
    journal: Journal, sweeper_here: Sweeper, search: SyncSearchClient
) -> None:
    journal.put({"a": "one"})
    write_bulk(search, [attempt_write(journal.generation, journal.stored("a"), 3, 0)], 1024, 10)
    assert sweep_for(2 * LEASE, sweeper_here, journal) == {"dead": 1}
    assert journal.stored("a").source["error"]["code"] == "attempts_exhausted"


@contextmanager
def redis_at(port: int, local_settings: LocalSettings, root: Path) -> Iterator[None]:
    config = replace(RedisConfig.of(local_settings), root=root, data=None, port=port, tied=True)
    with start_redis(config):
        yield


def test_documents_that_came_while_redis_was_down_are_encoded_after_it_is_back(
    local_settings: LocalSettings, settings: Settings, journal: Journal, start: Start, eventually: Eventually
) -> None:
    port = find_free_port()
    environment = {"SPARSEWELL_REDIS_URL": f"redis://127.0.0.1:{port}/0"}
    with tempfile.TemporaryDirectory(prefix="sparsewell-test-") as root:
        Path(root).chmod(0o755)
        with redis_at(port, local_settings, Path(root) / "redis"):
            worker = start("-m", "cli.main", "worker", **environment)
            eventually(lambda: "ready." in log_of(worker), 60, "the worker is ready")
            sweeper = start("-m", "cli.main", "sweeper", **environment)
            eventually(lambda: "sweeping every" in log_of(sweeper), 60, "the sweeper runs")
        journal.put({"a": "written while Redis was down"})
        eventually(lambda: "redis_unavailable" in log_of(sweeper), 60, "the sweeper has noticed")
        time.sleep(2)
        assert journal.states("a") == ["pending"]
        assert journal.stored("a").transitions == 0
        with redis_at(port, local_settings, Path(root) / "redis"):
            eventually(lambda: journal.states("a") == ["encoded"], 60, "the document is encoded")
            assert "sweeping again" in log_of(sweeper)
            # logged once, although every pass failed
            assert log_of(sweeper).count("redis_unavailable") == 1
            assert worker.alive()
            assert sweeper.alive()


def test_without_a_sweeper_it_stays_pending(journal: Journal, worker: ChildProcess) -> None:
    """The control of the test above: a worker alone does not find a document without a message."""
    journal.put({"a": "written while Redis was down"})
    time.sleep(4 * LEASE)
    assert journal.states("a") == ["pending"]


def test_it_stops_promptly_even_when_everything_is_down(start: Start, eventually: Eventually) -> None:
    sweeper = start(
        "-m", "cli.main", "sweeper",
        SPARSEWELL_OPENSEARCH_URL="http://127.0.0.1:9", SPARSEWELL_REDIS_URL="redis://127.0.0.1:9/0",
        SPARSEWELL_SWEEP_INTERVAL=1000,
    )  # fmt: skip
    eventually(lambda: "not sweeping" in log_of(sweeper), 60, "it has noticed")
    os.kill(sweeper.pid, signal.SIGTERM)
    eventually(lambda: not sweeper.alive(), 60, "it has ended")
    assert "stopped" in log_of(sweeper)
    assert "Traceback" not in log_of(sweeper)
