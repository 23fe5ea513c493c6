"""Documents through the REST API while no worker runs: durable, found by lexical search, ordered by version."""

import time

import httpx
import pytest


@pytest.fixture
def index(api: httpx.Client) -> str:
    fields = {"year": "number", "tag": "keyword", "note": "text", "day": "date", "open": "boolean"}
    assert api.put("/v1/indexes/docs", json={"fields": fields}).status_code == 201
    return "docs"


def found(api: httpx.Client, query: str) -> list[str]:
    answer = api.get("/v1/indexes/docs/search", params={"q": query, "mode": "lexical"})
    assert answer.status_code == 200
    return [hit["id"] for hit in answer.json()["hits"]]


def test_a_pending_document_is_found_by_keyword_and_shows_its_state(api: httpx.Client, index: str) -> None:
    metadata = {"year": 1999, "tag": ["a", "b"], "note": "n", "day": "2024-02-29", "open": True}
    document = {"id": "a/b?c", "title": "Folders", "text": "Make a temporary folder.", "metadata": metadata}
    answer = api.post(f"/v1/indexes/{index}/documents", json=[document])
    assert answer.status_code == 202
    assert answer.json()["queued"] is True
    job = api.get(f"/v1/jobs/{answer.json()['job']['id']}").json()  # the job status refreshes the index
    assert job["states"] == {"pending": 1, "encoded": 0, "dead": 0, "superseded": 0}
    assert (job["accepted"], job["rejected"], job["finished"]) == (1, 0, False)
    assert found(api, "temporary folders") == ["a/b?c"]
    shown = api.get(f"/v1/indexes/{index}/documents/a%2Fb%3Fc").json()
    assert {k: shown[k] for k in ("id", "title", "text", "metadata", "state")} == document | {"state": "pending"}
    hit = api.get(f"/v1/indexes/{index}/search", params={"q": "folder"}).json()["hits"][0]
    assert hit["state"] == "pending"
    assert hit["passage"]["text"] == "Make a temporary folder."


def test_the_highest_version_wins_whatever_comes_last(api: httpx.Client, index: str) -> None:
    path = f"/v1/indexes/{index}/documents/a"
    assert api.put(path, json={"text": "two", "version": 2}).status_code == 202
    late = api.put(path, json={"text": "one", "version": 1})
    assert (late.status_code, late.json()["code"]) == (409, "stale_version")
    assert api.get(path).json()["text"] == "two"
    assert api.put(path, json={"text": "three", "version": 3}).status_code == 202
    assert api.get(path).json()["text"] == "three"


def test_a_replaced_document_counts_as_superseded_in_its_first_job(api: httpx.Client, index: str) -> None:
    path = f"/v1/indexes/{index}/documents/a"
    first = api.put(path, json={"text": "one"}).json()["job"]["id"]
    second = api.put(path, json={"text": "two"}).json()["job"]["id"]
    assert api.get(f"/v1/jobs/{second}").json()["states"]["pending"] == 1
    job = api.get(f"/v1/jobs/{first}").json()
    assert job["states"] == {"pending": 0, "encoded": 0, "dead": 0, "superseded": 1}
    assert job["finished"] is True


def test_a_deleted_document_stays_deleted_against_late_writes(api: httpx.Client, index: str) -> None:
    path = f"/v1/indexes/{index}/documents/a"
    api.put(path, json={"text": "unrepeatable", "version": 5})
    assert api.delete(path, params={"version": 6}).status_code == 204
    assert api.get(path).status_code == 404
    assert api.put(path, json={"text": "unrepeatable", "version": 5}).status_code == 409
    time.sleep(1.2)  # wait for a refresh
    assert found(api, "unrepeatable") == []
    assert api.get(f"/v1/indexes/{index}").json()["documents"]["deleted"] == 1
    assert api.delete(path).status_code == 404
    stale = api.delete(path, params={"version": 4})
    assert (stale.status_code, stale.json()["code"]) == (409, "stale_version")


def test_indexes_are_created_once_listed_inspected_and_deleted(api: httpx.Client, index: str) -> None:
    same = api.put("/v1/indexes/docs", json={"fields": {"tag": "keyword", "year": "number", "note": "text",
                                                         "day": "date", "open": "boolean"}})  # fmt: skip
    assert same.status_code == 200
    other = api.put("/v1/indexes/docs", json={"fields": {"year": "keyword"}})
    assert (other.status_code, other.json()["code"]) == (409, "index_exists")
    assert [i["name"] for i in api.get("/v1/indexes").json()["indexes"]] == ["docs"]
    shown = api.get("/v1/indexes/docs").json()
    assert shown["encoder"]["name"] == "standin"
    assert shown["documents"] == {"pending": 0, "encoded": 0, "dead": 0, "deleted": 0}
    assert api.delete("/v1/indexes/docs").status_code == 204
    assert api.get("/v1/indexes").json()["indexes"] == []
    assert api.get("/v1/indexes/docs").json()["code"] == "index_not_found"
    assert api.put("/v1/indexes/docs", json={}).status_code == 201


def test_a_long_stream_is_journalled_in_parts_under_one_job(api: httpx.Client, index: str) -> None:
    lines = b"\n".join(b'{"id":"d%d","text":"text %d"}' % (n, n) for n in range(1234))
    answer = api.post(
        f"/v1/indexes/{index}/documents", content=lines, headers={"content-type": "application/x-ndjson"}
    ).json()
    assert len(answer["accepted"]) == 1234
    job = api.get(f"/v1/jobs/{answer['job']['id']}").json()
    assert (job["accepted"], job["states"]["pending"]) == (1234, 1234)


def test_health(api: httpx.Client, index: str) -> None:
    assert api.get("/healthz").json() == {"status": "alive"}
    ready = api.get("/readyz").json()
    assert ready["status"] == "ready"
    assert isinstance(ready["indexes"], int)
    assert ready["queue"] == {"reachable": True, "messages": 0}
