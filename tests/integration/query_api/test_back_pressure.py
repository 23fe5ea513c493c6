"""The API refuses excess requests before it accepts any part, still searches, and accepts again once there is room."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import httpx
import pytest
import redis
from fastapi.testclient import TestClient

from cli.loading.destinations import QueueDestination
from cli.loading.source import SourceBatch, SourcePosition
from infra.local_servers import LocalSettings
from infra.ports import find_free_port
from infra.redis import temporary_redis
from query_api.app import create_app
from services.errors import Overloaded
from services.opensearch.client import Call
from services.queue.lanes import INGEST_QUEUE
from services.queue.messages import EncodeMessage, Publisher
from services.settings import Settings

Eventually = Callable[[Callable[[], object], float, str], None]
DOCUMENTS = "/v1/indexes/docs/documents"
NDJSON = {"content-type": "application/x-ndjson"}
LIMITS = {
    "max_ingest_requests": 3,
    "max_ingest_bytes": 100_000,
    # one index may have half of them
    "max_pending_documents": 2000,
    "message_documents": 1000,
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update=LIMITS)


@pytest.fixture(autouse=True)
def index(api: httpx.Client) -> None:
    assert api.put("/v1/indexes/docs").status_code == 201


@pytest.fixture
def begun(settings: Settings) -> Iterator[Callable[..., socket.socket]]:
    """Begin requests with endless bodies: `begun(first bytes, length)`."""
    with ExitStack() as stack:

        def begin(first: bytes, length: int, kind: str = "application/json") -> socket.socket:
            sender = stack.enter_context(socket.create_connection((settings.api_host, settings.api_port), 30))
            head = f"POST {DOCUMENTS} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
            sender.sendall(head.encode() + first)
            return sender

        yield begin


def lines(count: int, size: int = 20) -> bytes:
    return b"".join(b'{"id":"d%d","text":"%s"}\n' % (n, b"word " * (size // 5)) for n in range(count))


def one(api: httpx.Client, name: str = "a") -> httpx.Response:
    return api.post(DOCUMENTS, json=[{"id": name, "text": "x"}])


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


def assert_says_when_to_come_again(answer: httpx.Response) -> None:
    assert answer.headers["content-type"] == "application/problem+json"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.json()["retry_after"] == int(answer.headers["retry-after"])


def answered(sender: socket.socket) -> tuple[bytes, dict[str, Any]]:
    """Return the head and the JSON of the response to a sender, up to the end of the connection."""
    received = b""
    while part := sender.recv(65536):
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return head, json.loads(body)


def test_requests_at_once_are_bounded_and_a_sender_that_vanishes_gives_its_place_back(
    api: httpx.Client, begun: Callable[..., socket.socket], eventually: Eventually
) -> None:
    senders: list[socket.socket] = []

    def all_taken() -> bool:
        senders.append(begun(b"[", 5000))
        return code(one(api)) == (429, "too_many_requests")

    eventually(all_taken, 60, "every place is taken")
    assert_says_when_to_come_again(one(api))
    refused = api.put(f"{DOCUMENTS}/never", json={"text": "x"})
    assert code(refused) == (429, "too_many_requests")
    # the limit does not apply to searches, reads and deletes
    assert api.get("/v1/indexes/docs/search", params={"q": "x"}).status_code == 200
    assert api.get(f"{DOCUMENTS}/never").status_code == 404
    for sender in senders:
        sender.close()
    eventually(lambda: one(api).status_code == 202, 60, "a place is free")


def test_a_place_comes_back_after_every_kind_of_request(api: httpx.Client) -> None:
    for _ in range(3):
        assert api.post(DOCUMENTS, content=b"{", headers={"content-type": "application/json"}).status_code == 422
        assert api.post("/v1/indexes/none/documents", json=[]).status_code == 404
        assert api.post(DOCUMENTS, content=b"x").status_code == 415
        assert one(api).status_code == 202


def test_bytes_at_once_are_bounded_and_one_alone_is_let_in(
    api: httpx.Client, begun: Callable[..., socket.socket], eventually: Eventually
) -> None:
    large = [{"id": "a", "text": "x" * 200_000}]
    assert api.post(DOCUMENTS, json=large).status_code == 202
    senders: list[socket.socket] = []

    def taken() -> bool:
        senders.append(begun(b"[", 90_000))  # the API refuses this request while it receives the other
        return code(api.post(DOCUMENTS, json=large)) == (429, "too_many_bytes")

    eventually(taken, 60, "one is being received")
    assert_says_when_to_come_again(api.post(DOCUMENTS, json=large))
    assert one(api).status_code == 202
    for sender in senders:
        sender.close()
    eventually(lambda: api.post(DOCUMENTS, json=large).status_code == 202, 60, "there is room")


def test_pending_documents_are_bounded(api: httpx.Client, eventually: Eventually) -> None:
    assert len(api.post(DOCUMENTS, content=lines(1000), headers=NDJSON).json()["accepted"]) == 1000
    # (the count includes them after a refresh at the latest)
    eventually(lambda: code(one(api)) == (429, "too_many_pending"), 60, "they are counted")
    refused = one(api)
    assert refused.json()["limit"] == 2000
    assert_says_when_to_come_again(refused)
    assert code(api.put(f"{DOCUMENTS}/never", json={"text": "x"})) == (429, "too_many_pending")
    assert api.get(f"{DOCUMENTS}/never").status_code == 404
    search = "/v1/indexes/docs/search"
    eventually(lambda: api.get(search, params={"q": "word"}).json()["hits"], 60, "searches find what was accepted")
    for n in range(30):
        assert api.delete(f"{DOCUMENTS}/d{n}").status_code == 204
    eventually(lambda: one(api).status_code == 202, 60, "there is room again")


def test_pending_documents_are_bounded_with_redis_away(settings: Settings, eventually: Eventually) -> None:
    away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{find_free_port()}/0"})
    with TestClient(create_app(away)) as api:
        assert api.post(DOCUMENTS, content=lines(1000), headers=NDJSON).json()["queued"] is False
        eventually(lambda: code(one(api)) == (429, "too_many_pending"), 60, "they are counted")


def test_a_stream_that_reaches_the_limit_stops_and_says_where(api: httpx.Client) -> None:
    answer = api.post(DOCUMENTS, content=lines(6000, 200), headers=NDJSON)
    assert answer.status_code == 202
    body = answer.json()
    stopped = body["stopped"]
    assert stopped["code"] == "too_many_pending"
    assert 1 <= stopped["retry_after"] <= 60
    assert 1000 <= stopped["after"] < 6000
    assert len(body["accepted"]) == stopped["after"]
    assert api.get(f"/v1/jobs/{body['job']['id']}").json()["states"]["pending"] == stopped["after"]
    assert api.get(f"{DOCUMENTS}/d{stopped['after']}").status_code == 404


class TestFullQueue:
    """The queue accepts five messages."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"max_queue_messages": 5})

    def test_messages_in_a_queue_are_bounded_and_without_redis_they_are_unknown(
        self, api: httpx.Client, settings: Settings, eventually: Eventually
    ) -> None:
        number = iter(range(1000))
        eventually(lambda: code(one(api, f"m{next(number)}")) == (429, "queue_full"), 60, "the queue is full")
        assert_says_when_to_come_again(one(api))
        with closing(redis.Redis.from_url(settings.redis_url)) as broker:
            broker.delete("sparsewell.encode.standin")
        eventually(lambda: one(api).status_code == 202, 60, "the queue was emptied")
        away = settings.model_copy(
            update={"redis_url": f"redis://127.0.0.1:{find_free_port()}/0", "max_queue_messages": 1}
        )
        with TestClient(create_app(away)) as other:
            assert [one(other).json()["queued"] for _ in range(3)] == [False] * 3


class TestSlowSenders:
    """A sender has three seconds."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"body_timeout": 3.0})

    def test_a_slow_sender_is_told_and_its_place_is_free(
        self, api: httpx.Client, begun: Callable[..., socket.socket], eventually: Eventually
    ) -> None:
        slow = [begun(b"[", 5000) for _ in range(3)]
        for sender in slow:
            head, problem = answered(sender)
            assert head.startswith(b"HTTP/1.1 408")
            assert problem["code"] == "body_timeout"
        assert one(api).status_code == 202

    def test_of_a_stream_that_stalls_what_came_is_kept(
        self, begun: Callable[..., socket.socket], api: httpx.Client
    ) -> None:
        sender = begun(lines(600), 10**6, "application/x-ndjson")
        received = b""
        while not received.endswith(b"}}"):
            received += sender.recv(65536)
        body = json.loads(received.partition(b"\r\n\r\n")[2])
        assert (len(body["accepted"]), body["stopped"]["code"], body["stopped"]["after"]) == (600, "body_timeout", 600)
        assert api.get(f"/v1/jobs/{body['job']['id']}").json()["states"]["pending"] == 600


def test_opensearchs_own_refusals_come_out_as_ours(settings: Settings) -> None:
    """OpenSearch refuses the whole request, or each item, as with a full write queue."""
    refused = {"status": 429, "error": {"type": "rejected_execution_exception"}}
    app = create_app(settings.model_copy(update={"opensearch_timeout": 5.0}))
    with TestClient(app) as api:
        search = app.state.app_state.search
        send = search.send

        async def by_item(call: Call) -> Any:
            return {"items": [{"index": refused}]} if call.path == "/_bulk" else await send(call)

        async def whole(call: Call) -> Any:
            if call.path == "/_bulk":
                raise Overloaded("opensearch_overloaded", "")
            return await send(call)

        for way in (by_item, whole):
            search.send = way
            answer = one(api)
            assert code(answer) == (429, "opensearch_overloaded")
            assert_says_when_to_come_again(answer)
        search.send = send
        assert one(api).status_code == 202


class TestRedisWithoutMemory:
    """A Redis of the test that refuses writes."""

    @pytest.fixture
    def redis_url(self, local_settings: LocalSettings) -> Iterator[str]:
        with temporary_redis(local_settings) as server:
            yield server.url

    @pytest.fixture
    def broker(self, redis_url: str) -> Iterator["redis.Redis"]:
        with closing(redis.Redis.from_url(redis_url)) as client:
            yield client

    def test_producers_are_told_and_documents_are_kept(
        self, api: httpx.Client, broker: "redis.Redis", redis_url: str
    ) -> None:
        assert one(api).json()["queued"] is True
        broker.config_set("maxmemory", "1")
        with closing(Publisher(redis_url)) as publisher:
            for _ in range(2):
                with pytest.raises(Overloaded) as caught:
                    publisher.encode("standin", EncodeMessage(index="docs", ids=("a",)))
                assert caught.value.code == "redis_full"
            answer = one(api)
            assert (answer.status_code, answer.json()["queued"]) == (202, False)
            assert api.get("/v1/indexes/docs/search", params={"q": "x"}).status_code == 200
            broker.config_set("maxmemory", "0")
            publisher.encode("standin", EncodeMessage(index="docs", ids=("a",)))
        assert one(api).json()["queued"] is True

    def test_a_load_through_the_queue_waits_for_room(self, broker: "redis.Redis", redis_url: str) -> None:
        said: list[str] = []

        def make_room(message: str) -> None:
            said.append(message)
            broker.config_set("maxmemory", "0")

        broker.config_set("maxmemory", "1")
        with closing(QueueDestination(redis_url, "docs", None, 60, make_room)) as door:
            assert door.send(SourceBatch([(1, b'{"id":"a","text":"x"}')], SourcePosition(0, 1, 10))).accepted == 1
        assert "redis_full" in said[0]
        assert broker.llen(INGEST_QUEUE) == 1

    def test_the_bytes_of_a_queue_are_known(self, broker: "redis.Redis", redis_url: str) -> None:
        with closing(Publisher(redis_url)) as publisher:
            assert publisher.queued_bytes(INGEST_QUEUE) == 0
            broker.lpush(INGEST_QUEUE, b"x" * 1_000_000)
            held = publisher.queued_bytes(INGEST_QUEUE)
            assert held is not None
            assert held >= 1_000_000
