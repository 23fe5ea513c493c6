"""Pages of a search during writes: every document once and in order. The API refuses altered cursors."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from infra.processes import ChildProcess
from services.encoders.manifest import read_manifest, resolve_model_directory
from services.index_spec import IndexNames, IndexSpec
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import (
    create_generation_call,
    delete_generations_call,
    new_generation,
    read_generation,
    resolve_alias_call,
    swap_alias_call,
)
from services.settings import Settings

Eventually = Callable[[Callable[[], object], float, str], None]
PATH = "/v1/indexes/books/search"
QUERY = "whale captain"
COUNT = 60


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Use three shards: an order that holds in only one of them would lose documents between pages."""
    return settings.model_copy(update={"shards": 3, "max_points_in_time": 6, "max_offset": 100, "cursor_seconds": 30.0})


@pytest.fixture
def engine(settings: Settings) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=settings.opensearch_url, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
def books(api: httpx.Client, engine: httpx.Client, settings: Settings) -> httpx.Client:
    """Write sixty books that match, most of them with equal scores."""
    api.put("/v1/indexes/books", json={}).raise_for_status()
    put(api, {f"d{n}": "whale captain" + " sea" * (n % 3) for n in range(COUNT)})
    refresh(engine, settings)
    return api


def put(api: httpx.Client, texts: dict[str, str]) -> None:
    documents = [{"id": one, "title": one, "text": text} for one, text in texts.items()]
    api.post("/v1/indexes/books/documents", json=documents).raise_for_status()


def refresh(engine: httpx.Client, settings: Settings) -> None:
    engine.post(f"/{settings.index_prefix}-books/_refresh").raise_for_status()


def ask(api: httpx.Client, **members: Any) -> dict[str, Any]:
    response = api.post(PATH, json={"query": QUERY, "mode": "lexical", "passage": False} | members)
    answer: dict[str, Any] = response.raise_for_status().json()
    return answer


def refused(api: httpx.Client, status: int, **members: Any) -> str:
    response = api.post(PATH, json={"query": QUERY, "mode": "lexical", "passage": False} | members)
    assert response.status_code == status, response.text
    return str(response.json()["code"])


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in answer["hits"]]


def open_snapshots(engine: httpx.Client, settings: Settings) -> int:
    stats = engine.get(f"/{settings.index_prefix}-books.g000001/_stats/search").raise_for_status().json()
    return int(stats["_all"]["total"]["search"]["point_in_time_current"])


def pages(api: httpx.Client, between: Callable[[int], None], **members: Any) -> list[dict[str, Any]]:
    """Return all pages by cursor. Call `between` after each page with its number."""
    found = [ask(api, cursor="*", **members)]
    while found[-1]["cursor"] is not None:
        between(len(found))
        found.append(ask(api, cursor=found[-1]["cursor"], **members))
    return found


class Writer:
    """Delete displayed documents, add better matches, and change documents that are not displayed yet."""

    def __init__(self, api: httpx.Client, engine: httpx.Client, settings: Settings, order: list[str]) -> None:
        self._api, self._engine, self._settings, self._order = api, engine, settings, order

    def __call__(self, page: int) -> None:
        put(self._api, {f"new{page}-{n}": "whale captain" for n in range(3)})
        for one in self._order[page * 2 : page * 2 + 2]:
            self._api.delete(f"/v1/indexes/books/documents/{one}").raise_for_status()
        put(self._api, dict.fromkeys(self._order[-page * 2 :][:2], "a garden of roses"))
        refresh(self._engine, self._settings)


@pytest.fixture
def encoded(books: httpx.Client, worker: ChildProcess, eventually: Eventually) -> httpx.Client:
    counts: Callable[[], Any] = lambda: books.get("/v1/indexes/books").json()["documents"]  # noqa: E731
    eventually(lambda: counts()["encoded"] == COUNT, 60, "the documents are encoded")
    return books


@pytest.mark.parametrize("mode", ["lexical", "sparse", "hybrid"])
def test_pages_are_the_ranking_of_the_start_whatever_is_written_meanwhile(
    encoded: httpx.Client, engine: httpx.Client, settings: Settings, mode: str
) -> None:
    whole = ask(encoded, mode=mode, size=100)
    order = ids(whole)
    assert len(order) == COUNT
    write = Writer(encoded, engine, settings, order)
    found = pages(encoded, write, mode=mode, size=7)
    assert len(found) == 9
    assert sorted(one for page in found for one in ids(page)) == sorted(order), "each once"
    scores = [hit["score"] for page in found for hit in page["hits"]]
    assert scores == pytest.approx([hit["score"] for hit in whole["hits"]])
    assert [page["end"] for page in found] == [None] * 8 + ["matches"]
    # a page shows the matched version of a document, never a later text
    assert {hit["title"] for page in found for hit in page["hits"]} == set(order)
    now = ids(ask(encoded, mode=mode, size=100))
    assert len(set(now) - set(order)) == 24, "the control: a search that begins now finds the new ones"


def test_without_a_cursor_writes_move_documents_between_pages(
    books: httpx.Client, engine: httpx.Client, settings: Settings
) -> None:
    """The control of the test above: the same writes with pages by offset move documents."""
    order = ids(ask(books, size=100))
    write = Writer(books, engine, settings, order)
    seen: list[str] = []
    for page in range(9):
        if page:
            write(page)
        seen += ids(ask(books, size=7, offset=page * 7))
    assert set(order) - set(seen), "some that were there all the time until then are missed"


@pytest.mark.parametrize("size", [1, 2, 25, 59, 60, 61])
def test_pages_of_any_size(books: httpx.Client, size: int) -> None:
    found = pages(books, lambda page: None, size=size)
    assert sorted(one for page in found for one in ids(page)) == sorted(f"d{n}" for n in range(COUNT))
    assert all(len(page["hits"]) == size for page in found[:-1])
    assert found[-1]["hits"], "the last page is never empty"


def test_how_much_is_shown_may_change_from_page_to_page(books: httpx.Client) -> None:
    first = ask(books, cursor="*", size=10)
    more = ask(books, cursor=first["cursor"], size=20, passage=True, explain=True, fields=["text"])
    assert len(more["hits"]) == 20
    assert all(hit["passage"] and hit["why"] and hit["text"] for hit in more["hits"])
    assert not set(ids(first)) & set(ids(more))
    again = ask(books, cursor=first["cursor"], size=20)
    assert ids(again) == ids(more), "a page can be asked for again"
    simple = books.get(PATH, params={"q": QUERY, "mode": "lexical", "size": 10, "cursor": "*"}).json()
    assert simple["cursor"]


def test_hybrid_pages_end_with_the_candidates_and_say_so(encoded: httpx.Client) -> None:
    found = pages(encoded, lambda page: None, mode="hybrid", size=10, candidates=15)
    given = [one for page in found for one in ids(page)]
    assert 15 <= len(given) == len(set(given)) <= 30
    assert found[-1]["end"] == "candidates"
    (alone,) = pages(encoded, lambda page: None, mode="hybrid", query="rhinoceros", size=10)
    assert (alone["hits"], alone["cursor"], alone["end"]) == ([], None, "matches")


def test_snapshots_are_let_go_of_at_the_last_page_and_an_ordinary_search_takes_none(
    books: httpx.Client, engine: httpx.Client, settings: Settings
) -> None:
    ask(books), ask(books, offset=10)
    assert open_snapshots(engine, settings) == 0
    first = ask(books, cursor="*", size=50)
    assert open_snapshots(engine, settings) == 3  # one for each shard
    last = ask(books, cursor=first["cursor"], size=50)
    assert (last["cursor"], last["end"]) == (None, "matches")
    assert open_snapshots(engine, settings) == 0
    assert refused(books, 404, cursor=first["cursor"], size=50) == "cursor_expired"
    assert ask(books, cursor="*", size=100)["cursor"] is None
    assert open_snapshots(engine, settings) == 0


def test_pages_outlive_a_swap_of_generations_and_end_when_theirs_is_dropped(
    books: httpx.Client, settings: Settings, eventually: Eventually
) -> None:
    first = ask(books, cursor="*", size=50)
    with closing(SyncSearchClient(settings)) as search:
        names = IndexNames(settings.index_prefix)
        old = read_generation(search.send(resolve_alias_call(names, "books")), "books")
        manifest = read_manifest(resolve_model_directory(settings.encoder))
        new = new_generation(names, "books", 2, IndexSpec.model_validate({}), manifest, old.lineage)
        search.send(create_generation_call(new, settings, []))
        search.send(swap_alias_call(old, new))
        eventually(lambda: ask(books)["hits"] == [], 60, "the new generation, which is empty, is searched")
        second = ask(books, cursor=first["cursor"], size=5)
        assert len(set(ids(first) + ids(second))) == 55
        search.send(delete_generations_call([old]))
    assert refused(books, 404, cursor=second["cursor"], size=5) == "cursor_expired"


def test_a_search_that_fails_leaves_no_snapshot(books: httpx.Client, engine: httpx.Client, settings: Settings) -> None:
    assert refused(books, 422, cursor="*", query=" ".join(f"w{n}" for n in range(1030))) == "query_too_long"
    assert open_snapshots(engine, settings) == 0


def test_a_cursor_that_nobody_asked_with_in_time(books: httpx.Client, engine: httpx.Client) -> None:
    first = ask(books, cursor="*", size=5)
    open_ones = engine.get("/_search/point_in_time/_all").raise_for_status().json()["pits"]
    # (the newest is this test's; other tests may share the node)
    newest = max(open_ones, key=lambda pit: pit["creation_time"])
    engine.request("DELETE", "/_search/point_in_time", json={"pit_id": [newest["pit_id"]]}).raise_for_status()
    assert refused(books, 404, cursor=first["cursor"], size=5) == "cursor_expired"


def test_how_many_snapshots_a_process_holds_is_limited(
    books: httpx.Client, engine: httpx.Client, settings: Settings
) -> None:
    first = [ask(books, cursor="*", size=5) for _ in range(2)]
    response = books.post(PATH, json={"query": QUERY, "mode": "lexical", "cursor": "*"})
    assert (response.status_code, response.json()["code"]) == (429, "too_many_snapshots")
    assert 1 <= int(response.headers["retry-after"]) <= settings.cursor_seconds
    assert len(ask(books)["hits"]) == 10, "other searches are not touched"
    assert ask(books, cursor=first[0]["cursor"], size=100)["cursor"] is None
    assert ask(books, cursor="*", size=5)["cursor"], "one reached its last page, so there is room"


def test_a_cursor_belongs_to_its_search(books: httpx.Client) -> None:
    first = ask(books, cursor="*", size=5)
    cursor = first["cursor"]
    for other in (
        {"query": "whale"}, {"mode": "hybrid"}, {"mode": "sparse"}, {"weights": {"sparse": 1, "lexical": 0}},
        {"candidates": 50},
    ):  # fmt: skip
        assert refused(books, 422, **{"cursor": cursor} | other) == "cursor_mismatch", other
    for at in range(0, len(cursor) - 1, 17):
        bent = cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :]
        assert refused(books, 422, cursor=bent) == "bad_cursor"
    for wrong in ("", "x", "é", "**", "a" * 5000, "\u0000", cursor + cursor, cursor[:-5]):
        assert refused(books, 422, cursor=wrong) == "bad_cursor", wrong
    assert refused(books, 422, cursor=cursor, offset=5) == "offset_with_cursor"
    assert refused(books, 422, cursor=5) == "invalid_request"
    books.put("/v1/indexes/others", json={}).raise_for_status()
    answer = books.post("/v1/indexes/others/search", json={"query": QUERY, "mode": "lexical", "cursor": cursor})
    assert answer.json()["code"] == "bad_cursor"
    assert (
        books.post("/v1/indexes/nowhere/search", json={"query": "x", "cursor": "*"}).json()["code"] == "index_not_found"
    )
    assert len(ask(books, cursor=cursor, size=5)["hits"]) == 5, "it was not harmed"


@pytest.mark.parametrize("mode", ["lexical", "hybrid"])
def test_offsets_are_parts_of_one_ranking_and_capped(books: httpx.Client, mode: str) -> None:
    whole = ids(ask(books, mode=mode, size=100))
    parts = [ask(books, mode=mode, size=25, offset=offset) for offset in (0, 25, 50, 75)]
    assert [one for part in parts for one in ids(part)] == whole
    assert [part.get("end") for part in parts] == [None, None, "matches", "matches"]
    assert refused(books, 422, mode=mode, size=26, offset=75) == "offset_too_large"
    assert refused(books, 422, mode=mode, offset=10**30) == "offset_too_large"
    for wrong in (-1, "x", 1.5, None):
        assert refused(books, 422, mode=mode, offset=wrong) == "invalid_request"
