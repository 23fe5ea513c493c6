"""Suggestions of a real index: title completions and spelling corrections, without hidden or filtered documents."""

import asyncio
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

from cli.search import search, suggest
from query_api import query_log
from services.errors import BackendUnavailable, SparsewellError
from services.opensearch.client import AsyncSearchClient, Call
from services.settings import Settings

Eventually = Callable[[Callable[[], object], float, str], None]
NewService = Callable[..., AbstractContextManager[tuple[httpx.Client, Settings]]]

TITLES = {
    "machine": "The Time Machine",
    "twin": "the  time machine",
    "learning": "Machine learning",
    "kill": "A Time to Kill",
    "cafe": "Café Society",
    "star": "L\u2019E\u0301toile du Nord",
    "moby": "Moby-Dick",
    "secret": "Machinations of the Board",
    "opening": "Opening hours",
    "long": "Machine " + "very " * 60,
    "empty": "",
}
# The words "expresso", "quokka" and "skarns" are no pieces of the encoder.
RARE_TEXTS = {
    "misspelt": "An expresso machine.",
    "rare": "A quokka rests.",
    "bohm": "Böhm wrote about whales.",
    "skarn": "Skarn is a rock.",
    "other": "A rock of skarn.",
    **{f"skirns{n}": "Skirns of rock." for n in range(10)},
}
PATH = "/v1/indexes/books/suggest"


@pytest.fixture(scope="module")
def api(new_service: NewService) -> Iterator[httpx.Client]:
    """Yield a service with an index of documents that wait to be encoded."""
    with pytest.MonkeyPatch.context() as patch, new_service(learn_queries="asked, others") as (client, _):
        patch.setattr(query_log, "FLUSH_INTERVAL_SECONDS", 0.1)
        client.put("/v1/indexes/books", json={"fields": {"year": "number"}}).raise_for_status()
        documents = [
            {"id": one, "title": title, "text": "An experiment on photosynthesis.", "metadata": {"year": n}}
            for n, (one, title) in enumerate(TITLES.items())
        ]
        job = client.post("/v1/indexes/books/documents", json=documents).raise_for_status().json()["job"]["id"]
        client.get(f"/v1/jobs/{job}").raise_for_status()  # (the job status refreshes the index)
        client.put("/v1/indexes/rare", json={}).raise_for_status()
        texts = {f"espresso{n}": "An espresso machine." for n in range(10)} | RARE_TEXTS
        client.post("/v1/indexes/rare/documents", json=[{"id": key, "text": text} for key, text in texts.items()])
        job = client.put("/v1/indexes/rare/documents/end", json={"text": "end"}).raise_for_status().json()["job"]["id"]
        client.get(f"/v1/jobs/{job}").raise_for_status()
        client.put("/v1/indexes/plain", json={"language": "standard"}).raise_for_status()
        other = [{"id": "r", "text": "A rhinoceros."}]
        job = client.post("/v1/indexes/plain/documents", json=other).raise_for_status().json()["job"]["id"]
        client.get(f"/v1/jobs/{job}").raise_for_status()
        yield client


def answered(api: httpx.Client, q: str, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = api.get(PATH, params={"q": q} | options).raise_for_status().json()
    return found


def texts(api: httpx.Client, q: str, **options: Any) -> list[str]:
    return [one["text"] for one in answered(api, q, **options)["suggestions"]]


def test_titles_that_begin_so_then_titles_that_have_the_words(api: httpx.Client) -> None:
    assert texts(api, "mach") == ["Machinations of the Board", "Machine learning", "The Time Machine"]
    assert texts(api, "time m") == ["The Time Machine"]
    assert texts(api, "machine the") == ["The Time Machine"]
    assert texts(api, "time ") == ["A Time to Kill", "The Time Machine"]
    assert texts(api, "tim ", fuzzy=False) == []  # a whole word
    for typed in ("CAFE soc", "café", "cafe\u0301"):
        assert texts(api, typed) == ["Café Society"]
    assert texts(api, "l\u02bcetoile") == texts(api, "L'E\u0301toile") == ["L\u2019E\u0301toile du Nord"]
    assert texts(api, "moby d") == texts(api, "dick") == ["Moby-Dick"]
    assert texts(api, "m", size=2) == ["Machinations of the Board", "Machine learning"]
    assert texts(api, "experiment") == [], "titles alone"
    assert texts(api, " ") == texts(api, "?!") == []


def test_each_suggestion_says_what_was_typed_of_it_and_whose_title_it_is(api: httpx.Client) -> None:
    answer = answered(api, "the time ma")
    assert (answer["index"], answer["q"], answer["titles"]) == ("books", "the time ma", True)
    (one,) = answer["suggestions"]
    assert one["text"] in (TITLES["machine"], TITLES["twin"])
    assert (one["kind"], one["id"]) in (("title", "machine"), ("title", "twin"))
    assert [one["text"][part["start"] : part["end"]].lower() for part in one["typed"]] == ["the", "time", "ma"]


def test_a_letter_may_be_wrong(api: httpx.Client) -> None:
    assert texts(api, "mchine lea") == ["Machine learning"]
    assert texts(api, "mashine") == ["Machine learning", "The Time Machine"]
    assert texts(api, "tme machne") == []  # three letters allow no correction
    assert texts(api, "mchine lea", fuzzy=False) == []
    assert answered(api, "mchine lea")["suggestions"][0]["typed"] == [{"start": 8, "end": 11}]


def test_the_command_shows_a_suggestion_a_line(api: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    suggest("books", "m", 2, True, None, False, str(api.base_url))
    assert capsys.readouterr().out.splitlines() == ["Machinations of the Board  secret", "Machine learning  learning"]
    suggest("books", "zzz", 2, True, None, False, str(api.base_url))
    assert capsys.readouterr().out == "No suggestions.\n"
    search(["books"], "experimnt", "lexical", api_url=str(api.base_url))
    assert capsys.readouterr().out.splitlines()[:2] == ["No hits.", "Did you mean: experiment"]


def test_a_filter_holds(api: httpx.Client) -> None:
    only = json.dumps({"field": "year", "is": 2})
    assert texts(api, "m", filter=only) == ["Machine learning"]


def searched(api: httpx.Client, query: str, path: str = "/v1/indexes/books/search", **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = api.post(path, json={"query": query} | options).raise_for_status().json()
    return found


def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the paths of all later requests to OpenSearch, except those that look up an index."""
    paths: list[str] = []
    send = AsyncSearchClient.send

    async def counted(self: AsyncSearchClient, call: Call) -> Any:
        if "/_mapping" not in call.path and b"_curation" not in (call.body or b""):
            paths.append(call.path)
        return await send(self, call)

    monkeypatch.setattr(AsyncSearchClient, "send", counted)
    return paths


@pytest.mark.parametrize("mode", ["lexical", "hybrid"])
def test_words_that_no_document_has_are_corrected_by_the_index_s_own(api: httpx.Client, mode: str) -> None:
    answer = searched(api, "Fhotosynthesis  EXPERIMNT", mode=mode)
    assert answer["hits"] == []
    assert answer["query"] == "Fhotosynthesis  EXPERIMNT", "the query is not changed"
    assert answer["did_you_mean"] == {
        "query": "photosynthesis  experiment",
        "words": [
            {"typed": "Fhotosynthesis", "suggested": "photosynthesis", "start": 0, "end": 14},
            {"typed": "EXPERIMNT", "suggested": "experiment", "start": 16, "end": 25},
        ],
    }
    assert searched(api, answer["did_you_mean"]["query"], mode=mode)["hits"]
    simple = api.get("/v1/indexes/books/search", params={"q": "experimnt", "mode": mode}).json()
    assert simple["did_you_mean"]["query"] == "experiment"
    assert searched(api, "experimnt zzzzzz", mode=mode)["did_you_mean"]["query"] == "experiment zzzzzz"


def test_batches_and_several_indexes_have_it_too(api: httpx.Client) -> None:
    one = {"index": "books", "query": "experimnt", "mode": "lexical"}
    batch = api.post("/v1/search/batch", json={"searches": [one, one | {"query": "experiment"}]}).json()["answers"]
    assert batch[0]["answer"]["did_you_mean"]["query"] == "experiment"
    assert "did_you_mean" not in batch[1]["answer"]
    for mode in ("lexical", "hybrid"):
        across = searched(api, "experimnt", "/v1/search", indexes=["books", "plain"], mode=mode)
        assert across["did_you_mean"]["query"] == "experiment"
        across = searched(api, "rhinozeros", "/v1/search", indexes=["books", "plain"], mode=mode)
        assert across["did_you_mean"]["query"] == "rhinoceros"


def test_a_rare_word_beside_known_ones_is_corrected(api: httpx.Client) -> None:
    def suggested(query: str, **options: Any) -> str | None:
        answer = searched(api, query, "/v1/indexes/rare/search", **({"mode": "lexical"} | options))
        assert answer["query"] == query
        assert answer["hits"], "the other words find documents"
        member = answer.get("did_you_mean")
        return None if member is None else str(member["query"])

    assert suggested("expresso machine") == "espresso machine"  # a document has it, ten times as many the other word
    assert suggested("expresso machine", mode="hybrid") == "espresso machine"
    assert suggested("the Espreso machine") == "the espresso machine"  # no document has it
    assert suggested("espresso machine") is None
    assert suggested("expresso") is None  # no other word says that it means the machine
    assert suggested("expresso whales") is None  # no document has the other word beside whales
    assert suggested("quokka rests") is None
    assert suggested("skarns rock") is None  # its stem occurs
    assert suggested("machines") is None
    assert suggested("expresso machine", filter={"field": "_id", "is": "misspelt"}) is None


def test_a_real_word_is_not_replaced_by_another(api: httpx.Client) -> None:
    """A piece of the encoder is a real word, however rare. The control is a word that is no piece."""
    texts = {f"d{n}": "The desert sand." for n in range(20)} | {"dessert": "A dessert of sand."}
    name = f"sand{secrets.token_hex(4)}"
    api.put(f"/v1/indexes/{name}", json={}).raise_for_status()
    body = [{"id": key, "text": text} for key, text in texts.items()]
    job = api.post(f"/v1/indexes/{name}/documents", json=body).raise_for_status().json()["job"]["id"]
    api.get(f"/v1/jobs/{job}").raise_for_status()
    path = f"/v1/indexes/{name}/search"
    assert "did_you_mean" not in searched(api, "dessert sand", path, mode="lexical")
    assert searched(api, "deserrt sand", path, mode="lexical")["did_you_mean"]["query"] == "desert sand"


def test_accents_are_no_mistake_and_corrections_have_them(api: httpx.Client) -> None:
    path = "/v1/indexes/rare/search"
    for query in ("Bohm", "böhm", "BO\u0308HM"):
        answer = searched(api, query, path, mode="lexical")
        assert [hit["id"] for hit in answer["hits"]] == ["bohm"]
        assert "did_you_mean" not in answer
    for query in ("Bohmm", "Böhmm", "Bo\u0308hmm"):
        answer = searched(api, query, path, mode="lexical")
        assert answer["did_you_mean"]["query"] == "böhm"
        word = answer["did_you_mean"]["words"][0]
        assert query[word["start"] : word["end"]] == word["typed"] == query


def test_common_words_cost_nothing_more(api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = sent(monkeypatch)
    for query, options in (
        ("experiment machine", {}),  # pieces of the encoder
        ("experimnt", {"mode": "sparse"}),  # the encoder knows parts of words
        ("experimnt", {"did_you_mean": False}),
        ("experimnt", {"offset": 10}),
    ):
        paths.clear()
        assert "did_you_mean" not in searched(api, query, **({"mode": "lexical"} | options))
        assert len(paths) == 1
    paths.clear()
    assert "did_you_mean" not in searched(api, "qqqqqqqq", mode="lexical")
    assert len(paths) == 2
    paths.clear()
    searched(api, "experimnt", mode="lexical")
    assert len(paths) == 3


def test_words_of_documents_that_the_search_may_not_find_are_not_told(api: httpx.Client) -> None:
    one = {"field": "year", "is": 0}
    assert searched(api, "mashine", filter=one)["did_you_mean"]["query"] == "machine"
    assert "did_you_mean" not in searched(api, "learnin", filter=one, mode="lexical")
    # the filter, not a mistake, leaves no hit
    assert "did_you_mean" not in searched(api, "learning", filter=one)


def test_a_search_whose_suggestion_fails_is_answered_without(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = AsyncSearchClient.send
    failures: list[SparsewellError | float] = [BackendUnavailable("opensearch_unavailable", "gone"), 60.0]

    async def failing(self: AsyncSearchClient, call: Call) -> Any:
        if b'"suggest"' in (call.body or b""):
            failure = failures.pop()
            if isinstance(failure, float):
                await asyncio.sleep(failure)
            else:
                raise failure
        return await send(self, call)

    monkeypatch.setattr(AsyncSearchClient, "send", failing)
    for _ in range(2):
        assert "did_you_mean" not in searched(api, "experimnt", mode="lexical")
    assert failures == []


def test_what_is_hidden_deleted_or_changed_is_not_suggested(api: httpx.Client) -> None:
    rules = {"results": [
        {"match": "every", "hide": ["secret"]},
        {"query": "opening hours", "hide": ["opening"]},
        {"query": "dic", "hide": ["moby"]},
        {"query": "the time machine", "hide": ["machine"]},
    ]}  # fmt: skip
    api.put("/v1/indexes/books/curation", json={"rules": rules}).raise_for_status()
    assert texts(api, "mach") == ["Machine learning", TITLES["twin"]]
    assert texts(api, "open") == []  # the suggested query would not find the document
    assert texts(api, "dic") == []
    assert texts(api, "dick") == ["Moby-Dick"]
    assert [one["id"] for one in answered(api, "the tim")["suggestions"]] == ["twin"]  # no rule hides its title
    api.put("/v1/indexes/books/curation", json={"rules": {}}, headers={"if-match": "*"}).raise_for_status()
    assert texts(api, "open") == ["Opening hours"]

    api.delete("/v1/indexes/books/documents/learning").raise_for_status()
    changed = {"title": "A Time to Live", "text": "Changed."}
    job = api.put("/v1/indexes/books/documents/kill", json=changed).raise_for_status().json()["job"]["id"]
    api.get(f"/v1/jobs/{job}").raise_for_status()
    assert "Machine learning" not in texts(api, "mach")
    assert texts(api, "a time to") == ["A Time to Live"]


@pytest.mark.parametrize(
    ("path", "params", "status", "code"),
    [
        (PATH, {"q": "x" * 101}, 422, "query_too_long"),
        (PATH, {"q": "x", "size": 101}, 422, "size_too_large"),
        (PATH, {"q": "x", "size": 0}, 422, "invalid_request"),
        (PATH, {"q": "x", "fuzzy": "perhaps"}, 422, "invalid_request"),
        (PATH, {"q": "x", "filter": "{"}, 422, "bad_filter"),
        (PATH, {"q": "x", "filter": '{"field": "colour", "is": "red"}'}, 422, "undeclared_metadata"),
        ("/v1/indexes/nowhere/suggest", {"q": "x"}, 404, "index_not_found"),
        ("/v1/indexes/No!/suggest", {"q": "x"}, 422, "invalid_index_name"),
    ],
)
def test_refusals(api: httpx.Client, path: str, params: dict[str, Any], status: int, code: str) -> None:
    answer = api.get(path, params=params)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("q", ["\x00" * 100, '"*~', "b " * 50, "(" * 100, "時" * 100, "\u202e\u200d", "aaaaaaa " * 12])
def test_hostile_input_is_answered(api: httpx.Client, q: str) -> None:
    assert answered(api, q)["suggestions"] == []


def test_an_index_of_an_older_version_says_that_it_has_to_be_reindexed(
    api: httpx.Client, opensearch_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"older{secrets.token_hex(4)}"
    assert api.put(f"/v1/indexes/{name}", json={}).raise_for_status().json()["suggests"] is True
    with httpx.Client(base_url=opensearch_url, timeout=30, trust_env=False) as node:
        (physical, found), *_ = node.get(f"/*-{name}.g000001/_mapping").raise_for_status().json().items()
        meta = found["mappings"]["_meta"]
        del meta["sparsewell"]["suggests"]
        node.put(f"/{physical}/_mapping", json={"_meta": meta}).raise_for_status()
    path = f"/v1/indexes/{name}"
    assert api.get(path).json()["suggests"] is False
    answer = api.get(f"{path}/suggest", params={"q": "ma"}).raise_for_status().json()
    assert (answer["titles"], answer["suggestions"]) == (False, [])
    assert "did_you_mean" not in searched(api, "experimnt", f"{path}/search")
    suggest(name, "ma", api_url=str(api.base_url))
    assert "sparsewell reindex" in capsys.readouterr().out


QUERIES = "/v1/indexes/asked/queries"


def queries(api: httpx.Client) -> dict[str, int]:
    listed = api.get(QUERIES).raise_for_status().json()
    assert listed["total"] == len(listed["queries"])
    assert all(one["asked"] == one["times"] for one in listed["queries"]), "the former name has the same number"
    return {one["query"]: one["times"] for one in listed["queries"]}


def frequent(api: httpx.Client, q: str = "", **options: Any) -> list[tuple[str, str]]:
    path = "/v1/indexes/asked/suggest"
    answer = api.get(path, params={"q": q} | options).raise_for_status().json()
    return [(one["kind"], one["text"]) for one in answer["suggestions"]]


def test_queries_that_are_often_asked_and_find_something_are_suggested(
    api: httpx.Client, eventually: Eventually
) -> None:
    api.put("/v1/indexes/asked", json={}).raise_for_status()
    assert queries(api) == {}
    assert frequent(api) == []
    document = [{"id": "t", "title": "Time", "text": "A time machine and a captain. jo@example.org"}]
    job = api.post("/v1/indexes/asked/documents", json=document).raise_for_status().json()["job"]["id"]
    api.get(f"/v1/jobs/{job}").raise_for_status()
    path = "/v1/indexes/asked/search"
    for query in ("Time  Machine", "time machine", "TIME machine ", "captain", "jo@example.org", "zzzz"):
        searched(api, query, path)
    for options in ({"learn": False}, {"offset": 1}):
        searched(api, "captain", path, **options)
    api.post("/v1/search/batch", json={"searches": [{"index": "asked", "query": "captain"}]}).raise_for_status()
    eventually(lambda: queries(api) == {"time machine": 3, "captain": 1}, 60, "the queries are written down")
    assert frequent(api) == [("query", "time machine")]  # "captain" was searched only once
    assert frequent(api, "ti") == [("query", "time machine"), ("title", "Time")]
    assert frequent(api, "ma", fuzzy=False) == [("query", "time machine")]
    assert frequent(api, "ti", filter='{"field": "_id", "is": "t"}') == [("title", "Time")]


def test_an_operator_gives_and_takes_queries(api: httpx.Client) -> None:
    given = [{"query": "Whale Watching", "times": 40}, {"query": "Time", "times": 50}, {"query": "whale watching"}]
    assert api.post(QUERIES, json={"queries": given}).raise_for_status().json() == {"index": "asked", "added": 2}
    assert queries(api).get("whale watching") == 41, "listed at once"
    assert frequent(api, size=2) == [("query", "time"), ("query", "whale watching")]
    assert frequent(api, "time") == [("query", "time machine"), ("title", "Time")], "a text once"
    api.post(QUERIES, json={"queries": [{"query": "just now"}]}).raise_for_status()
    assert api.delete(QUERIES, params={"q": "just now"}).json()["deleted"] == 1, "before anybody could see it"
    refused = api.post(QUERIES, json={"queries": [{"query": "call 0171 555 0199"}]})
    assert (refused.status_code, refused.json()["code"], refused.json()["position"]) == (422, "query_not_learnable", 1)

    assert api.delete(QUERIES, params={"q": "WHALE watching"}).json() == {"index": "asked", "deleted": 1}
    assert "whale watching" not in queries(api)
    assert api.delete(QUERIES, params={"q": "x@y"}).json()["deleted"] == 0
    for params in ({}, {"q": "x", "all": True}):
        assert api.delete(QUERIES, params=params).json()["code"] == "invalid_request"
    assert api.get("/v1/indexes/nowhere/queries").status_code == 404
    assert api.delete(QUERIES, params={"all": True}).json()["deleted"] == 3
    assert queries(api) == {}


def test_a_query_that_is_being_written_down_can_be_removed(api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    send, read = AsyncSearchClient.send, threading.Event()

    async def slow(self: AsyncSearchClient, call: Call) -> Any:
        answer = await send(self, call)
        if call.path == "/_mget" and b"_queries" in (call.body or b""):
            read.set()
            await asyncio.sleep(0.2)
        return answer

    monkeypatch.setattr(AsyncSearchClient, "send", slow)
    searched(api, "captain", "/v1/indexes/asked/search")
    assert read.wait(10)
    assert api.delete(QUERIES, params={"q": "captain"}).json()["deleted"] == 1
    assert queries(api) == {}


def test_an_index_takes_its_queries_with_it(api: httpx.Client) -> None:
    api.post(QUERIES, json={"queries": [{"query": "whale", "times": 9}]}).raise_for_status()
    api.delete("/v1/indexes/asked").raise_for_status()
    api.put("/v1/indexes/asked", json={}).raise_for_status()
    assert (queries(api), frequent(api)) == ({}, [])
