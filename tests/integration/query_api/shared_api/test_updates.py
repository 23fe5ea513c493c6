"""Updates through the REST API: a document stays findable by meaning, and the same text is not encoded again."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import redis

from services.documents.document import raw_version
from services.opensearch.client import Call, SyncSearchClient
from services.queue.lanes import interactive_queue
from services.settings import Settings

DAY = 86_400_000_000
PATH = "/v1/indexes/docs/documents/a"


@pytest.fixture
def search(settings: Settings) -> Iterator[SyncSearchClient]:
    client = SyncSearchClient(settings)
    yield client
    client.close()


@pytest.fixture
def index(api: httpx.Client, encode: Callable[[], None]) -> str:
    """Create an index with one encoded document."""
    assert api.put("/v1/indexes/docs", json={"fields": {"price": "number"}}).status_code == 201
    put(api, text="Make a temporary folder.", metadata={"price": 1})
    encode()
    refresh(api)
    assert found(api, "temporary folder") == ["a"]
    return "docs"


def put(api: httpx.Client, status: int = 202, **document: Any) -> None:
    answer = api.put(PATH, json=document)
    assert answer.status_code == status, answer.text


def refresh(api: httpx.Client) -> None:
    """Reading a job refreshes its index. A refresh interval passes otherwise."""
    time.sleep(1.2)


def found(api: httpx.Client, query: str, mode: str = "sparse", **more: Any) -> list[str]:
    answer = api.post("/v1/indexes/docs/search", json={"query": query, "mode": mode, **more})
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.json()["hits"]]


def waiting(settings: Settings) -> int:
    with redis.Redis.from_url(settings.redis_address) as client:
        return int(client.llen(interactive_queue("standin")))


@pytest.mark.usefixtures("index")
def test_an_updated_document_is_found_by_its_earlier_vectors_until_it_is_encoded(
    api: httpx.Client, encode: Callable[[], None]
) -> None:
    put(api, text="Pause the program for a while.")
    shown = api.get(PATH).json()
    assert (shown["state"], shown["vectors"], shown["text"]) == ("pending", "earlier", "Pause the program for a while.")
    assert "earlier" not in shown
    refresh(api)
    assert found(api, "temporary folder") == ["a"]
    hit = api.post("/v1/indexes/docs/search", json={"query": "temporary folder", "mode": "hybrid"}).json()["hits"][0]
    assert (hit["state"], hit["passage"]["text"]) == ("pending", "Pause the program for a while.")
    put(api, text="Walk slowly.")
    refresh(api)
    assert found(api, "temporary folder") == ["a"], "a second update keeps the vectors of the last encoded version"
    encode()
    refresh(api)
    shown = api.get(PATH).json()
    assert (shown["state"], shown["vectors"]) == ("encoded", "current")
    assert found(api, "temporary folder") == []
    assert found(api, "walk slowly") == ["a"]


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("score_by", ["document", "window"])
def test_an_explanation_has_the_earlier_vectors_that_found_a_document(
    api: httpx.Client, encode: Callable[[], None], score_by: str
) -> None:
    path = "/v1/indexes/windows"
    assert api.put(path, json={"windows": "both", "window": {"pieces": 16, "overlap": 2}}).status_code == 201
    words = {"text": "Make a temporary folder. " * 20}
    assert api.put(f"{path}/documents/a", json=words).status_code == 202
    encode()
    assert api.put(f"{path}/documents/a", json={"text": "Pause the program."}).status_code == 202
    refresh(api)
    request = {"query": "temporary folder", "mode": "sparse", "score_by": score_by, "explain": True, "highlight": True}
    (hit,) = api.post(f"{path}/search", json=request).json()["hits"]
    assert (hit["state"], hit["passage"]["text"]) == ("pending", "Pause the program.")
    assert sum(why["contribution"] for why in hit["why"]) == pytest.approx(hit["score"], rel=1e-5)
    assert {why["piece"] for why in hit["why"]} >= {"temporary", "folder"}


@pytest.mark.usefixtures("index")
def test_an_updated_document_serves_as_an_example_by_its_earlier_vectors(
    api: httpx.Client, encode: Callable[[], None]
) -> None:
    other = "/v1/indexes/docs/documents/b"
    assert api.put(other, json={"text": "A folder that is temporary."}).status_code == 202
    encode()
    put(api, text="Pause the program for a while.")
    refresh(api)
    for request in ({"like": ["a"]}, {"query": "temporary folder", "feedback": {"documents": 2}}):
        answer = api.post("/v1/indexes/docs/search", json=request)
        assert answer.status_code == 200, answer.text
        assert answer.json()["feedback"]["without_vector"] == []
        assert "b" in [hit["id"] for hit in answer.json()["hits"]]


@pytest.mark.usefixtures("index")
def test_a_change_of_metadata_alone_is_searchable_at_once_and_asks_no_worker(
    api: httpx.Client, settings: Settings
) -> None:
    put(api, text="Make a temporary folder.", metadata={"price": 2})
    assert waiting(settings) == 0
    shown = api.get(PATH).json()
    assert (shown["state"], shown["vectors"], shown["metadata"]) == ("encoded", "current", {"price": 2})
    refresh(api)
    for mode in ("sparse", "lexical", "hybrid"):
        assert found(api, "temporary folder", mode, filter={"field": "price", "is": 2}) == ["a"]
        assert found(api, "temporary folder", mode, filter={"field": "price", "is": 1}) == []


@pytest.mark.usefixtures("index")
def test_a_delete_takes_the_earlier_vectors_away(api: httpx.Client, encode: Callable[[], None]) -> None:
    put(api, text="Pause the program for a while.")
    assert api.delete(PATH).status_code == 204
    encode()
    refresh(api)
    assert found(api, "temporary folder") == []
    put(api, text="Walk slowly.")
    refresh(api)
    assert found(api, "temporary folder") == [], "a tombstone has no vectors"
    assert api.get(PATH).json()["vectors"] == "none"


@pytest.mark.usefixtures("index")
def test_a_stale_put_is_a_conflict_as_a_stale_delete_is(api: httpx.Client) -> None:
    put(api, text="two", version=2, status=409)
    assert api.put(PATH, json={"text": "two", "version": 2}).json()["code"] == "stale_version"


@pytest.mark.usefixtures("index")
def test_a_write_without_a_version_wins_over_a_host_whose_clock_is_a_day_ahead(
    api: httpx.Client, search: SyncSearchClient, settings: Settings
) -> None:
    physical = f"{settings.index_prefix}-docs.g000001"
    ahead = time.time_ns() // 1000 + DAY
    call = Call(
        "PUT", f"/{physical}/_doc/a", b'{"text":"ahead","state":"pending","version":%d}' % ahead,
        {"version": raw_version(ahead), "version_type": "external"},
    )  # fmt: skip
    search.send(call)
    put(api, text="later")
    assert api.get(PATH).json()["text"] == "later"
    assert api.delete(PATH).status_code == 204
    put(api, text="afterwards")
    assert api.get(PATH).json()["text"] == "afterwards"


@pytest.mark.usefixtures("index")
def test_a_write_with_an_idempotency_key_wins_over_such_a_host_and_its_repetition_does_not_win_again(
    api: httpx.Client, search: SyncSearchClient, settings: Settings
) -> None:
    ahead = time.time_ns() // 1000 + DAY
    document = b'{"text":"ahead","state":"pending","version":%d}' % ahead
    external = {"version": raw_version(ahead), "version_type": "external"}
    search.send(Call("PUT", f"/{settings.index_prefix}-docs.g000001/_doc/a", document, external))
    key = {"idempotency-key": "one"}
    first = api.put(PATH, json={"text": "later"}, headers=key)
    assert (first.status_code, api.get(PATH).json()["text"]) == (202, "later")
    job = first.json()["job"]["id"]
    # The process died before it stored the outcome: the repetition is executed.
    forgotten = b'{"script": {"source": "ctx._source.remove(\'outcome\')"}}'
    search.send(Call("POST", f"/{settings.index_prefix}_jobs/_update/{job}", forgotten))
    assert api.put(PATH, json={"text": "later"}, headers=key).status_code == 202
    put(api, text="newest")
    search.send(Call("POST", f"/{settings.index_prefix}_jobs/_update/{job}", forgotten))
    assert api.put(PATH, json={"text": "later"}, headers=key).json()["code"] == "stale_version"
    assert api.get(PATH).json()["text"] == "newest"


@pytest.mark.usefixtures("index")
def test_the_highest_version_of_one_request_wins(api: httpx.Client) -> None:
    items = [{"id": "x", "text": f"v{version}", "version": version} for version in (1, 3, 2)]
    answer = api.post("/v1/indexes/docs/documents", json=items).json()
    assert answer["accepted"] == ["x"]
    assert [(each["position"], each["code"]) for each in answer["rejected"]] == [
        (1, "stale_version"),
        (3, "stale_version"),
    ]
    assert api.get("/v1/indexes/docs/documents/x").json()["text"] == "v3"


def test_a_document_that_opensearch_refuses_is_not_called_stale(api: httpx.Client) -> None:
    """Java's offsets end at 18 hours, Python's at 24."""
    api.put("/v1/indexes/docs", json={"fields": {"when": "date"}})
    answer = api.put(PATH, json={"text": "t", "metadata": {"when": "2024-01-01T00:00:00+19:00"}})
    assert (answer.status_code, answer.json()["code"]) == (422, "refused_by_opensearch")
    assert api.get(PATH).status_code == 404
