"""JsonRoute and the framework give the same responses and the same refusals."""

import asyncio
import json
from functools import partial
from typing import Any

import httpx
import pytest
from starlette.types import Message

from query_api.app import create_app
from services.settings import Settings
from services.web.middleware import BodyLimitMiddleware

QUICK = {"content-type": "application/json"}
# This content type sends the same body to the framework. JsonRoute accepts only the plain type.
USUAL = {"content-type": "application/json; charset=utf-8"}


@pytest.fixture(scope="module")
def index(api: httpx.Client) -> str:
    assert api.put("/v1/indexes/docs").status_code == 201
    documents = [
        {"id": "a", "title": "Folders", "text": "Make a temporary folder."},
        {"id": "b", "text": "Pause the program for a while. Then go on."},
    ]
    job = api.post("/v1/indexes/docs/documents", json=documents).json()["job"]["id"]
    assert api.get(f"/v1/jobs/{job}").json()["accepted"] == 2  # the job status refreshes the index
    return "docs"


def both(api: httpx.Client, index: str, body: bytes) -> list[httpx.Response]:
    path = f"/v1/indexes/{index}/search"
    return [api.post(path, content=body, headers=headers) for headers in (QUICK, USUAL)]


FOUND: list[dict[str, Any]] = [
    {"query": "temporary folders"},
    {"query": "pause a program", "mode": "lexical", "explain": True, "size": 1},
    {"query": "pause", "mode": "sparse", "passage": False},
    {"query": "folder", "fields": ["text"], "weights": {"sparse": 1, "lexical": 2}, "candidates": 5},
]


def test_the_same_hits(api: httpx.Client, index: str, subtests: pytest.Subtests) -> None:
    for request_body in FOUND:
        with subtests.test(request_body=request_body):
            quick, usual = both(api, index, json.dumps(request_body).encode())
            assert quick.status_code == usual.status_code == 200
            assert quick.headers["content-type"] == usual.headers["content-type"]
            answers = [response.json() for response in (quick, usual)]
            for answer in answers:
                assert answer.pop("timings_ms")["total"] > 0
            assert answers[0] == answers[1]
            assert answers[0]["hits"] or request_body.get("mode") == "sparse"


REFUSED = [
    (b'{"query": "x", "mode": "none"}', 422, "invalid_request"),
    (b'{"query": "x", "size": 0}', 422, "invalid_request"),
    (b'{"query": "x", "more": 1}', 422, "invalid_request"),
    (b'{"query": " "}', 422, "empty_query"),
    (b'{"query": "x", "size": 100000}', 422, "size_too_large"),
    (b'{"query"', 422, "invalid_json"),
    (b'{"query": "\xff"}', 422, "invalid_json"),
    (b"", 422, "invalid_request"),
]


def test_the_same_refusals(api: httpx.Client, index: str, subtests: pytest.Subtests) -> None:
    for body, status, code in REFUSED:
        with subtests.test(body=body, status=status, code=code):
            quick, usual = both(api, index, body)
            assert (quick.status_code, quick.json()["code"]) == (status, code)
            assert quick.headers["content-type"] == "application/problem+json"
            assert quick.json() == usual.json()


def test_values_have_a_number(api: httpx.Client, index: str) -> None:
    """Each invalid value gets its own message. A megabyte of invalid values would block all other requests."""
    wrong = json.dumps({"query": "x", "like": [0] * 30_001}).encode()
    for answer in both(api, index, wrong):
        assert (answer.status_code, answer.json()["code"], answer.json()["limit"]) == (422, "too_many_values", 30_000)
    quick, _ = both(api, index, json.dumps({"query": "x," * 500}).encode())
    assert quick.status_code == 200


def test_an_index_that_is_not_there(api: httpx.Client) -> None:
    quick, usual = both(api, "nowhere", b'{"query": "x"}')
    assert quick.status_code == 404
    assert quick.json()["code"] == "index_not_found"
    assert quick.json() == usual.json()


@pytest.mark.parametrize("headers", [QUICK, USUAL])
async def test_a_body_that_never_comes_is_not_waited_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    monkeypatch.setattr("query_api.app.BodyLimitMiddleware", partial(BodyLimitMiddleware, seconds=0.1))
    sent: list[Message] = []

    async def never() -> Message:
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in (headers | {"content-length": "9"}).items()]
    scope = {
        "type": "http", "method": "POST", "path": "/v1/indexes/docs/search", "raw_path": b"/", "query_string": b"",
        "headers": raw, "client": ("192.0.2.1", 1), "server": ("x", 80), "scheme": "http", "http_version": "1.1",
        "root_path": "",
    }  # fmt: skip
    await asyncio.wait_for(create_app(settings)(scope, never, send), 30)
    assert sent[0]["status"] == 408


def test_a_large_body_is_refused_both_ways(api: httpx.Client, index: str) -> None:
    quick, usual = both(api, index, b'{"query": "' + b"x" * 2_000_000 + b'"}')
    assert quick.status_code == usual.status_code == 413
    assert quick.json() == usual.json()
