"""Writers that know only the old generation during a swap: the new encoder must encode their documents.

No sweeper runs here, and leases are two minutes. So the process that journals a document has to choose the right
encoder for it.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis

from indexer.encode_task import run_encode
from indexer.ingest_task import run_ingest
from indexer.runtime import Runtime
from infra.processes import ChildProcess
from models.encoder import Encoder
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import create_generation_call, delete_generations_call, new_generation
from services.queue.lanes import load_queue
from services.queue.messages import EncodeMessage
from services.settings import Settings
from tests.integration.indexer.journalled import Journal, log_of
from tests.integration.indexer.reindexing import another_encoder, run_command

Eventually = Callable[[Callable[[], object], float, str], None]
Start = Callable[..., ChildProcess]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return another_encoder(tmp_path / "other")


@pytest.fixture
def settings(settings: Settings, other: Path) -> Settings:
    # each line of a stream is journalled at once, and a sender may pause as long as a reindexing takes
    return settings.model_copy(update={"more_encoders": str(other), "journal_bytes": 1, "body_timeout": 120.0})


@pytest.fixture
def new_worker(start: Start, other: Path, eventually: Eventually) -> ChildProcess:
    """Start a worker with the new encoder."""
    child = start("-m", "cli.main", "worker", SPARSEWELL_ENCODER=other)
    eventually(lambda: "ready." in log_of(child), 60, "the worker is ready")
    return child


def test_a_stream_that_began_before_the_swap(
    api: httpx.Client, api_url: str, settings: Settings, other: Path, new_worker: ChildProcess, eventually: Eventually
) -> None:
    api.put("/v1/indexes/notes", json={}).raise_for_status()
    swapped = threading.Event()

    def lines() -> Iterator[bytes]:
        yield b'{"id": "before", "text": "written before the swap"}\n'
        assert swapped.wait(110)
        yield b'{"id": "after", "text": "written after the swap"}\n'
        yield b'{"id": "last", "text": "written at the end"}\n'

    def state(name: str) -> str:
        return str(api.get(f"/v1/indexes/notes/documents/{name}").json().get("state"))

    answers: list[httpx.Response] = []

    def send() -> None:
        headers = {"content-type": "application/x-ndjson"}
        answers.append(httpx.post(f"{api_url}/v1/indexes/notes/documents", content=lines(), headers=headers,
                                  timeout=120, trust_env=False))  # fmt: skip

    thread = threading.Thread(target=send)
    thread.start()
    try:
        eventually(lambda: state("before") == "pending", 60, "the stream has begun")
        code, said = run_command(settings, "reindex", "notes", "--encoder", str(other), "--encode-here")
        assert code == 0, said
    finally:
        swapped.set()
        thread.join(60)
    assert (answers[0].status_code, answers[0].json()["queued"]) == (202, True), answers[0].text
    for name in ("before", "after", "last"):
        eventually(lambda name=name: state(name) == "encoded", 60, f"{name!r} is encoded")  # type: ignore[misc]


def test_a_worker_that_journals_and_remembers_the_old_generation(
    runtime: Runtime, journal: Journal, settings: Settings, other: Path, broker: "redis.Redis",
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("indexer.runtime.GENERATION_CACHE_SECONDS", 600.0)
    message = {"contract": "sparsewell.ingest.v1", "index": "papers", "documents": [{"id": "a", "text": "one"}]}
    run_ingest(runtime, message, "m1", redelivered=False)
    assert (broker.llen(load_queue("standin", "papers")), broker.llen(load_queue("other", "papers"))) == (1, 0)
    code, said = run_command(settings, "reindex", "papers", "--encoder", str(other), "--encode-here", "--unchecked")
    assert code == 0, said
    for number in (2, 3):
        message["documents"] = [{"id": f"b{number}", "text": "two"}]
        assert run_ingest(runtime, message, f"m{number}", redelivered=False) == {"accepted": 1, "rejected": 0}
        assert (broker.llen(load_queue("standin", "papers")), broker.llen(load_queue("other", "papers"))) == (
            1,
            number - 1,
        )
    assert runtime.generation("papers").number == 2, "it has noticed"


def test_an_index_that_was_made_again_since_a_worker_last_looked(
    runtime: Runtime, journal: Journal, settings: Settings, search: SyncSearchClient, standin: Encoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("indexer.runtime.GENERATION_CACHE_SECONDS", 600.0)
    message = EncodeMessage(index="papers", ids=("a",), generation=1)
    journal.put({"a": "words"})
    assert run_encode(runtime, message, redelivered=False) == {"encoded": 1}
    search.send(delete_generations_call([journal.generation]))
    journal.generation = new_generation(runtime.names, "papers", 1, journal.generation.spec, standin.manifest)
    search.send(create_generation_call(journal.generation, settings, [runtime.names.alias("papers")]))
    journal.put({"a": "other words"})
    assert run_encode(runtime, message, redelivered=False) == {"encoded": 1}
    assert journal.states("a") == ["encoded"]
