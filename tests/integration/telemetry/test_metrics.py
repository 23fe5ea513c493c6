"""The metrics of real processes on their ports."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from infra.processes import stop_child
from services.settings import Settings

Start = Callable[..., Any]  # see conftest

Eventually = Callable[[Callable[[], object], float, str], None]
ENCODED = 'sparsewell_encode_documents_total{outcome="encoded"}'


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"worker_concurrency": 2})


def client(settings: Settings) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{settings.api_port}", trust_env=False, timeout=30)


def test_a_documents_way_and_a_search_are_counted_where_they_happen(
    start: Start, settings: Settings, eventually: Eventually
) -> None:
    api, worker, sweeper = start("api"), start("worker"), start("sweeper")
    with client(settings) as http:
        http.put("/v1/indexes/notes").raise_for_status()
        batches = [[{"id": f"{n}-{m}", "text": f"words of {n} and {m}"} for m in range(20)] for n in range(12)]
        for batch in batches:
            http.post("/v1/indexes/notes/documents", json=[*batch, {"id": "no text"}]).raise_for_status()
        eventually(lambda: worker.samples().get(ENCODED) == 240, 60, "both children's documents are counted")
        # (stored is not yet searchable, and the test sends the search only once)
        httpx.post(
            f"{settings.opensearch_url}/{settings.index_prefix}-notes/_refresh", timeout=30, trust_env=False
        ).raise_for_status()
        assert http.post("/v1/indexes/notes/search", json={"query": "words"}).json()["hits"]
        assert http.get("/v1/indexes/none/search", params={"q": "x"}).status_code == 404
    seen = api.samples()
    assert seen['sparsewell_ingested_documents_total{outcome="accepted"}'] == 240
    assert seen['sparsewell_ingested_documents_total{outcome="rejected"}'] == 12
    assert seen['sparsewell_bulk_items_total{outcome="stored"}'] == 240
    assert seen['sparsewell_problems_total{code="index_not_found"}'] == 1
    assert seen['sparsewell_searches_total{mode="hybrid"}'] == 1
    assert seen['sparsewell_search_stage_duration_seconds_count{stage="opensearch"}'] == 1
    route = 'method="POST",route="/v1/indexes/{index}/search"'
    assert seen[f'sparsewell_http_requests_total{{{route},status="200"}}'] == 1, "the short way has its template too"

    done = worker.samples()
    assert done['sparsewell_tasks_total{outcome="done",task="encode"}'] == 12
    assert done['sparsewell_queue_wait_seconds_count{task="encode"}'] == 12
    assert done['sparsewell_encode_run_pieces_count{encoder="standin"}'] >= 12
    assert done['sparsewell_bulk_items_total{outcome="stored"}'] == 240

    nothing_waits = {
        'sparsewell_pending_documents{generation="1",index="notes"}': 0,
        'sparsewell_queue_messages{queue="sparsewell.encode.standin"}': 0,
        'sparsewell_dependency_up{dependency="redis"}': 1,
    }
    eventually(lambda: nothing_waits.items() <= sweeper.samples().items(), 60, "the sweeper has seen that it is done")
    for process, name in ((api, "api"), (worker, "worker"), (sweeper, "sweeper")):
        assert any("sparsewell_build_info" in key and f'process="{name}"' in key for key in process.samples())
    accept = {"accept": "application/openmetrics-text"}
    assert httpx.get(f"{api.metrics}/metrics", headers=accept, timeout=30, trust_env=False).text.endswith("# EOF\n")


def test_a_search_that_lacks_a_shard_is_refused_and_counted(
    start: Start, settings: Settings, eventually: Eventually
) -> None:
    api, physical = start("api", SPARSEWELL_SHARDS="2"), f"/{settings.index_prefix}-notes.g000001"
    node = httpx.Client(base_url=settings.opensearch_url, trust_env=False, timeout=30)
    with node, client(settings) as http:
        http.put("/v1/indexes/notes").raise_for_status()

        def search_status(mode: str) -> tuple[int, str]:
            answer = http.post("/v1/indexes/notes/search", json={"query": "words", "mode": mode})
            return answer.status_code, answer.json().get("code", "")

        modes = ("lexical", "hybrid")  # a search of one list is one request; a search of two lists shares one
        assert [search_status(mode) for mode in modes] == [(200, "")] * 2

        def shards(column: str) -> list[str]:
            rows = node.get(f"/_cat/shards{physical}", params={"format": "json"}).json()
            return sorted(row[column] for row in rows)

        (place,) = set(shards("node"))
        # The setting `enable: none` does not keep a cancelled shard away, because commands ignore it.
        away = {"index.routing.allocation.exclude._name": place}
        node.put(f"{physical}/_settings", json=away).raise_for_status()
        lost = {"index": physical[1:], "shard": 1, "node": place, "allow_primary": True}
        node.post("/_cluster/reroute", json={"commands": [{"cancel": lost}]}).raise_for_status()
        eventually(lambda: shards("state") == ["STARTED", "UNASSIGNED"], 60, "one of two shards is away")
        assert [search_status(mode) for mode in modes] == [(503, "search_incomplete")] * 2
    assert api.samples()["sparsewell_search_incomplete_total"] == 2


def test_what_a_killed_child_counted_stays_counted_and_its_files_go_with_the_worker(
    start: Start, settings: Settings, eventually: Eventually, tmp_path: Path
) -> None:
    start("api")
    worker = start("worker", TMPDIR=str(tmp_path))
    with client(settings) as http:
        http.put("/v1/indexes/notes").raise_for_status()
        for n in range(4):
            http.post("/v1/indexes/notes/documents", json=[{"id": str(n), "text": "words"}]).raise_for_status()
        eventually(lambda: worker.samples().get(ENCODED) == 4, 60, "they are encoded")
        for child in psutil.Process(worker.child.pid).children():
            child.kill()
        assert worker.samples()[ENCODED] == 4
        http.post("/v1/indexes/notes/documents", json=[{"id": "after", "text": "words"}]).raise_for_status()
        eventually(lambda: worker.samples().get(ENCODED) == 5, 60, "another child counts on")
    assert list(tmp_path.glob("sparsewell-metrics-*"))
    stop_child(worker.child, 30)
    assert not list(tmp_path.glob("sparsewell-metrics-*"))


def test_the_sweeper_says_what_waits_and_what_is_away(start: Start, settings: Settings, eventually: Eventually) -> None:
    start("api")
    with client(settings) as http:
        http.put("/v1/indexes/notes").raise_for_status()
        http.post("/v1/indexes/notes/documents", json=[{"id": "1", "text": "x"}, {"id": "2", "text": "y"}])
    sweeper = start("sweeper", SPARSEWELL_REDIS_URL="redis://127.0.0.1:1/0")
    pending = 'sparsewell_pending_documents{generation="1",index="notes"}'
    eventually(lambda: sweeper.samples().get(pending) == 2, 60, "it has seen them")
    seen = sweeper.samples()
    assert seen['sparsewell_pending_oldest_age_seconds{generation="1",index="notes"}'] > 0
    assert seen['sparsewell_dependency_up{dependency="redis"}'] == 0
    assert not any(name.startswith("sparsewell_queue_messages{") for name in seen), "what is not seen is not said"
    passes = 'sparsewell_sweeper_passes_total{outcome="redis_unavailable",task="sweeping"}'
    # (a pass asks Redis several times before it gives up)
    eventually(lambda: sweeper.samples().get(passes, 0) >= 1, 60, "a pass has ended")


def test_sigterm_says_not_ready_at_once_and_answers_until_the_time_is_over(
    start: Start, settings: Settings, eventually: Eventually
) -> None:
    api = start("api", SPARSEWELL_DRAIN_SECONDS="5")
    with client(settings) as http:
        http.put("/v1/indexes/notes").raise_for_status()
        process = psutil.Process(api.child.pid)
        process.terminate()
        told = time.monotonic()
        eventually(lambda: http.get("/readyz").status_code == 503, 4, "it is not ready any more")
        assert http.get("/readyz").json()["code"] == "draining"
        with client(settings) as late:  # a new connection, as from a balancer without an open connection
            assert late.get("/v1/indexes/notes/search", params={"q": "x"}).status_code == 200
        assert http.get("/healthz").status_code == 200
    process.wait(20)
    assert time.monotonic() - told >= 5


def test_without_a_drain_time_a_request_under_way_is_finished(start: Start, settings: Settings) -> None:
    api = start("api")
    answers: list[int] = []

    def slow() -> None:
        def lines() -> Iterator[bytes]:
            yield b'{"id":"1","text":"first"}\n'
            time.sleep(1.5)
            yield b'{"id":"2","text":"second"}\n'

        with client(settings) as http:
            headers = {"content-type": "application/x-ndjson"}
            answer = http.post("/v1/indexes/notes/documents", content=lines(), headers=headers)
            answers.append(answer.status_code)

    with client(settings) as http:
        http.put("/v1/indexes/notes").raise_for_status()
    sender = threading.Thread(target=slow)
    sender.start()
    time.sleep(0.7)
    psutil.Process(api.child.pid).terminate()
    sender.join(20)
    assert answers == [202]
