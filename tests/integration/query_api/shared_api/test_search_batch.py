"""POST /v1/search/batch answers each search as if alone, in order, with a few requests to OpenSearch."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from services.index_spec import IndexNames
from services.opensearch.client import AsyncSearchClient, Call
from services.settings import Settings

PATH = "/v1/search/batch"


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_batch": 20})


@pytest.fixture(scope="module")
def shelves(api: httpx.Client, encode: Callable[[], None]) -> httpx.Client:
    """Create two indexes of encoded documents."""
    for index, words in (("books", "whale captain sea"), ("films", "storm island ship")):
        api.put(f"/v1/indexes/{index}", json={}).raise_for_status()
        documents = [{"id": f"d{n}", "title": f"{index} {n}", "text": f"{words} {'sea ' * n}"} for n in range(8)]
        api.post(f"/v1/indexes/{index}/documents", json=documents).raise_for_status()
        encode()
        assert api.get(f"/v1/indexes/{index}").json()["documents"]["encoded"] == 8
    return api


def ask(api: httpx.Client, *searches: Any) -> list[dict[str, Any]]:
    response = api.post(PATH, json={"searches": searches}).raise_for_status()
    answers: list[dict[str, Any]] = response.json()["answers"]
    return answers


def problems(code: str) -> float:
    return REGISTRY.get_sample_value("sparsewell_problems_total", {"code": code}) or 0.0


def untimed(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "timings_ms"}


def test_each_is_answered_as_it_would_be_alone(shelves: httpx.Client) -> None:
    searches = [
        {"query": query, "mode": mode, "size": size, "explain": explain}
        for query in ("captain", "storm at sea", "rhinoceros")
        for mode, size, explain in (("hybrid", 5, False), ("sparse", 3, True), ("lexical", 2, True))
    ]
    indexes = ["books", "films"] * 5
    named = [{"index": index} | search for index, search in zip(indexes, searches, strict=False)]
    answers = ask(shelves, *named)
    assert [one["status"] for one in answers] == [200] * 9
    for index, search, one in zip(indexes, searches, answers, strict=False):
        alone = shelves.post(f"/v1/indexes/{index}/search", json=search).raise_for_status().json()
        assert untimed(one["answer"]) == untimed(alone)
    assert sum(len(one["answer"]["hits"]) for one in answers) > 15, "(they found something)"


def test_what_is_wrong_with_one_is_its_own(shelves: httpx.Client) -> None:
    good = {"index": "books", "query": "captain"}
    many = " ".join(f"w{n}" for n in range(1030))
    wrong: list[tuple[Any, int, str]] = [
        ({"index": "books", "query": " "}, 422, "empty_query"),
        ({"index": "nowhere", "query": "x"}, 404, "index_not_found"),
        ({"index": "No!", "query": "x"}, 422, "invalid_index_name"),
        ({"index": "books", "query": "x", "size": 10_000}, 422, "size_too_large"),
        ({"index": "books", "query": "x", "size": "many"}, 422, "invalid_request"),
        ({"index": "books", "query": "x", "colour": "red"}, 422, "invalid_request"),
        ({"index": "books", "query": many, "mode": "lexical"}, 422, "query_too_long"),
        ({"index": "books", "query": "x", "cursor": "bent"}, 422, "bad_cursor"),
        ({"index": 5, "query": "x"}, 422, "invalid_request"),
        ({"query": "x"}, 422, "invalid_request"),
        ({"index": "books"}, 422, "empty_query"),
        ("captain", 422, "invalid_request"),
        (None, 422, "invalid_request"),
        ([], 422, "invalid_request"),
    ]
    codes = Counter(code for _, _, code in wrong)
    before = {code: problems(code) for code in codes}
    answers = ask(shelves, good, *(search for search, _, _ in wrong), good)
    assert {code: problems(code) - before[code] for code in codes} == codes, "each is counted"
    assert untimed(answers[0]["answer"]) == untimed(answers[-1]["answer"])
    assert len(answers[0]["answer"]["hits"]) == 8
    for one, (search, status, code) in zip(answers[1:-1], wrong, strict=True):
        assert (one["status"], one["problem"]["status"], one["problem"]["code"]) == (status, status, code), search
        assert one.keys() == {"status", "problem"}


def test_bodies_that_are_no_batch(api: httpx.Client) -> None:
    for body, code in (
        ({"searches": []}, "empty_batch"),
        ({"searches": [{"index": "books", "query": "x"}] * 21}, "batch_too_large"),
        ({"searches": {}}, "invalid_request"),
        ({}, "invalid_request"),
        ({"searches": [], "size": 3}, "invalid_request"),
        ([], "invalid_request"),
    ):
        response = api.post(PATH, json=body)
        assert (response.status_code, response.json()["code"]) == (422, code), body
    assert api.post(PATH, content=b" " * 1024**2 + b"{}").status_code == 413


def test_a_batch_takes_two_requests(shelves: httpx.Client, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The count excludes the requests for indexes and rules, which the API caches for a second or two."""
    sent: list[str] = []
    send = AsyncSearchClient.send
    rules = IndexNames(settings.index_prefix).curation.encode()

    async def counted(self: AsyncSearchClient, call: Call) -> Any:
        if rules not in (call.body or b""):
            sent.append(call.path)
        return await send(self, call)

    monkeypatch.setattr(AsyncSearchClient, "send", counted)
    searches = [{"index": index, "query": f"sea {n}"} for n in range(5) for index in ("books", "films")]
    for one in ask(shelves, *searches):
        assert one["answer"]["hits"]
    assert [path for path in sent if path.startswith("/_m")] == ["/_msearch", "/_mget"]
    assert len(sent) <= 4, "the others look the two indexes up"
    del sent[:]
    for search in searches:
        shelves.post(f"/v1/indexes/{search['index']}/search", json={"query": search["query"]}).raise_for_status()
    assert len([path for path in sent if path.startswith("/_m")]) == 20, "the control: each alone"


def test_pages_go_on_in_a_batch(shelves: httpx.Client) -> None:
    search = {"index": "books", "query": "captain", "size": 3}
    (first,) = ask(shelves, search | {"cursor": "*"})
    alone = {name: value for name, value in search.items() if name != "index"} | {"cursor": first["answer"]["cursor"]}
    second = shelves.post("/v1/indexes/books/search", json=alone).raise_for_status().json()
    both = ask(shelves, search | {"cursor": second["cursor"]}, search | {"cursor": first["answer"]["cursor"]})
    given = [hit["id"] for page in (first["answer"], second, both[0]["answer"]) for hit in page["hits"]]
    assert sorted(given) == [f"d{n}" for n in range(8)]
    assert both[0]["answer"]["end"] == "matches"
