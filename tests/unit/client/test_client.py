"""The parts of the Python client: operations as values, errors, retries, and the generated blocking client."""

import inspect
import pickle
import random
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import services.errors as server
from services.web.problems import problem_members
from sparsewell_client import AsyncClient, Client, Rules, SearchRequest, errors, operations
from sparsewell_client.errors import (
    BackendUnavailable,
    ConfigurationError,
    EncoderMismatch,
    InvalidInput,
    NotFound,
    Overloaded,
    SparsewellError,
    problem_error,
    read_json,
)
from sparsewell_client.operations import Retry

ROOT = Path(__file__).parents[3]
STEPS = ".", ".."
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(lambda name: name not in STEPS)
SERVER_KINDS = {
    name: kind
    for name, kind in vars(server).items()
    if inspect.isclass(kind) and issubclass(kind, server.SparsewellError)
}
NO_ANSWERS = {"SparsewellError", "ConfigurationError"}


def test_the_client_has_the_error_classes_of_the_server() -> None:
    for name, kind in SERVER_KINDS.items():
        ours = getattr(errors, name)
        assert (ours.status, ours.title) == (kind.status, kind.title)
        assert [base.__name__ for base in ours.__mro__] == [base.__name__ for base in kind.__mro__]


@pytest.mark.parametrize("name", sorted(SERVER_KINDS.keys() - NO_ANSWERS))
def test_an_error_of_the_server_is_raised_as_the_class_of_the_same_name(name: str) -> None:
    sent = SERVER_KINDS[name]("some_code", "A sentence.", limit=7, rejected=[{"code": "bad_id"}])
    found = problem_error(sent.status, orjson.loads(orjson.dumps(problem_members(sent))), None)
    assert type(found) is getattr(errors, name)
    assert (found.code, found.detail) == ("some_code", "A sentence.")
    assert (found.extra["limit"], found.extra["rejected"]) == (7, [{"code": "bad_id"}])
    copied = pickle.loads(pickle.dumps(found))  # noqa: S301 (our own bytes)
    assert (type(copied), str(copied), copied.extra) == (type(found), "A sentence. [some_code]", found.extra)


def test_an_error_has_no_members_that_the_answer_lacks() -> None:
    found = problem_error(404, {"code": "index_not_found", "detail": "x"}, "3")
    assert found.extra == {"status": 404, "retry_after": 3}


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
def test_a_bad_answer_is_an_error(status: int, body: bytes, kind: type[SparsewellError]) -> None:
    with pytest.raises(SparsewellError) as caught:
        read_json(httpx.Response(status, content=body))
    assert type(caught.value) is kind


@pytest.mark.parametrize("address", ["localhost:8010", "ftp://x", "http://", "http://x:99999", "http://x:port", "://"])
def test_a_bad_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Client(address)
    assert caught.value.code == "bad_address"


def test_the_key_is_the_argument_or_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str | None] = []

    def answer(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        keys.append(request.headers.get("authorization"))
        return httpx.Response(204)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", answer)

    def sent(**options: Any) -> str | None:
        with Client("http://x", **options) as client:
            client.delete_index("index")
        return keys[-1]

    monkeypatch.delenv("SPARSEWELL_API_KEY", raising=False)
    assert (sent(), sent(key="a")) == (None, "Bearer a")
    monkeypatch.setenv("SPARSEWELL_API_KEY", "b")
    assert (sent(), sent(key="a"), sent(key="")) == ("Bearer b", "Bearer a", None)
    monkeypatch.setenv("SPARSEWELL_API_KEY", "")
    assert sent() is None


@given(NAMES, NAMES)
def test_any_name_is_one_segment_of_the_path(index: str, document: str) -> None:
    path = operations.get_document(index, document).path
    url = httpx.URL("http://x").join(path)
    assert url.raw_path.count(b"/") == 5
    assert not url.query


@pytest.mark.parametrize("name", STEPS)
def test_a_name_that_is_a_path_step_is_refused(name: str) -> None:
    for make in (
        lambda: operations.delete_document("books", name, None),  # ".." would address the index
        lambda: operations.delete_queries(name, None, True),  # "." would address an index named queries
    ):
        with pytest.raises(InvalidInput, match="which cannot be part of an address") as caught:
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
        lambda: operations.search("a", "x", {"size": object()}).arguments(),
        lambda: operations.add("a", [{"id": object()}], None).arguments(),
        lambda: operations.add("a", [{"id": "\ud800"}], None).arguments(),
        lambda: operations.add("a", [{"id": "a", "metadata": {"year": float("nan")}}], None).arguments(),
        lambda: operations.put_document("a", "b", {"metadata": {"year": [1, float("-inf")]}}, None).arguments(),
        lambda: operations.search("a", "x", {"sparse_weight": float("inf")}).arguments(),
        lambda: operations.search(
            "a", SearchRequest(query="x", filter={"field": "y", "is": float("nan")}), {}
        ).arguments(),
        lambda: operations.suggest("a", "x", {"filter": {"field": "y", "is": float("nan")}}).arguments(),
    ],
)
def test_text_that_is_not_utf8_and_values_without_json_are_refused(make: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        make()
    assert caught.value.code in ("not_utf8", "not_json")


def test_dates_of_documents_are_sent_as_iso_8601() -> None:
    moment = datetime(2024, 2, 29, 12, tzinfo=UTC)
    sent = operations.add("a", [{"id": "1", "text": "é", "metadata": {"at": moment}}], None).arguments()
    assert orjson.loads(sent["content"]) == [{"id": "1", "text": "é", "metadata": {"at": "2024-02-29T12:00:00Z"}}]
    assert sent["headers"]["content-type"] == "application/json"


@pytest.mark.parametrize("kind", ["blocking", "asynchronous"])
@pytest.mark.parametrize(
    ("method", "arguments", "options", "sentence"),
    [
        ("search", ("a", None), {}, "The query must be text, not NoneType."),
        ("search", (None, "x"), {}, "The name of the index must be text"),
        ("suggest", ("a", 7), {}, "The typed text must be text, not int."),
        ("pages", ("a", None), {}, "The query must be text"),
        ("pages", ("a", "x"), {"cursor": "c"}, "sets the cursor itself"),
        ("pages", ("a", SearchRequest(query="x", cursor="c")), {}, "sets the cursor itself"),
        ("pages_across", (["a"], "x"), {"cursor": "*"}, "sets the cursor itself"),
        ("add_queries", ("a", ["whale"]), {}, "a mapping of query to times, not a list"),
        ("delete_queries", ("a", 7), {}, "The query must be text"),
    ],
)
async def test_bad_arguments_are_refused_before_anything_is_sent(
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


def test_a_null_cursor_is_not_a_cursor() -> None:
    assert operations.page("x", {"cursor": None, "size": 2}, "*") == {"cursor": "*", "size": 2}


def test_counted_queries_are_sent() -> None:
    added = operations.add_queries("a b", Counter(["whale", "sea", "whale"]))
    assert (added.method, added.path, added.idempotent) == ("POST", "/v1/indexes/a%20b/queries", False)
    assert added.body == {"queries": [{"query": "whale", "times": 2}, {"query": "sea", "times": 1}]}
    assert operations.delete_queries("a", "", False).arguments()["params"] == {"q": ""}
    assert operations.delete_queries("a", None, True).arguments()["params"] == {"all": True}


def test_a_request_sends_only_members_that_were_set() -> None:
    request = SearchRequest(query="x", size=3)
    assert operations.search_body(request, {"explain": True}) == {"query": "x", "size": 3, "explain": True}
    assert operations.search_body("x", {"weights": {"sparse": 1}}) == {"query": "x", "weights": {"sparse": 1}}


def test_members_of_a_newer_api_are_kept() -> None:
    newer = SearchRequest.model_validate({"query": "x", "later": 1, "rerank": {"model": "dense", "newer": True}})
    assert operations.search_body(newer, {}) == {"query": "x", "later": 1, "rerank": {"model": "dense", "newer": True}}
    rules = Rules.model_validate({"redirects": [{"query": "x"}]})
    assert rules.stored() == {"redirects": [{"query": "x"}]}


def test_rules_are_sent_as_the_server_stores_them() -> None:
    rules = Rules.model_validate({"synonyms": [{"from": ["mi"], "to": ["heart attack"]}]})
    sent = operations.put_curation("a b", rules, "", 7)
    assert (sent.path, sent.headers, sent.idempotent) == ("/v1/indexes/a%20b/curation", {"if-match": '"7"'}, True)
    assert sent.body == {"rules": {"synonyms": [{"from": ["mi"], "to": ["heart attack"]}]}, "note": ""}
    assert not operations.put_curation("a", {}, "", "*").idempotent


SAFE, UNSAFE = operations.get_index("a"), operations.add("a", [], None)


def test_after_429_everything_is_retried_after_a_lost_answer_only_idempotent_operations() -> None:
    refused, lost = Overloaded("queue_full", "x"), BackendUnavailable("api_unavailable", "x")
    assert Retry(10).delay(UNSAFE, refused) > 0
    assert Retry(10).delay(SAFE, lost) > 0
    assert Retry(10).delay(operations.add("a", [], "key"), lost) > 0
    with pytest.raises(BackendUnavailable):
        Retry(10).delay(UNSAFE, lost)
    with pytest.raises(InvalidInput):
        Retry(10).delay(SAFE, InvalidInput("bad", "x"))


def test_the_server_names_the_delay_and_retries_end() -> None:
    assert Retry(10).delay(SAFE, Overloaded("x", "x", retry_after=7)) == 7
    with pytest.raises(Overloaded):
        Retry(5).delay(SAFE, Overloaded("x", "x", retry_after=7))
    with pytest.raises(Overloaded):
        Retry(0).delay(SAFE, Overloaded("x", "x"))


def test_delays_double_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    retry = Retry(1000)
    assert [retry.delay(SAFE, Overloaded("x", "x")) for _ in range(8)] == [0.25, 0.5, 1, 2, 4, 8, 15, 15]


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


def check_generated(generator: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(generator), "--check"], capture_output=True, text=True, check=False)


def test_the_blocking_client_is_generated_from_the_asynchronous_client(tmp_path: Path) -> None:
    """The test fails if `async_client.py` changed without a run of `make client`."""
    package = ROOT / "clients" / "python"
    done = check_generated(package / "generate_sync.py")
    assert done.returncode == 0, done.stderr

    changed = tmp_path / "clients" / "python"
    for name in ("generate_sync.py", "src/sparsewell_client/async_client.py", "src/sparsewell_client/client.py"):
        (changed / name).parent.mkdir(parents=True, exist_ok=True)
        (changed / name).write_text((package / name).read_text())
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    source = changed / "src/sparsewell_client/async_client.py"
    source.write_text(source.read_text().replace("Close all connections.", "Close everything."))
    stale = check_generated(changed / "generate_sync.py")
    assert (stale.returncode, "run `make client`" in stale.stderr) == (1, True)
