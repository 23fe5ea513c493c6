"""Dead letters through the REST API: listed with their reason, retried, and encoded or dead again."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import httpx
import pytest
import redis

from infra import processes
from infra.processes import ChildProcess
from query_api.ingest import dead_letters
from services.documents.document import raw_version
from services.opensearch.bulk import WriteOutcome, write_bulk
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import LATER_FIELDS, create_generation_call
from services.opensearch.journal import attempt_write, dead_write, retry_write
from services.queue.lanes import load_queue
from services.queue.messages import Publisher
from services.settings import Settings
from tests.integration.indexer import journalled
from tests.integration.indexer.journalled import Journal

Eventually = Callable[[Callable[[], object], float, str], None]
Start = Callable[..., ChildProcess]
QUEUE = load_queue("standin", "papers")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"lease_seconds": 1.0, "sweep_interval": 0.2})


def die(journal: Journal, search: SyncSearchClient, *names: str, code: str = "encoding_failed") -> None:
    """Make journalled documents dead after three attempts, as a worker does."""
    writes = []
    for name in names:
        stored = journal.stored(name)
        stored = replace(stored, source=stored.source | {"attempts": 3})
        writes.append(dead_write(journal.generation, stored, code, f"RuntimeError: {name}"))
    assert {verdict.outcome for verdict in write_bulk(search, writes, 1024**2, 10)} <= {WriteOutcome.STORED}
    journal.refresh()


def dead(api: httpx.Client, **parameters: Any) -> dict[str, Any]:
    response = api.get("/v1/indexes/papers/dead-letters", params=parameters)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def retry(api: httpx.Client, **body: Any) -> dict[str, Any]:
    response = api.post("/v1/indexes/papers/dead-letters/retry", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def pages(api: httpx.Client, size: int) -> Iterator[list[dict[str, Any]]]:
    cursor: dict[str, str] = {}
    while True:
        page = dead(api, size=size, **cursor)
        yield page["dead"]
        if page["cursor"] is None:
            return
        cursor = {"cursor": page["cursor"]}


def states(api: httpx.Client) -> dict[str, int]:
    counts: dict[str, int] = api.get("/v1/indexes/papers").json()["documents"]
    return counts


def test_a_poisonous_document_dies_is_retried_dies_again_and_is_encoded_by_a_better_worker(
    api: httpx.Client, journal: Journal, poisoned_worker: Start, sweeper_soon: Callable[[], ChildProcess],
    start_service_process: Callable[[str], ChildProcess], eventually: Eventually,
) -> None:  # fmt: skip
    worker = poisoned_worker(SPARSEWELL_WORKER_CONCURRENCY=1)
    sweeper_soon()
    documents = [{"id": "p/1", "title": "Bad", "text": "raisepoison", "version": 7}, {"id": "g", "text": "harmless"}]
    job = api.post("/v1/indexes/papers/documents", json=documents).json()["job"]["id"]
    eventually(lambda: dead(api)["total"] == 1, 60, "the document is dead")
    (shown,) = dead(api)["dead"]
    cause = {"code": "encoding_failed", "reason": "RuntimeError: an accident"}
    assert {name: shown[name] for name in ("id", "title", "version", "attempts", "error", "job", "earlier")} == {
        "id": "p/1", "title": "Bad", "version": 7, "attempts": 3, "error": cause, "job": job, "earlier": None,
    }  # fmt: skip
    assert shown["ingested_at"] < shown["dead_at"]

    answer = retry(api, ids=["p/1", "g", "nowhere"])
    assert answer["retried"] == ["p/1"]
    assert [(one["id"], one["code"]) for one in answer["not_retried"]] == [
        ("g", "not_dead"),
        ("nowhere", "document_not_found"),
    ]
    assert (answer["queued"], answer["remaining"], answer["failed"]) == (True, 0, 2)
    assert dead(api) == {"index": "papers", "total": 0, "dead": [], "cursor": None}
    assert api.get(f"/v1/jobs/{job}").json()["finished"] is False

    eventually(lambda: dead(api)["total"] == 1, 60, "it is dead once more")
    (again,) = dead(api)["dead"]
    assert again["attempts"] == 3  # the retry allowed three more attempts
    assert again["earlier"] == {"retries": 1, "attempts": 3, "error": cause, "dead_at": shown["dead_at"]}
    assert again["dead_at"] > shown["dead_at"]

    processes.stop_child(worker, 15)
    start_service_process("worker")
    assert retry(api, all=True)["retried"] == ["p/1"]
    before = api.get("/v1/indexes/papers/documents/p%2F1").json()
    assert before["state"] == "encoded" or before["earlier"]["retries"] == 2
    eventually(lambda: states(api)["encoded"] == 2, 60, "it is encoded")
    stored = api.get("/v1/indexes/papers/documents/p%2F1").json()
    assert "error" not in stored
    assert "earlier" not in stored
    assert api.get(f"/v1/jobs/{job}").json()["finished"] is True


def test_the_list_comes_in_pages_without_gaps_or_repetitions(
    api: httpx.Client, journal: Journal, search: SyncSearchClient
) -> None:
    names = [f"d{n:02}" for n in range(45)]
    journal.put(dict.fromkeys([*names, "alive"], "words"))
    for at in range(0, 45, 15):  # documents that die in one write share a timestamp
        die(journal, search, *names[at : at + 15])
    found = list(pages(api, 10))
    assert [len(page) for page in found] == [10, 10, 10, 10, 5]
    listed = [one for page in found for one in page]
    assert sorted(one["id"] for one in listed) == names
    assert [one["dead_at"] for one in listed] == sorted((one["dead_at"] for one in listed), reverse=True)
    assert dead(api, size=1)["total"] == 45
    # A page that ends at the end of the list has no next page, or an empty one.
    assert sum(len(page) for page in pages(api, 15)) == 45


def test_a_list_stays_whole_while_others_die_and_are_retried(
    api: httpx.Client, journal: Journal, search: SyncSearchClient
) -> None:
    journal.put(dict.fromkeys([f"d{n}" for n in range(9)], "words"))
    die(journal, search, *[f"d{n}" for n in range(6)])
    first = dead(api, size=3)
    die(journal, search, "d6", "d7", "d8")
    retry(api, ids=[first["dead"][0]["id"]])
    rest = dead(api, size=10, cursor=first["cursor"])
    assert sorted(one["id"] for one in first["dead"] + rest["dead"]) == [f"d{n}" for n in range(6)]


NO_PAGES: list[dict[str, Any]] = [
    {"cursor": "x"}, {"cursor": ""}, {"cursor": "bnVsbA"}, {"cursor": "WzEsMl0"}, {"cursor": "WzEsImEiLC0xXQ"},
    {"cursor": "W3RydWUsImEiLDFd"}, {"cursor": "WzEwMDAwMDAwMDAwMDAwMDAwMDAwMDAsImEiLDFd"}, {"cursor": "\u00e9"},
    {"size": 0}, {"size": 101}, {"size": "x"},
]  # fmt: skip


def test_pages_that_cannot_be(api: httpx.Client, journal: Journal, subtests: pytest.Subtests) -> None:
    for parameters in NO_PAGES:
        with subtests.test(parameters=parameters):
            response = api.get("/v1/indexes/papers/dead-letters", params=parameters)
            assert response.status_code == 422
            assert response.json()["code"] == ("bad_cursor" if "cursor" in parameters else "invalid_request")


NO_RETRIES = [
    b"", b"[]", b"{", b"{}", b'{"all": false}', b'{"ids": []}', b'{"ids": ["a"], "all": true}', b'{"ids": "a"}',
    b'{"ids": [1]}', b'{"ids": ["a"], "cursor": "x"}', b'{"all": true, "more": 1}', b'{"all": "perhaps"}',
    b'{"ids": ["\\ud800"]}', b'{"ids": ["a\xff"]}', b'{"all": true, "cursor": "x"}',
    json.dumps({"ids": ["a"] * 1001}).encode(),
]  # fmt: skip


def test_retries_that_cannot_be(api: httpx.Client, journal: Journal, subtests: pytest.Subtests) -> None:
    for body in NO_RETRIES:
        with subtests.test(body=body):
            path = "/v1/indexes/papers/dead-letters/retry"
            response = api.post(path, content=body, headers={"content-type": "application/json"})
            assert response.status_code == 422, response.text
            assert response.json()["code"] in {"invalid_request", "invalid_json", "bad_cursor"}


def test_the_former_paths_still_answer(api: httpx.Client, journal: Journal, search: SyncSearchClient) -> None:
    journal.put({"a": "words"})
    die(journal, search, "a")
    assert api.get("/v1/indexes/papers/dead").json() == dead(api)
    retried = api.post("/v1/indexes/papers/dead/retry", json={"ids": ["a"]}).raise_for_status().json()["retried"]
    assert retried == ["a"]


def test_indexes_and_ids_that_are_not_there(api: httpx.Client, journal: Journal) -> None:
    for response in (
        api.get("/v1/indexes/nowhere/dead-letters"),
        api.get("/v1/indexes/nowhere/dead"),
        api.post("/v1/indexes/nowhere/dead/retry", json={"all": True}),
        api.post("/v1/indexes/nowhere/dead-letters/retry", json={"all": True}),
    ):
        assert (response.status_code, response.json()["code"]) == (404, "index_not_found")
    assert api.get("/v1/indexes/Not%20a%20name/dead-letters").json()["code"] == "invalid_index_name"
    answer = retry(api, ids=["", "x" * 600, "a\x00b", "twice", "twice"])
    assert [one["code"] for one in answer["not_retried"]] == ["document_not_found"] * 4
    assert retry(api, all=True) == {
        "index": "papers", "retried": [], "not_retried": [], "failed": 0, "queued": True, "remaining": 0,
        "cursor": None,
    }  # fmt: skip


def test_deleted_and_replaced_documents_are_not_brought_back(
    api: httpx.Client, journal: Journal, search: SyncSearchClient
) -> None:
    journal.put({"deleted": "words", "replaced": "words"}, version=1)
    die(journal, search, "deleted", "replaced")
    # The list shows the searchable state: both documents are dead there until the next refresh.
    pause = {"index": {"refresh_interval": "-1"}}
    search.send(Call("PUT", f"/{journal.generation.physical}/_settings", json.dumps(pause).encode()))
    api.delete("/v1/indexes/papers/documents/deleted", params={"version": 2})
    api.put("/v1/indexes/papers/documents/replaced", json={"text": "newer words", "version": 2})
    assert dead(api)["total"] == 2
    answer = retry(api, all=True)
    assert answer["retried"] == []
    assert {one["code"] for one in answer["not_retried"]} == {"superseded"}
    answer = retry(api, ids=["deleted", "replaced"])
    assert [one["code"] for one in answer["not_retried"]] == ["document_not_found", "not_dead"]
    assert journal.stored("replaced").source["text"] == "newer words"
    assert journal.stored("replaced").external == raw_version(2)
    assert journal.stored("deleted").state == "deleted"


def test_a_newer_write_beats_a_retry_that_began_before_it(
    api: httpx.Client, journal: Journal, search: SyncSearchClient
) -> None:
    journal.put({"a": "old words"}, version=1)
    die(journal, search, "a")
    late = retry_write(journal.generation, journal.stored("a"), 1)
    journal.put({"a": "new words"}, version=2)
    (verdict,) = write_bulk(search, [late], 1024, 10)
    assert verdict.outcome is WriteOutcome.SUPERSEDED
    assert journal.stored("a").source["text"] == "new words"
    assert "earlier" not in journal.stored("a").source


def test_of_retries_at_once_each_document_is_won_by_one(
    api: httpx.Client, journal: Journal, search: SyncSearchClient, broker: "redis.Redis"
) -> None:
    names = [f"d{n:03}" for n in range(200)]
    journal.put(dict.fromkeys(names, "words"))
    die(journal, search, *names)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: retry(api, all=True), range(4)))
    assert sorted(one for answer in answers for one in answer["retried"]) == names
    assert {one["code"] for answer in answers for one in answer["not_retried"]} <= {"superseded"}
    assert {journal.stored(name).source["earlier"]["retries"] for name in names[::20]} == {1}
    assert broker.llen(QUEUE) >= 4  # 200 ids, at most 64 in a message


def test_all_goes_on_where_the_time_ended(
    api: httpx.Client, journal: Journal, search: SyncSearchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"d{n:03}" for n in range(150)]
    journal.put(dict.fromkeys(names, "words"))
    die(journal, search, *names)
    monkeypatch.setattr(dead_letters, "RETRY_TIMEOUT_SECONDS", 0.0)
    first = retry(api, all=True)
    assert (len(first["retried"]), first["remaining"]) == (64, 86)
    assert dead(api)["total"] == 86
    second = retry(api, all=True, cursor=first["cursor"])
    third = retry(api, all=True, cursor=second["cursor"])
    assert (len(third["retried"]), third["remaining"], third["cursor"]) == (22, 0, None)
    assert sorted(first["retried"] + second["retried"] + third["retried"]) == names
    # The response names the requested documents that the time limit left out.
    die(journal, search, *names[:70])
    answer = retry(api, ids=names[:70])
    assert [(one["id"], one["code"]) for one in answer["not_retried"]] == [(n, "not_reached") for n in names[64:70]]


def test_while_redis_is_away_they_are_pending_and_the_sweeper_enqueues_them(
    settings: Settings, journal: Journal, search: SyncSearchClient, api: httpx.Client, worker: ChildProcess,
    sweeper_soon: Callable[[], ChildProcess], eventually: Eventually, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    journal.put({"a": "one", "b": "two"})
    die(journal, search, "a", "b")
    encode = Publisher.encode
    with closing(Publisher("redis://127.0.0.1:9/0")) as nowhere:
        monkeypatch.setattr(Publisher, "encode", lambda self, *message, **lane: encode(nowhere, *message, **lane))
        answer = retry(api, all=True)
        monkeypatch.undo()
    assert (sorted(answer["retried"]), answer["queued"]) == (["a", "b"], False)
    assert journal.states("a", "b") == ["pending", "pending"]
    sweeper_soon()
    eventually(lambda: journal.states("a", "b") == ["encoded", "encoded"], 60, "the sweeper has brought them")


def test_a_document_without_room_for_another_round_is_refused(
    api: httpx.Client, journal: Journal, search: SyncSearchClient
) -> None:
    journal.put({"a": "one"}, version=5)
    stored = journal.stored("a")
    worn = replace(stored, external=raw_version(5) + 1020)
    write_bulk(search, [attempt_write(journal.generation, worn, 3, 1)], 1024**2, 10)
    die(journal, search, "a")
    assert journal.stored("a").transitions == 1022
    for body in ({"ids": ["a"]}, {"all": True}):
        answer = retry(api, **body)
        assert [one["code"] for one in answer["not_retried"]] == ["retries_exhausted"]
    assert api.put("/v1/indexes/papers/documents/a", json={"text": "again", "version": 6}).status_code == 202
    assert journal.states("a") == ["pending"]


def test_retries_end_before_the_versions_do(journal: Journal, search: SyncSearchClient) -> None:
    """A document may die any number of times: retries never need the last version."""
    journal.put({"a": "one"}, version=5)
    rounds = 0
    while True:
        for count in (1, 2, 3):  # a retry that uses as many versions as possible
            for _ in range(3):
                write_bulk(search, [attempt_write(journal.generation, journal.stored("a"), count, 1)], 1024, 10)
        die(journal, search, "a")
        if not journal.stored("a").may_be_retried:
            break
        (verdict,) = write_bulk(search, [retry_write(journal.generation, journal.stored("a"), 1)], 1024, 10)
        assert verdict.outcome is WriteOutcome.STORED
        rounds += 1
    assert rounds >= 80
    assert journal.stored("a").source["earlier"]["retries"] == rounds
    assert journal.stored("a").source["earlier"]["attempts"] == 3 * rounds


def test_those_that_died_before_the_moment_was_recorded_are_listed(
    api: httpx.Client, settings: Settings, search: SyncSearchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older release made the index: its mapping is strict and lacks the fields."""

    def create(*arguments: Any) -> Call:
        call = create_generation_call(*arguments)
        body = json.loads(call.body or b"")
        for name in LATER_FIELDS:
            del body["mappings"]["properties"][name]
        return replace(call, body=json.dumps(body).encode())

    monkeypatch.setattr(journalled, "create_generation_call", create)
    journal = Journal(settings, search)
    journal.put(dict.fromkeys([f"d{n}" for n in range(7)], "words"))
    writes = []
    for n in range(7):
        one = dead_write(journal.generation, journal.stored(f"d{n}"), "encoding_failed", "RuntimeError")
        source = {name: value for name, value in one.source.items() if name not in LATER_FIELDS}
        writes.append(replace(one, source=source))
    write_bulk(search, writes, 1024**2, 10)
    journal.refresh()
    found = [one for page in pages(api, 3) for one in page]
    assert sorted(one["id"] for one in found) == [f"d{n}" for n in range(7)]
    assert {one["dead_at"] for one in found} == {None}
