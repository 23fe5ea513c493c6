"""The status for operators: queues, workers, generations."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx
import redis

from infra.ports import find_free_port
from infra.processes import stop_child
from services.queue.worker_registry import WORKERS_KEY, WorkerRegistry
from services.settings import Settings

Start = Callable[..., Any]  # see conftest
Eventually = Callable[[Callable[[], object], float, str], None]


def test_what_waits_who_works_and_how_far_it_is(
    start: Start, settings: Settings, api: httpx.Client, eventually: Eventually
) -> None:
    api.put("/v1/indexes/notes").raise_for_status()
    api.post("/v1/indexes/notes/documents", json=[{"id": "1", "text": "x"}, {"id": "2", "text": "y"}])
    eventually(lambda: _generation(api)["pending"] == 2, 60, "a refresh shows what is pending")
    told = api.get("/v1/status").json()
    assert told["workers"] == []
    queue = {one["queue"]: one for one in told["queues"]}["sparsewell.encode.standin"]
    assert queue["messages"] == 1
    assert queue["oldest_seconds"] >= 0
    one = _generation(api)
    assert (one["number"], one["state"], one["dead"]) == (1, "searched", 0)
    assert one["oldest_pending_seconds"] > 0

    worker = start("worker")
    eventually(lambda: _generation(api)["pending"] == 0, 60, "it works the queue off")
    (seen,) = api.get("/v1/status").json()["workers"]
    assert (seen["encoder"], seen["processes"]) == ("standin", 1)
    assert seen["seen_ago"] < 15
    stop_child(worker.child, 30)
    assert api.get("/v1/status").json()["workers"] == [], "it has taken its leave"


def _generation(api: httpx.Client) -> dict[str, Any]:
    (index,) = api.get("/v1/status").json()["indexes"]
    generation: dict[str, Any] = index["generations"][-1]
    return generation


def test_who_was_not_seen_lately_is_not_listed_and_nonsense_is_passed_over(settings: Settings) -> None:
    with (
        closing(WorkerRegistry(settings.redis_address)) as registry,
        redis.Redis.from_url(settings.redis_url) as broker,
    ):
        registry.announce("here", encoder="e", fingerprint="f", processes=1, version="1")
        fields = {
            "late": b'{"at": 1, "encoder": "e", "fingerprint": "f", "processes": 1, "version": "1"}',
            "newer": b'{"at": 99999999999, "encoder": "e", "mood": "good"}',
            "garbage": b"\xff",
            "list": b"[]",
        }
        broker.hset(WORKERS_KEY, mapping=fields)
        assert [worker.name for worker in registry.workers()] == ["here"]
        assert not broker.hexists(WORKERS_KEY, "late"), "long gone, so forgotten"


def test_without_redis_the_rest_is_told(settings: Settings, live_api: Callable[..., Any], api: httpx.Client) -> None:
    api.put("/v1/indexes/notes").raise_for_status()
    away = {"redis_url": f"redis://127.0.0.1:{find_free_port()}/0", "api_port": find_free_port()}
    with live_api(settings.model_copy(update=away)) as url:
        told = httpx.get(f"{url}/v1/status", trust_env=False, timeout=30).json()
    assert (told["queues"], told["workers"]) == (None, None)
    assert [index["name"] for index in told["indexes"]] == ["notes"]
