"""What the clients are made of: operations as values, errors read back, patience."""

import inspect
import random
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import services.errors as tree
from cli.api_answers import index_path
from services.errors import (
    BackendUnavailable,
    ConfigurationError,
    EncoderMismatch,
    InvalidInput,
    NotFound,
    Overloaded,
    SparsewellError,
)
from services.web.answers import checked_address, problem, read_answer
from services.web.problems import members
from sparsewell.client import AsyncClient, Client, Rules, SearchRequest, operations
from sparsewell.client.patience import Patience

STEPS = ".", ".."
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(lambda name: name not in STEPS)
KINDS = [
    kind
    for kind in vars(tree).values()
    if inspect.isclass(kind) and issubclass(kind, SparsewellError) and kind not in (SparsewellError, ConfigurationError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_comes_back_as_what_it_was(kind: type[SparsewellError]) -> None:
    sent = kind("some_code", "What happened.", limit=7, rejected=[{"code": "bad_id"}])
    found = problem(sent.status, orjson.loads(orjson.dumps(members(sent))), None)
    assert type(found) is kind
    assert (found.code, found.detail) == ("some_code", "What happened.")
    assert (found.extra["limit"], found.extra["rejected"]) == (7, [{"code": "bad_id"}])


def test_an_error_says_of_documents_only_what_the_answer_said() -> None:
    assert problem(404, {"code": "index_not_found", "detail": "x"}, "3").extra == {"status": 404, "retry_after": 3}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (502, b"<html>bad gateway</html>", BackendUnavailable),
        (404, b"not here", BackendUnavailable),
        (200, b"[]", BackendUnavailable),
        (200, b"half of a {", BackendUnavailable),
        (500, b'{"code": "internal_error", "detail": "x", "title": "Internal error"}', BackendUnavailable),
        (418, b'{"code": "tea", "detail": "x"}', InvalidInput),
        (404, b'{"code": "index_not_found", "detail": "x"}', NotFound),
        (503, b'{"code": "encoder_mismatch", "detail": "x", "title": "Encoder mismatch"}', EncoderMismatch),
    ],
)
def test_what_is_no_good_answer_is_an_error(status: int, body: bytes, kind: type[SparsewellError]) -> None:
    with pytest.raises(SparsewellError) as caught:
        read_answer(httpx.Response(status, content=body))
    assert type(caught.value) is kind


@pytest.mark.parametrize("address", ["localhost:8010", "ftp://x", "http://", "http://x:99999", "http://x:port", "://"])
def test_a_bad_address_is_said(address: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        checked_address(address)
    assert caught.value.code == "bad_address"


@given(NAMES, NAMES)
def test_any_name_stays_one_part_of_the_path(index: str, document: str) -> None:
    path = operations.get_document(index, document).path
    url = httpx.URL("http://x").join(path)
    assert url.raw_path.count(b"/") == 5
    assert not url.query


@pytest.mark.parametrize("name", STEPS)
def test_a_name_that_is_a_step_of_a_path_is_refused(name: str) -> None:
    for make in (
        lambda: operations.delete_document("books", name, None),  # .. would be the index
        lambda: operations.delete_queries(name, None, True),  # . would be the index named queries
        lambda: index_path(name),  # of the commands
    ):
        with pytest.raises(InvalidInput, match="which no address can name") as caught:
            make()
        assert caught.value.code == "invalid_request"
    assert operations.get_document("books", "...").path.endswith("/documents/...")


@pytest.mark.parametrize(
    "make",
    [
        lambda: operations.get_index("\ud800"),
        lambda: operations.get_document("a", "\ud800"),
        lambda: operations.get_job("\udfff"),
        lambda: operations.search("a", "\ud800", {}).arguments(),
        lambda: operations.search("a", "x", {"size": {1, 2}}).arguments(),
        lambda: operations.add("a", [{"id": object()}], None).arguments(),
    ],
)
def test_what_json_and_utf8_cannot_say_is_refused_here(make: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        make()
    assert caught.value.code in ("not_utf8", "not_json")


@pytest.mark.parametrize("kind", ["blocking", "asynchronous"])
@pytest.mark.parametrize(
    ("method", "arguments", "options", "sentence"),
    [
        ("search", ("a", None), {}, "The query has to be text, and is of type NoneType."),
        ("search", (None, "x"), {}, "The name of the index has to be text"),
        ("suggest", ("a", 7), {}, "What was typed has to be text, and is of type int."),
        ("pages", ("a", None), {}, "The query has to be text"),
        ("pages", ("a", "x"), {"cursor": "c"}, "give a cursor to a search"),
        ("pages", ("a", SearchRequest(query="x", cursor="c")), {}, "give a cursor to a search"),
        ("pages_across", (["a"], "x"), {"cursor": "*"}, "give a cursor to a search"),
        ("add_queries", ("a", ["whale"]), {}, "a mapping of each to its times, and no list"),
        ("delete_queries", ("a", 7), {}, "The query has to be text"),
    ],
)
async def test_what_is_no_request_is_said_before_anything_is_sent(
    kind: str, method: str, arguments: Any, options: Any, sentence: str
) -> None:
    nobody = "http://127.0.0.1:1"
    with pytest.raises(InvalidInput, match=sentence) as caught:
        if kind == "blocking":
            with Client(nobody) as client:
                found = getattr(client, method)(*arguments, **options)
                next(found)
        else:
            async with AsyncClient(nobody) as awaited:
                found = getattr(awaited, method)(*arguments, **options)
                await (anext(found) if inspect.isasyncgen(found) else found)
    assert caught.value.code == "invalid_request"


def test_no_cursor_for_pages_is_none() -> None:
    assert operations.page("x", {"cursor": None, "size": 2}, "*") == {"cursor": "*", "size": 2}


def test_queries_are_sent_as_they_were_counted() -> None:
    added = operations.add_queries("a b", Counter(["whale", "sea", "whale"]))
    assert (added.method, added.path, added.again) == ("POST", "/v1/indexes/a%20b/queries", False)
    assert added.body == {"queries": [{"query": "whale", "times": 2}, {"query": "sea", "times": 1}]}
    assert operations.delete_queries("a", "", False).arguments()["params"] == {"q": ""}
    assert operations.delete_queries("a", None, True).arguments()["params"] == {"all": True}


def test_a_request_sends_what_was_set_and_no_more() -> None:
    request = SearchRequest(query="x", size=3)
    assert operations.search_body(request, {"explain": True}) == {"query": "x", "size": 3, "explain": True}
    assert operations.search_body("x", {"weights": {"sparse": 1}}) == {"query": "x", "weights": {"sparse": 1}}


def test_rules_are_sent_as_the_service_stores_them() -> None:
    rules = Rules.model_validate({"synonyms": [{"from": ["mi"], "to": ["heart attack"]}]})
    sent = operations.put_curation("a b", rules, "", 7)
    assert (sent.path, sent.headers, sent.again) == ("/v1/indexes/a%20b/curation", {"if-match": '"7"'}, True)
    assert sent.body == {"rules": {"synonyms": [{"from": ["mi"], "to": ["heart attack"]}]}, "note": ""}
    assert not operations.put_curation("a", {}, "", "*").again


SAFE, UNSAFE = operations.get_index("a"), operations.add("a", [], None)


def test_a_refusal_may_be_followed_by_anything_a_lost_answer_only_by_what_may_come_twice() -> None:
    refused, lost = Overloaded("queue_full", "x"), BackendUnavailable("api_unavailable", "x")
    assert Patience(10).delay(UNSAFE, refused) > 0
    assert Patience(10).delay(SAFE, lost) > 0
    assert Patience(10).delay(operations.add("a", [], "key"), lost) > 0
    with pytest.raises(BackendUnavailable):
        Patience(10).delay(UNSAFE, lost)
    with pytest.raises(InvalidInput):
        Patience(10).delay(SAFE, InvalidInput("bad", "x"))


def test_the_server_says_when_and_patience_ends() -> None:
    assert Patience(10).delay(SAFE, Overloaded("x", "x", retry_after=7)) == 7
    with pytest.raises(Overloaded):
        Patience(5).delay(SAFE, Overloaded("x", "x", retry_after=7))
    with pytest.raises(Overloaded):
        Patience(0).delay(SAFE, Overloaded("x", "x"))


def test_pauses_grow_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    patience = Patience(1000)
    assert [patience.delay(SAFE, Overloaded("x", "x")) for _ in range(8)] == [0.25, 0.5, 1, 2, 4, 8, 15, 15]


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    def public(client: type) -> dict[str, list[str]]:
        return {
            name: [str(parameter) for parameter in inspect.signature(method).parameters.values()]
            for name, method in vars(client).items()
            if inspect.isfunction(method) and not name.startswith("_")
        }

    assert public(Client) == public(AsyncClient)
    for name in public(AsyncClient):
        method = getattr(AsyncClient, name)
        assert inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method), name


def test_importing_the_client_loads_no_server() -> None:
    heavy = "fastapi", "opensearchpy", "kombu", "celery", "onnxruntime", "uvicorn"
    code = f"import sys, sparsewell.client; print([one for one in {heavy!r} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
