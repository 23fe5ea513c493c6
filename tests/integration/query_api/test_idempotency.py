"""An `Idempotency-Key` makes repetitions one job: concurrent, half-done and late repetitions."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from query_api.app import create_app
from services.errors import BackendUnavailable
from services.opensearch.client import Call
from services.settings import Settings

DOCUMENTS = "/v1/indexes/docs/documents"
NDJSON = "application/x-ndjson"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_body_bytes": 100_000})


@pytest.fixture(autouse=True)
def index(api: httpx.Client) -> str:
    assert api.put("/v1/indexes/docs").status_code == 201
    return "docs"


@pytest.fixture
def node(opensearch_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=opensearch_url, timeout=30, trust_env=False) as client:
        yield client


def lines(count: int, text: str = "words") -> bytes:
    return b"\n".join(b'{"id":"d%d","text":"%s %d"}' % (n, text.encode(), n) for n in range(count))


def post(api: httpx.Client, key: str, body: bytes = b'[{"id":"a","text":"x"}]', kind: str = "application/json") -> Any:
    return api.post(DOCUMENTS, content=body, headers={"content-type": kind, "idempotency-key": key})


def versions(node: httpx.Client, settings: Settings) -> dict[str, int]:
    """Return the external version of each document."""
    path = f"/{settings.index_prefix}-docs"
    node.post(f"{path}/_refresh").raise_for_status()
    found = node.post(f"{path}/_search", json={"size": 2000, "version": True, "_source": False}).json()
    return {hit["_id"]: hit["_version"] for hit in found["hits"]["hits"]}


def jobs(node: httpx.Client, settings: Settings) -> list[str]:
    """Return the ids of all stored jobs."""
    path = f"/{settings.index_prefix}_jobs"
    node.post(f"{path}/_refresh").raise_for_status()
    hits = node.post(f"{path}/_search", json={"size": 1000}).json()["hits"]["hits"]
    return [hit["_id"] for hit in hits if "accepted" in hit["_source"]]


@pytest.mark.parametrize("kind", ["application/json", NDJSON])
def test_twenty_at_once_are_one_job(api: httpx.Client, settings: Settings, node: httpx.Client, kind: str) -> None:
    body = lines(700) if kind == NDJSON else b"[" + lines(700).replace(b"\n", b",") + b"]"
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: post(api, "one", body, kind), range(20)))
    assert {answer.status_code for answer in answers} == {202}
    first = answers[0].json()
    assert all(answer.json() == first for answer in answers)
    assert len(first["accepted"]) == 700
    assert jobs(node, settings) == [first["job"]["id"]]
    job = api.get(f"/v1/jobs/{first['job']['id']}").json()
    assert (job["accepted"], job["states"]["pending"], job["states"]["superseded"]) == (700, 700, 0)
    # the job has one version, chosen once
    assert len(set(versions(node, settings).values())) == 1
    late = post(api, "one", body, kind)
    assert late.headers["idempotency-replayed"] == "true"
    assert late.json() == first


def test_without_a_key_they_are_twenty_jobs(api: httpx.Client, settings: Settings, node: httpx.Client) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: api.post(DOCUMENTS, json=[{"id": "a", "text": "x"}]), range(20)))
    accepted = {answer.json()["job"]["id"] for answer in answers if answer.status_code == 202}
    assert len(accepted) > 1
    assert set(jobs(node, settings)) == accepted


def test_the_same_key_with_another_request_is_refused(api: httpx.Client) -> None:
    assert post(api, "k").status_code == 202
    one = b'{"id":"a","text":"x"}'
    put = api.put(f"{DOCUMENTS}/a", content=one, headers={"content-type": "application/json", "idempotency-key": "k"})
    others = [post(api, "k", b'[{"id":"a","text":"y"}]'), post(api, "k", one, NDJSON), put]
    for other in others:
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert api.get(f"{DOCUMENTS}/a").json()["text"] == "x"
    assert post(api, "another").status_code == 202


def test_one_document_is_put_once(api: httpx.Client) -> None:
    key = {"idempotency-key": "k"}
    first = api.put(f"{DOCUMENTS}/a", json={"text": "x"}, headers=key)
    again = api.put(f"{DOCUMENTS}/a", json={"text": "x"}, headers=key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert "idempotency-replayed" not in first.headers
    elsewhere = api.put(f"{DOCUMENTS}/b", json={"text": "x"}, headers=key)
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (409, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["", "with space", "k" * 201, "umlaut-\xe4", "tab\tbed"])
def test_a_key_that_is_none_is_refused(api: httpx.Client, key: str) -> None:
    headers = [("content-type", "application/json"), ("idempotency-key", key.encode("latin-1"))]
    answer = api.post(DOCUMENTS, content=b'[{"id":"a","text":"x"}]', headers=headers)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_idempotency_key")


def test_two_keys_are_refused(api: httpx.Client) -> None:
    headers = [("content-type", "application/json"), ("idempotency-key", "a"), ("idempotency-key", "a")]
    answer = api.post(DOCUMENTS, content=b'[{"id":"a","text":"x"}]', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_idempotency_key")


def half_done(settings: Settings, at: Callable[[Call], bool], body: bytes, key: str) -> None:
    """Execute a request up to a call to OpenSearch, as if the process died there."""

    async def run() -> None:
        app = create_app(settings.model_copy(update={"opensearch_timeout": 3.0}))
        async with app.router.lifespan_context(app):
            search = app.state.app_state.search
            send, dead = search.send, False

            async def dying(call: Call) -> Any:
                nonlocal dead
                dead = dead or at(call)
                if dead:
                    raise BackendUnavailable("killed", "")
                return await send(call)

            search.send = dying
            transport = httpx.ASGITransport(app)
            headers = {"content-type": NDJSON, "idempotency-key": key}
            async with httpx.AsyncClient(transport=transport, timeout=30, base_url="http://api") as client:
                answer = await client.post(DOCUMENTS, content=body, headers=headers)
            assert answer.status_code == 503, answer.text
            assert dead

    asyncio.run(run())


@pytest.mark.parametrize("bulks", [0, 1, 2])
def test_a_repetition_completes_what_a_killed_process_began(
    api: httpx.Client, settings: Settings, node: httpx.Client, bulks: int
) -> None:
    """The process dies before the first write, between two, or after the last but before its response was stored."""
    body, written = lines(700), 0

    def at(call: Call) -> bool:
        nonlocal written
        written += call.path == "/_bulk"
        return written > bulks or (bulks == 2 and written == 2 and call.path != "/_bulk")

    half_done(settings, at, body, "k")
    before = versions(node, settings)
    assert len(before) == min(700, 500 * bulks)
    assert api.put(f"{DOCUMENTS}/d1", json={"text": "newer, from elsewhere"}).status_code == 202
    answer = post(api, "k", body, NDJSON)
    assert answer.status_code == 202, answer.text
    assert "idempotency-replayed" not in answer.headers
    taken = answer.json()
    # a newer write of another client stays, in either order of arrival
    assert taken["accepted"] == [f"d{n}" for n in range(700) if n != 1]
    assert [(r["id"], r["code"]) for r in taken["rejected"]] == [("d1", "stale_version")]
    assert api.get(f"{DOCUMENTS}/d1").json()["text"] == "newer, from elsewhere"
    after = versions(node, settings)
    assert {id_: after[id_] for id_ in before if id_ != "d1"} == {i: v for i, v in before.items() if i != "d1"}
    assert len({version for id_, version in after.items() if id_ != "d1"}) == 1
    job = api.get(f"/v1/jobs/{taken['job']['id']}").json()
    assert (job["accepted"], job["states"]["pending"], job["states"]["superseded"]) == (699, 699, 0)
    again = post(api, "k", body, NDJSON)
    assert (again.headers["idempotency-replayed"], again.json()) == ("true", taken)


def test_an_answer_is_repeated_as_it_was_whatever_happened_since(api: httpx.Client) -> None:
    first = post(api, "k")
    api.put(f"{DOCUMENTS}/a", json={"text": "newer"})
    again = post(api, "k")
    assert (again.status_code, again.json()) == (202, first.json())
    assert api.get(f"{DOCUMENTS}/a").json()["text"] == "newer"


def test_what_could_not_be_stored_is_tried_again(api: httpx.Client, settings: Settings, node: httpx.Client) -> None:
    block = f"/{settings.index_prefix}-docs.g000001/_settings"
    node.put(block, json={"index.blocks.write": True}).raise_for_status()
    with TestClient(create_app(settings.model_copy(update={"opensearch_timeout": 3.0}))) as impatient:
        refused = post(impatient, "k")
        assert (refused.status_code, refused.json()["code"]) == (503, "opensearch_unavailable")
    node.put(block, json={"index.blocks.write": None}).raise_for_status()
    assert post(api, "k").status_code == 202
    assert post(api, "k").headers["idempotency-replayed"] == "true"


def test_a_request_of_which_nothing_can_be_written_leaves_its_key_free(api: httpx.Client) -> None:
    for bad in (b"[", b"{}", b"[]", b'[{"id":"a"},{"text":"x"}]'):
        assert post(api, "k", bad).status_code == 422
    assert post(api, "k").status_code == 202
    bad_put = api.put(f"{DOCUMENTS}/a", json={"text": 1}, headers={"idempotency-key": "p"})
    assert (bad_put.status_code, bad_put.json()["code"]) == (422, "bad_text")
    assert api.put(f"{DOCUMENTS}/b", json={"text": "1"}, headers={"idempotency-key": "p"}).status_code == 202


def test_a_refusal_by_what_is_stored_is_final_and_keeps_its_key(api: httpx.Client) -> None:
    api.put(f"{DOCUMENTS}/a", json={"text": "x", "version": 5})
    stale = b'[{"id":"a","text":"old","version":4}]'
    first = post(api, "k", stale)
    assert (first.status_code, first.json()["rejected"][0]["code"]) == (422, "stale_version")
    again = post(api, "k", stale)
    assert (again.status_code, again.json()) == (422, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["content-type"] == "application/problem+json"
    assert post(api, "k", b'[{"id":"a","text":"new","version":6}]').json()["code"] == "idempotency_key_reused"


def test_a_version_of_ones_own_is_kept(api: httpx.Client) -> None:
    body = b'[{"id":"a","text":"x","version":7},{"id":"b","text":"x"}]'
    post(api, "k", body)
    assert post(api, "k", body).json()["accepted"] == ["a", "b"]
    assert api.get(f"{DOCUMENTS}/a").json()["version"] == 7
    assert api.get(f"{DOCUMENTS}/b").json()["version"] > 1_600_000_000_000_000


def test_an_index_that_was_made_again_has_other_keys(api: httpx.Client) -> None:
    first = post(api, "k")
    api.delete("/v1/indexes/docs").raise_for_status()
    api.put("/v1/indexes/docs").raise_for_status()
    again = post(api, "k", b'[{"id":"a","text":"other"}]')
    assert again.status_code == 202
    assert again.json()["job"] != first.json()["job"]


def test_a_stream_with_a_key_is_bounded(api: httpx.Client) -> None:
    big = lines(5000)
    answer = post(api, "k", big, NDJSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert "Idempotency-Key" in answer.json()["detail"]
    without = api.post(DOCUMENTS, content=big, headers={"content-type": NDJSON})
    assert len(without.json()["accepted"]) == 5000
    assert post(api, "k", lines(3), NDJSON).status_code == 202


def test_the_record_of_a_key_is_no_job(api: httpx.Client, settings: Settings, node: httpx.Client) -> None:
    post(api, "k")
    node.post(f"/{settings.index_prefix}_jobs/_refresh").raise_for_status()
    hits = node.post(f"/{settings.index_prefix}_jobs/_search", json={}).json()["hits"]["hits"]
    (key,) = (hit["_id"] for hit in hits if "key" in hit["_source"])
    assert (api.get(f"/v1/jobs/{key}").status_code, api.get(f"/v1/jobs/{key}").json()["code"]) == (404, "job_not_found")


class TestExpiry:
    """Keys expire after a few milliseconds."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"idempotency_hours": 0.001 / 3600})

    def test_a_key_past_its_time_is_new(self, api: httpx.Client, settings: Settings, node: httpx.Client) -> None:
        first, second = post(api, "k").json(), post(api, "k").json()
        assert first["job"] != second["job"]
        other = post(api, "k", b'[{"id":"b","text":"y"}]')
        assert other.status_code == 202
        assert len(jobs(node, settings)) == 3
