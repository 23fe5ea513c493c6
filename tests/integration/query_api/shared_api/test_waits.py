"""Writes that wait until searches find their documents, and the deadline of the wait."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson
import pytest

from services.settings import Settings

PATH = "/v1/indexes/docs/documents"


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    """Let OpenSearch refresh nothing by itself: a document is found only if the API sees to it."""
    return settings.model_copy(update={"refresh_interval": "-1"})


@pytest.fixture
def docs(api: httpx.Client) -> Iterator[None]:
    api.put("/v1/indexes/docs", json={}).raise_for_status()
    yield


def found(api: httpx.Client, query: str, mode: str) -> list[str]:
    answer = api.get("/v1/indexes/docs/search", params={"q": query, "mode": mode}).raise_for_status()
    return [hit["id"] for hit in answer.json()["hits"]]


def test_without_a_wait_nothing_is_found_yet(api: httpx.Client, docs: None) -> None:
    """The control of the tests below."""
    answer = api.post(PATH, json=[{"id": "a", "text": "a whale"}])
    assert "waited" not in answer.json()
    assert found(api, "whale", "lexical") == []


@pytest.mark.parametrize("method", ["POST", "PUT", "lines"])
def test_searchable_documents_are_found_by_their_words(api: httpx.Client, docs: None, method: str) -> None:
    document: dict[str, Any] = {"id": "a", "text": "a whale"}
    if method == "PUT":
        answer = api.put(f"{PATH}/a", params={"wait": "searchable"}, json=document)
    elif method == "POST":
        answer = api.post(PATH, params={"wait": "searchable"}, json=[document])
    else:
        headers = {"content-type": "application/x-ndjson"}
        answer = api.post(PATH, params={"wait": "searchable"}, content=orjson.dumps(document), headers=headers)
    assert answer.status_code == 202
    states = {"pending": 1, "encoded": 0, "dead": 0}
    assert answer.json()["waited"] == {"for": "searchable", "reached": True, "states": states}
    assert found(api, "whale", "lexical") == ["a"]


def test_encoded_documents_are_found_by_their_pieces(api: httpx.Client, docs: None, encode: Callable[[], None]) -> None:
    answers: list[httpx.Response] = []

    def write() -> None:
        answers.append(api.post(PATH, params={"wait": "encoded"}, json=[{"id": "a", "text": "a whale"}]))

    writing = threading.Thread(target=write)
    writing.start()
    while writing.is_alive():  # as a worker does; the message is queued a moment after the request begins
        encode()
        writing.join(0.2)
    waited = answers[0].json()["waited"]
    assert waited == {"for": "encoded", "reached": True, "states": {"pending": 0, "encoded": 1, "dead": 0}}
    assert found(api, "whale", "sparse") == ["a"]


def test_a_wait_ends_at_its_deadline_and_the_documents_are_kept(api: httpx.Client, docs: None) -> None:
    """No worker runs."""
    answer = api.put(f"{PATH}/a", params={"wait": "encoded", "wait_seconds": 0.2}, json={"text": "a whale"})
    assert answer.status_code == 202
    assert answer.json()["accepted"] == ["a"]
    assert (answer.json()["waited"]["for"], answer.json()["waited"]["reached"]) == ("encoded", False)
    assert api.get(f"{PATH}/a").json()["state"] == "pending"


def test_a_rejected_write_does_not_wait(api: httpx.Client, docs: None) -> None:
    answer = api.post(PATH, params={"wait": "encoded", "wait_seconds": 300}, json=[{"id": "a"}])
    assert (answer.status_code, answer.json()["code"]) == (422, "no_document_accepted")
    assert "waited" not in answer.json()


def test_a_repeated_write_waits_as_the_first_does(api: httpx.Client, docs: None) -> None:
    headers = {"idempotency-key": "wait"}
    for replayed in (None, "true"):
        answer = api.post(PATH, params={"wait": "searchable"}, json=[{"id": "a", "text": "a whale"}], headers=headers)
        assert answer.headers.get("idempotency-replayed") == replayed
        assert answer.json()["waited"]["reached"] is True
    assert found(api, "whale", "lexical") == ["a"]


def test_a_document_that_a_later_write_replaced_is_not_waited_for(api: httpx.Client, docs: None) -> None:
    headers = {"idempotency-key": "replaced"}
    body = [{"id": "a", "text": "a whale"}, {"id": "b", "text": "a whale"}]
    api.post(PATH, json=body, headers=headers).raise_for_status()
    api.put(f"{PATH}/a", json={"text": "a ship"}).raise_for_status()
    waited = api.post(PATH, params={"wait": "searchable"}, json=body, headers=headers).json()["waited"]
    assert waited == {"for": "searchable", "reached": True, "states": {"pending": 1, "encoded": 0, "dead": 0}}


def test_a_delete_waits_until_searches_miss_the_document(api: httpx.Client, docs: None) -> None:
    for wait in (None, "searchable"):
        api.put(f"{PATH}/a", params={"wait": "searchable"}, json={"text": "a whale"}).raise_for_status()
        assert found(api, "whale", "lexical") == ["a"]
        answer = api.delete(f"{PATH}/a", params={"wait": wait} if wait else {})
        assert answer.status_code == 204
        assert answer.headers.get("wait-reached") == ("true" if wait else None)
        assert found(api, "whale", "lexical") == ([] if wait else ["a"])


@pytest.mark.parametrize(
    ("parameters", "where"),
    [
        ({"wait": "soon"}, "query.wait"), ({"wait": "encoded", "wait_seconds": 0}, "query.wait_seconds"),
        ({"wait": "encoded", "wait_seconds": 301}, "query.wait_seconds"),
        ({"wait": "encoded", "wait_seconds": "nan"}, "query.wait_seconds"),
    ],
)  # fmt: skip
def test_a_wrong_wait_stores_nothing(api: httpx.Client, docs: None, parameters: dict[str, Any], where: str) -> None:
    answer = api.put(f"{PATH}/a", params=parameters, json={"text": "a whale"})
    assert (answer.status_code, answer.json()["errors"][0]["where"]) == (422, where)
    assert api.get(f"{PATH}/a").status_code == 404
    assert api.delete(f"{PATH}/a", params={"wait": "encoded"}).status_code == 422
