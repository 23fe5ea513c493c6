"""Limits of keys in one process and in several, with and without Redis, and attempts to guess keys."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.testclient import TestClient
from starlette.types import Message

from query_api.access.gate import MAX_FAILURE_BURST
from query_api.access.rate_limit import RateLimiter
from query_api.app import create_app
from services.access.api_keys import generate_key
from services.access.principals import Principal, RateLimits
from services.errors import Overloaded
from services.opensearch.client import Call
from services.settings import Settings
from tests.problem_counts import problems

Make = Callable[..., str]
As = Callable[[str], httpx.Client]
# so slow that nothing refills during a test
FILTER = {"field": "tenant", "is": "a"}
SLOW = Principal("k", frozenset({"search"}), limits=RateLimits(rate=0.001, burst=10, daily=1000))


@pytest_asyncio.fixture
async def two(redis_url: str) -> AsyncIterator[tuple[RateLimiter, RateLimiter]]:
    """Return two limiters that share a Redis, as two processes do."""
    both = RateLimiter(redis_url, "t", RateLimits()), RateLimiter(redis_url, "t", RateLimits())
    yield both
    for one in both:
        await one.close()


async def test_what_one_process_uses_another_one_lacks(two: tuple[RateLimiter, RateLimiter]) -> None:
    first, second = two
    for _ in range(8):
        first.admit(SLOW)
    await first.report_usage()
    second.admit(SLOW)
    await second.report_usage()
    second.admit(SLOW)
    with pytest.raises(Overloaded, match="rate_limited") as refused:
        second.admit(SLOW)
    assert refused.value.extra["retry_after"] > 100
    await second.report_usage()
    first.admit(SLOW)  # it does not know the other's use yet, so the request it admits becomes a shared debt
    await first.report_usage()
    with pytest.raises(Overloaded, match="rate_limited"):
        first.admit(SLOW)


async def test_a_day_s_requests_are_counted_over_all_processes(two: tuple[RateLimiter, RateLimiter]) -> None:
    daily = Principal("d", frozenset({"search"}), limits=RateLimits(daily=5))
    first, second = two
    for one in (first, second):
        one.admit(daily, 2)
        await one.report_usage()
    second.admit(daily)
    with pytest.raises(Overloaded, match="daily_limit_reached") as refused:
        second.admit(daily)
    assert 0 < refused.value.extra["retry_after"] <= 86_400


async def test_a_redis_that_lost_its_data_gives_nobody_a_second_day(
    two: tuple[RateLimiter, RateLimiter], redis_url: str
) -> None:
    daily = Principal("d", frozenset({"search"}), limits=RateLimits(daily=5))
    first, _ = two
    first.admit(daily, 3)
    await first.report_usage()
    async with Redis.from_url(redis_url) as client:
        await client.flushdb()
    first.admit(daily)
    await first.report_usage()
    with pytest.raises(Overloaded, match="daily_limit_reached"):
        first.admit(daily, 2)


async def test_a_day_that_ends_while_redis_is_asked_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A late response of Redis counts yesterday's requests and must not use up today's limit."""
    daily = Principal("d", frozenset({"search"}), limits=RateLimits(daily=5))
    day = 20_000.0
    clock = SimpleNamespace(time=lambda: day * 86_400, monotonic=time.monotonic)
    monkeypatch.setattr("query_api.access.rate_limit.time", clock)
    limiter = RateLimiter("redis://127.0.0.1:1/0", "t", RateLimits())

    class AtMidnight:
        """A Redis whose response arrives while another request asks the limiter."""

        async def __aenter__(self) -> "AtMidnight":
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        def pipeline(self, *, transaction: bool) -> "AtMidnight":
            return self

        def eval(self, *_: object) -> None:
            pass

        async def aclose(self) -> None:
            pass

        async def execute(self) -> list[list[object]]:
            nonlocal day
            day += 1
            limiter.admit(daily)
            return [[b"0", 5]]

    monkeypatch.setattr("query_api.access.rate_limit.Redis.from_url", lambda *_, **__: AtMidnight())
    limiter.admit(daily, 5)
    await limiter.report_usage()
    limiter.admit(daily, 4)
    with pytest.raises(Overloaded, match="daily_limit_reached"):
        limiter.admit(daily)
    await limiter.close()


async def test_it_is_settled_by_itself(two: tuple[RateLimiter, RateLimiter], redis_url: str) -> None:
    first, _ = two
    first.admit(SLOW, 4)
    async with Redis.from_url(redis_url, decode_responses=True) as client:
        for _ in range(100):
            if kept := await client.hgetall("t:limits:{k}"):
                break
            await asyncio.sleep(0.05)
        assert float(kept["tokens"]) == pytest.approx(6, abs=0.1)
        assert await client.ttl("t:limits:{k}") > 0


async def test_without_redis_a_process_goes_by_its_own_bucket(caplog: pytest.LogCaptureFixture) -> None:
    alone = RateLimiter("redis://127.0.0.1:1/0", "t", RateLimits())
    for _ in range(10):
        alone.admit(SLOW)
    with pytest.raises(Overloaded, match="rate_limited"):
        alone.admit(SLOW)
    await asyncio.sleep(0.05)  # (it asks Redis, and the connection fails)
    assert "Redis is away" in caplog.text
    with pytest.raises(Overloaded, match="rate_limited"):
        alone.admit(SLOW)
    await alone.close()


def test_a_key_is_told_what_is_left_and_when_to_come_again(admin: httpx.Client, make_key: Make, as_key: As) -> None:
    admin.put("/v1/indexes/books")
    client = as_key(make_key(["search"], requests_per_second=0.01, burst=4))
    answers = [client.post("/v1/indexes/books/search", json={"query": "x"}) for _ in range(2)]
    assert [one.headers["ratelimit"].split(";")[1] for one in answers] == ["r=3", "r=2"]
    assert answers[0].headers["ratelimit-policy"] == '"key";q=4;w=400'
    batch = {"searches": [{"index": "books", "query": "x"}] * 3}
    refused = client.post("/v1/search/batch", json=batch)  # the request itself leaves one, and the batch needs two
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert client.get("/v1/indexes/books/search?q=x").status_code == 200
    over = client.get("/v1/indexes/books/search?q=x")
    assert (over.status_code, over.json()["code"]) == (429, "rate_limited")
    assert int(over.headers["retry-after"]) > 10
    assert as_key(make_key(["search"], requests_per_day=1)).get("/v1/indexes").status_code == 200
    assert admin.get("/v1/indexes").headers.get("ratelimit") is None


def test_defaults_hold_for_keys_that_say_nothing(settings: Settings, admin_key: str) -> None:
    app = create_app(settings.model_copy(update={"key_rate": 0.01, "key_burst": 2}))
    with TestClient(app, headers={"authorization": f"Bearer {admin_key}"}) as client:
        assert [client.get("/v1/encoders").status_code for _ in range(3)] == [200, 200, 429]


async def test_ten_thousand_keys_are_refused_counted_and_cheap(settings: Settings, admin_key: str) -> None:
    """A refused key costs no request to OpenSearch and no log line, and a valid key still works."""

    before = {code: problems(code) for code in ("bad_key", "too_many_failures")}
    app = create_app(settings)
    request_count = 0
    async with app.router.lifespan_context(app):
        send = app.state.app_state.search.send

        async def counting(call: Call) -> Any:
            nonlocal request_count
            request_count += 1
            return await send(call)

        app.state.app_state.search.send = counting
        began = time.monotonic()
        statuses = [
            await status_of(app, generate_key("z" * 16) if n % 2 else secrets.token_urlsafe(40)) for n in range(10_000)
        ]
        seconds = time.monotonic() - began
        assert set(statuses) == {401, 429}
        assert request_count <= seconds + 2
        assert await status_of(app, admin_key) == 200
    refused = {code: problems(code) - then for code, then in before.items()}
    assert sum(refused.values()) == 10_000
    assert refused["bad_key"] <= MAX_FAILURE_BURST + seconds + 1


async def status_of(app: FastAPI, key: str) -> int:
    """Return the status of one request with a key, without a client's overhead."""
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        statuses.append(message.get("status", 0))

    headers = [(b"authorization", f"Bearer {key}".encode())]
    scope = {
        "type": "http", "method": "GET", "path": "/v1/encoders", "raw_path": b"/v1/encoders", "query_string": b"",
        "headers": headers, "client": ("10.1.2.3", 1), "server": ("t", 80), "scheme": "http", "http_version": "1.1",
        "root_path": "", "app": app,
    }  # fmt: skip
    await app(scope, receive, send)
    return statuses[0]


def test_nobody_ends_the_service_by_its_own_probes(settings: Settings) -> None:
    """Limits apply to keys. Public operations have no limit that strangers could use up."""
    app = create_app(settings.model_copy(update={"key_rate": 1.0, "key_daily": 3}))
    with TestClient(app) as client:
        assert {client.get("/healthz").status_code for _ in range(20)} == {200}


@pytest.mark.parametrize("headers", [{"content-length": "3"}, {"transfer-encoding": "chunked"}])
def test_a_stranger_s_body_is_not_read(settings: Settings, headers: dict[str, str]) -> None:
    read = []

    async def receive() -> Message:
        read.append(1)
        return {"type": "http.request", "body": b"abc", "more_body": True}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "method": "POST", "path": "/", "raw_path": b"/", "query_string": b"", "headers": raw,
        "client": ("192.0.2.1", 1), "server": ("x", 80), "scheme": "http", "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    asyncio.run(create_app(settings)(scope, receive, send))
    assert (sent[0]["status"], read) == (401, [])


def test_who_may_not_see_everything_is_told_no_numbers(
    api: httpx.Client, admin_key: str, make_key: Make, as_key: As
) -> None:
    some = [as_key(make_key(["search"], **rights)) for rights in ({"indexes": ["a-*"]}, {"filter": FILTER})]
    everything = [as_key(key) for key in (admin_key, make_key(["search"]))]
    del api.headers["authorization"]
    for client in (api, *some):
        assert set(client.get("/readyz").json()) == {"status", "checks"}
    for client in everything:
        assert {"indexes", "queue"} <= set(client.get("/readyz").json())
    assert some[1].get("/version").json()["opensearch"] is not None


def test_a_key_that_writes_too_much_waits_and_its_neighbour_does_not(
    admin: httpx.Client, make_key: Make, as_key: As
) -> None:
    admin.put("/v1/indexes/books")
    documents = "/v1/indexes/books/documents"
    limited, other = as_key(make_key(["ingest", "search"], documents_per_second=1)), as_key(make_key(["ingest"]))
    many = [{"id": str(n), "text": "word"} for n in range(40)]
    assert len(limited.post(documents, json=many).json()["accepted"]) == 40  # ten may be saved up, thirty are owed
    for refused in (limited.put(f"{documents}/x", json={"text": "word"}), limited.post(documents, json=many[:1])):
        assert (refused.status_code, refused.json()["code"]) == (429, "write_rate_limited")
        assert (refused.json()["unit"], refused.json()["limit"]) == ("documents", 1)
        assert 25 < int(refused.headers["retry-after"]) <= 31
    assert admin.get(f"{documents}/x").status_code == 404
    assert limited.get("/v1/indexes/books/search?q=word").status_code == 200
    assert other.post(documents, json=many).status_code == 202


def test_a_stream_is_more_than_one_request(admin: httpx.Client, make_key: Make, as_key: As) -> None:
    """A stream stops at the limit of its key, and says after which line it goes on."""
    admin.put("/v1/indexes/books")
    documents, lines = "/v1/indexes/books/documents", 4000
    body = b"".join(b'{"id": "%d", "text": "%s"}\n' % (n, b"word " * 20) for n in range(lines))
    for limits in ({"documents_per_second": 20.0}, {"bytes_per_second": 3000.0}):
        client = as_key(make_key(["ingest"], **limits))
        answer = client.post(documents, content=body, headers={"content-type": "application/x-ndjson"}).json()
        assert answer["stopped"]["code"] == "write_rate_limited"
        assert 200 <= len(answer["accepted"]) == answer["stopped"]["after"] < lines
        assert answer["stopped"]["retry_after"] > 1
        assert client.post(documents, json=[{"id": "1", "text": "word"}]).status_code == 429


async def test_documents_are_counted_over_all_processes(two: tuple[RateLimiter, RateLimiter]) -> None:
    """A process that has not seen a key's documents owes them as well, up to the debt of an hour."""
    writer = Principal("w", frozenset({"ingest"}), limits=RateLimits(document_rate=2, byte_rate=1e9))
    first, second = two
    first.admit_writes(writer)
    first.charge_writes(writer, 100_000, 10)
    await first.report_usage()
    second.admit_writes(writer)
    second.charge_writes(writer, 1, 10)
    await second.report_usage()
    with pytest.raises(Overloaded, match="write_rate_limited") as refused:
        second.admit_writes(writer)
    assert 3550 < refused.value.extra["retry_after"] <= 3601


def test_the_settings_limit_the_documents_of_keys_that_say_nothing(settings: Settings, admin_key: str) -> None:
    app = create_app(settings.model_copy(update={"key_documents": 0.01}))
    with TestClient(app, headers={"authorization": f"Bearer {admin_key}"}) as client:
        client.put("/v1/indexes/books")
        puts = [client.put(f"/v1/indexes/books/documents/{n}", json={"text": "word"}) for n in range(2)]
        assert [one.status_code for one in puts] == [202, 429]


async def test_a_redis_whose_clock_goes_back_takes_nothing(redis_url: str) -> None:
    """A failover may lead to a Redis whose clock is behind. The time that did not pass must not become a debt."""
    writer = Principal("back", frozenset({"ingest"}), limits=RateLimits(document_rate=10))
    limiter = RateLimiter(redis_url, "t", RateLimits())
    async with Redis.from_url(redis_url) as client:
        await client.hset("t:limits:documents:{back}", mapping={"tokens": "100", "at": str(time.time() + 3600)})
    limiter.charge_writes(writer, 1, 10)
    await limiter.report_usage()
    limiter.admit_writes(writer)
    await limiter.close()
