"""Test promises that a review found broken: late writes to deleted indexes, lost responses, weak limits."""

import asyncio
import json
import time
from collections.abc import Iterator

import httpx
import pytest

from infra.ports import find_free_port
from services.errors import NotFound
from services.opensearch.bulk import Write, WriteOutcome, write_bulk
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import generation_call, read_generations
from services.settings import Settings

JSON = {"content-type": "application/json"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_document_bytes": 5_000, "journal_bytes": 20_000})


@pytest.fixture
def search(settings: Settings) -> Iterator[SyncSearchClient]:
    client = SyncSearchClient(settings)
    yield client
    client.close()


@pytest.mark.parametrize("through", ["alias", "write_alias"])  # a client's document, and a worker's write of it
def test_a_late_write_does_not_bring_a_deleted_index_back(
    api: httpx.Client, settings: Settings, search: SyncSearchClient, opensearch_url: str, through: str
) -> None:
    physical = f"{settings.index_prefix}-docs.g000001"
    api.put("/v1/indexes/docs")
    (generation,) = read_generations(search.send(generation_call(physical)))
    late = Write(getattr(generation, through), "a", 1024, {"text": "x", "state": "pending"})
    assert write_bulk(search, [late], 10_000, 5)[0].outcome is WriteOutcome.STORED
    api.delete("/v1/indexes/docs")
    with pytest.raises(NotFound):
        write_bulk(search, [late], 10_000, 5)
    assert api.get("/v1/indexes/docs").status_code == 404
    if through == "write_alias":  # the write does not reach another index of the same name either
        assert api.put("/v1/indexes/docs").status_code == 201
        with pytest.raises(NotFound):
            write_bulk(search, [late], 10_000, 5)
        api.delete("/v1/indexes/docs")
    # the control: OpenSearch creates an index for a write to the physical name
    with httpx.Client(base_url=opensearch_url, timeout=30, trust_env=False) as node:
        assert node.put(f"/{physical}/_doc/a", json={"text": "x"}).status_code == 201
    refused = api.put("/v1/indexes/docs")
    assert (refused.status_code, refused.json()["code"]) == (409, "already_exists")


def test_another_api_that_remembers_a_deleted_index_acknowledges_nothing(
    api: httpx.Client, opensearch_url: str, settings: Settings
) -> None:
    api.put("/v1/indexes/docs")
    assert api.put("/v1/indexes/docs/documents/a", json={"text": "x"}).status_code == 202
    with httpx.Client(base_url=opensearch_url, timeout=30, trust_env=False) as node:
        node.delete(f"/{settings.index_prefix}-docs.g000001").raise_for_status()
    lost = api.put("/v1/indexes/docs/documents/b", json={"text": "x"})
    assert (lost.status_code, lost.json()["code"]) == (404, "index_not_found")


def test_a_foreign_index_under_our_prefix_disturbs_nothing(
    api: httpx.Client, opensearch_url: str, settings: Settings
) -> None:
    api.put("/v1/indexes/docs")
    with httpx.Client(base_url=opensearch_url, timeout=30, trust_env=False) as node:
        name = f"{settings.index_prefix}-logs"
        node.put(f"/{name}", json={"aliases": {f"{name}-a": {}}}).raise_for_status()
    assert [index["name"] for index in api.get("/v1/indexes").json()["indexes"]] == ["docs"]
    assert api.get("/readyz").status_code == 200


async def _forward(proxy: "LosingProxy", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(v) for k, _, v in (h.partition(b":") for h in head.split(b"\r\n")) if k.lower() == b"content-length"), 0)  # noqa: E501  # fmt: skip
    body = await reader.readexactly(length)
    upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", proxy.target)
    upstream.write(head.replace(b"keep-alive", b"close") + body)
    answer = await upstream_reader.read()
    if b"POST /_bulk" in head and proxy.losing:
        proxy.losing -= 1  # the write is stored, but its response is lost
    else:
        writer.write(answer)
        await writer.drain()
    for one in (writer, upstream):
        one.close()
        await one.wait_closed()


class LosingProxy:
    """Forward to OpenSearch and drop the responses to the first bulk requests."""

    def __init__(self, target: int, losing: int) -> None:
        self.target, self.losing, self.port = target, losing, find_free_port()

    async def serve(self) -> asyncio.Server:
        return await asyncio.start_server(lambda r, w: _forward(self, r, w), "127.0.0.1", self.port)


async def test_documents_whose_acknowledgement_was_lost_are_accepted_not_called_stale(settings: Settings) -> None:
    from query_api.app import create_app

    proxy = LosingProxy(httpx.URL(settings.opensearch_url).port or 9200, losing=1)
    server = await proxy.serve()
    app = create_app(settings.model_copy(update={"opensearch_url": f"http://127.0.0.1:{proxy.port}"}))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, timeout=30, base_url="http://api") as api:
            await api.put("/v1/indexes/docs")
            answer = await api.post("/v1/indexes/docs/documents", json=[{"id": "a", "text": "x"}])
            assert proxy.losing == 0
            assert answer.status_code == 202, answer.text
            assert answer.json()["accepted"] == ["a"]
    server.close()


def test_an_array_keeps_the_limit_of_a_document(api: httpx.Client) -> None:
    api.put("/v1/indexes/docs")
    answer = api.post("/v1/indexes/docs/documents", json=[{"id": "a", "text": "x" * 6000}, {"id": "b", "text": "x"}])
    assert answer.json()["accepted"] == ["b"]
    assert answer.json()["rejected"][0]["code"] == "document_too_large"


def test_an_index_called_documents_has_the_limits_of_others(api: httpx.Client) -> None:
    api.put("/v1/indexes/documents")
    answer = api.post("/v1/indexes/documents/search", content=b" " * 2_000_000, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("mode", ["lexical", "hybrid"])
def test_more_words_than_lucene_takes_are_the_askers_fault(api: httpx.Client, mode: str) -> None:
    api.put("/v1/indexes/docs")
    answer = api.post("/v1/indexes/docs/search", json={"query": "あ" * 2000, "mode": mode})
    assert (answer.status_code, answer.json()["code"]) == (422, "query_too_long")


def test_a_window_that_the_encoder_cannot_take_is_refused_before_documents_die_of_it(api: httpx.Client) -> None:
    answer = api.put("/v1/indexes/docs", json={"window": {"pieces": 8192, "overlap": 0}})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_window")


def test_a_body_that_is_not_utf8_is_not_json(api: httpx.Client) -> None:
    api.put("/v1/indexes/docs")
    answer = api.post("/v1/indexes/docs/search", content=b'{"query":"\xff"}', headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_json")


async def test_a_search_keeps_its_deadline_when_opensearch_hangs(settings: Settings) -> None:
    from query_api.app import create_app

    over = asyncio.Event()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()
        await writer.wait_closed()

    port = find_free_port()
    server = await asyncio.start_server(hang, "127.0.0.1", port)
    app = create_app(settings.model_copy(update={"opensearch_url": f"http://127.0.0.1:{port}", "search_timeout": 2.0}))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, timeout=30, base_url="http://api") as api,
    ):
        began = time.monotonic()
        answer = await api.get("/v1/indexes/docs/search", params={"q": "x"})
        assert time.monotonic() - began < 20
        assert (answer.status_code, json.loads(answer.content)["code"]) == (503, "opensearch_timeout")
    over.set()
    server.close()
    await asyncio.sleep(0.1)
