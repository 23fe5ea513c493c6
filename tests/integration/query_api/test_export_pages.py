"""GET export: every document once, as of the start, in pages that say whether they are complete."""

import base64
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest

from cli.loading.export import read_page
from services.settings import Settings

PATH = "/v1/indexes/books/export"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Use three shards: an order that holds in only one of them would lose documents between pages."""
    return settings.model_copy(update={"shards": 3})


def put(api: httpx.Client, count: int, words: str = "words") -> list[dict[str, Any]]:
    documents = [
        {"id": f"d{n}", "title": f"Title {n}", "text": f"{words} number {n}", "metadata": {"year": n}, "version": n + 1}
        for n in range(count)
    ]
    api.post("/v1/indexes/books/documents", json=documents).raise_for_status()
    return documents


def whole(api: httpx.Client, **first: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return all documents, and the report in the last line of each page."""
    documents, told, parameters = [], [], first
    while True:
        lines, last = read_page(api.get(PATH, params=parameters).raise_for_status().content)
        documents += [orjson.loads(line) for line in lines]
        told.append(last)
        if last["cursor"] is None:
            return documents, told
        parameters = {"cursor": last["cursor"], "size": first.get("size", 1000)}


@pytest.fixture
def books(api: httpx.Client) -> httpx.Client:
    api.put("/v1/indexes/books", json={"fields": {"year": "number"}}).raise_for_status()
    return api


@pytest.mark.parametrize("size", [1, 7, 60, 1000])
def test_every_document_comes_once_in_pages_of_any_size(books: httpx.Client, size: int) -> None:
    """The test exports at once after the 202: the export includes all acknowledged documents."""
    sent = put(books, 60)
    documents, told = whole(books, size=size)
    assert sorted(documents, key=lambda one: one["version"]) == [one | {"state": "pending"} for one in sent]
    assert all(last["documents"] <= size and last["total"] == 60 for last in told)
    assert [last["exported"] for last in told[-2:]] == [60, 60]
    assert told[-1]["documents"] == 0


def test_an_empty_index_is_one_line(books: httpx.Client) -> None:
    documents, told = whole(books)
    assert documents == []
    assert told == [{"index": "books", "documents": 0, "exported": 0, "total": 0, "cursor": None}]


def test_it_is_a_snapshot_while_writes_go_on(books: httpx.Client) -> None:
    put(books, 40)
    lines, last = read_page(books.get(PATH, params={"size": 10}).content)
    for n in range(40):  # the control: a reader of the current state sees none of the first texts
        books.put(f"/v1/indexes/books/documents/d{n}", json={"text": "changed", "version": 1000}).raise_for_status()
    books.put("/v1/indexes/books/documents/new", json={"text": "new"}).raise_for_status()
    books.delete("/v1/indexes/books/documents/d39").raise_for_status()
    texts = [orjson.loads(line)["text"] for line in lines]
    while last["cursor"] is not None:
        lines, last = read_page(books.get(PATH, params={"cursor": last["cursor"], "size": 10}).content)
        texts += [orjson.loads(line)["text"] for line in lines]
    assert sorted(texts) == sorted(f"words number {n}" for n in range(40))
    now, _ = whole(books)
    assert {one["text"] for one in now} == {"changed", "new"}
    assert len(now) == 40
    assert "d39" not in {one["id"] for one in now}


def test_a_page_can_be_asked_for_again(books: httpx.Client) -> None:
    put(books, 30)
    _, first = read_page(books.get(PATH, params={"size": 10}).content)
    parameters = {"cursor": first["cursor"], "size": 10}
    pages = [read_page(books.get(PATH, params=parameters).content)[0] for _ in range(3)]
    assert pages[0] == pages[1] == pages[2]
    _, told = whole(books, size=10)
    ends = [books.get(PATH, params={"cursor": told[-2]["cursor"]}) for _ in range(2)]
    assert [read_page(end.content)[1]["cursor"] for end in ends] == [None, None]


def test_vectors_come_by_window_with_ids_pieces_and_weights(books: httpx.Client, encode: Callable[[], None]) -> None:
    put(books, 3, "whale captain obsession")
    encode()
    assert books.get("/v1/indexes/books").json()["documents"]["encoded"] == 3
    documents, _ = whole(books, vectors=True)
    assert len(documents) == 3
    for document in documents:
        (window,) = document["windows"]
        text = f"{document['title']}\n{document['text']}"
        assert (window["start"], window["end"]) == (0, len(text))
        assert "whale" in window["pieces"]
        assert len(window["ids"]) == len(window["pieces"]) == len(window["weights"])
        assert document["encoder"] == books.get("/v1/indexes/books").json()["encoder"]["fingerprint"]
        # these are the weights that a search adds up
        answer = books.post(
            "/v1/indexes/books/search",
            json={"query": f"whale {document['id'][1:]}", "mode": "sparse", "explain": True, "size": 3},
        ).json()
        (hit,) = [hit for hit in answer["hits"] if hit["id"] == document["id"]]
        weights = dict(zip(window["ids"], window["weights"], strict=True))
        assert {why["id"]: why["document_weight"] for why in hit["why"]} == {
            why["id"]: weights[why["id"]] for why in hit["why"]
        }
    assert whole(books, vectors=True, state="pending")[0] == []
    assert len(whole(books, state=["pending", "encoded"])[0]) == 3
    assert "windows" not in whole(books)[0][0]


def test_pages_are_bounded_by_bytes(books: httpx.Client) -> None:
    text = "x" * 900_000
    for n in range(40):
        books.put(f"/v1/indexes/books/documents/d{n}", json={"text": text}).raise_for_status()
    documents, told = whole(books, size=10_000)
    assert len({one["id"] for one in documents}) == 40
    assert max(last["documents"] for last in told) < 40


SEAL = 16


def content(cursor: str) -> tuple[bytes, list[Any]]:
    """Return the seal and the sealed content. The content is readable, but invalid with another seal."""
    whole = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    return whole[:SEAL], orjson.loads(whole[SEAL:])


def altered(cursor: str, at: int, value: Any) -> str:
    seal, values = content(cursor)
    values[at] = value
    return base64.urlsafe_b64encode(seal + orjson.dumps(values)).decode()


def test_a_cursor_that_is_none_is_refused(books: httpx.Client) -> None:
    put(books, 5)
    _, told = read_page(books.get(PATH, params={"size": 2}).content)
    cursor = told["cursor"]
    foreign = [altered(cursor, at, value) for at, value in [
        (0, "other.g000001"), (1, "nonsense"), (1, 3), (2, -1), (4, []), (4, ["deleted"]), (5, 1), (7, "x"), (7, 2**40),
    ]]  # fmt: skip
    for wrong in ["x", "é", "a" * 3000, "W10", *foreign]:
        answer = books.get(PATH, params={"cursor": wrong})
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_cursor"), wrong
    for changed in ({"vectors": True}, {"state": "dead"}):
        answer = books.get(PATH, params={"cursor": cursor, **changed})
        assert answer.json()["code"] == "bad_cursor"
    # requests to OpenSearch contain the name and the point in time, so clients must not choose them
    for at, value in ((0, "p-books.g000001,*/_search?q=x"), (1, "_all")):
        bare = content(altered(cursor, at, value))[1]
        for forged in (altered(cursor, at, value), base64.urlsafe_b64encode(orjson.dumps(bare)).decode()):
            answer = books.get(PATH, params={"cursor": forged, "vectors": "true"})
            assert (answer.status_code, answer.json()["code"]) == (422, "bad_cursor")
    # the service refuses a point in time of another index
    books.put("/v1/indexes/others", json={}).raise_for_status()
    books.post("/v1/indexes/others/documents", json=[{"id": "secret", "text": "secret"}]).raise_for_status()
    _, other = read_page(books.get("/v1/indexes/others/export", params={"size": 1}).content)
    assert books.get(PATH, params={"cursor": other["cursor"]}).json()["code"] == "bad_cursor"
    snapshot = content(other["cursor"])[1][1]
    for shard in range(3):
        answer = books.get(PATH, params={"cursor": altered(altered(altered(cursor, 1, snapshot), 7, None), 6, shard)})
        assert "secret" not in answer.text
    assert books.get("/v1/indexes/nowhere/export").json()["code"] == "index_not_found"
    for size in (0, 10_001):
        assert books.get(PATH, params={"size": size}).json()["code"] == "invalid_request"


def test_a_snapshot_that_is_gone_says_so(books: httpx.Client, settings: Settings) -> None:
    put(books, 5)
    _, told = read_page(books.get(PATH, params={"size": 2}).content)
    snapshot = content(told["cursor"])[1][1]
    with httpx.Client(base_url=settings.opensearch_url, timeout=30, trust_env=False) as engine:
        engine.request("DELETE", "/_search/point_in_time", json={"pit_id": [snapshot]}).raise_for_status()
    answer = books.get(PATH, params={"cursor": told["cursor"]})
    assert (answer.status_code, answer.json()["code"]) == (404, "cursor_expired")


def test_the_end_lets_go_of_the_snapshot(books: httpx.Client, settings: Settings) -> None:
    put(books, 5)
    whole(books, size=2)
    with httpx.Client(base_url=settings.opensearch_url, timeout=30, trust_env=False) as engine:
        stats = engine.get(f"/{settings.index_prefix}-books.g000001/_stats/search").raise_for_status().json()
    assert stats["_all"]["total"]["search"]["point_in_time_current"] == 0
    assert stats["_all"]["total"]["search"]["point_in_time_total"] > 0  # the control


@pytest.mark.parametrize("cut", [1, 10, 200])
def test_a_page_that_was_cut_is_told_from_a_whole_one(books: httpx.Client, cut: int) -> None:
    from services.errors import BackendUnavailable

    put(books, 5)
    content = books.get(PATH).content
    assert len(read_page(content)[0]) == 5
    for partly in (content[:-cut], content[: -cut - content[::-1].index(b"\n", 1)], b""):
        with pytest.raises(BackendUnavailable) as caught:
            read_page(partly)
        assert caught.value.code == "export_cut"
