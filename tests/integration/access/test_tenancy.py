"""Two keys with filters never see each other's documents, with any request to any operation."""

import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from query_api.access.gate import OPERATION_SCOPES
from query_api.schemas.search_request import SearchRequest
from services.access.document_level_security import DocumentLevelSecurity
from services.encoders.catalogue import STANDIN_NAME
from services.settings import Settings
from tests.integration.access.doors import RERANKS, Sent, ask, rounds
from tests.integration.query_api.conftest import encode

__all__ = ["encode"]

Make = Callable[..., str]
As = Callable[[str], httpx.Client]

WORDS = ["carpenter", "chair", "physician", "medicine", "harbour", "storm"]
# Each document contains its mark in every part: id, title, text, metadata, chapters, speakers.
MARK = re.compile(r"mark[abcn]\d+x", re.IGNORECASE)
TENANTS: dict[str, Any] = {"a": "a", "b": "b", "c": ["b", "c"], "n": None}
FILTERS: dict[str, Any] = {
    "a": {"field": "tenant", "is": "a"},
    "b": {"field": "tenant", "any_of": ["b"]},
    "not b": {"all": [{"not": {"field": "tenant", "is": "b"}}, {"field": "year", "range": {"gte": 1}}]},
}


def seen_by(name: str, tenant: Any) -> bool:
    values = tenant if isinstance(tenant, list) else [tenant]
    return {"a": "a" in values, "b": "b" in values, "not b": "b" not in values}[name]


def documents() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """The mark, the tenant and the document."""
    for letter, tenant in TENANTS.items():
        for n in range(6):
            mark = f"mark{letter}{n}x"
            words = f"{WORDS[n]} {WORDS[(n + 1) % 6]}"
            metadata: dict[str, Any] = {"year": 1900 + n, "note": mark}
            if tenant is not None:
                metadata["tenant"] = tenant
            document: dict[str, Any] = {"id": mark, "title": f"{mark} {words}", "metadata": metadata}
            if n % 3 == 2:
                said = [f"{mark} {words} in the harbour {at}" for at in range(12)]
                document |= {
                    "kind": "talk",
                    "segments": [{"start": 9 * at, "speaker": f"{mark}", "text": one} for at, one in enumerate(said)],
                    "chapters": [{"title": f"{mark} {WORDS[at]}", "startTime": 36 * at} for at in range(3)],
                }
            else:
                document["text"] = f"The {words} of {mark}, told by the fire. " * (1 + 40 * (n == 4))
            yield mark, tenant, document


DOCUMENTS = list(documents())
NAMES = [mark for mark, _, _ in DOCUMENTS]
RULES = {
    "synonyms": [{"words": ["chair", "seat"]}],
    "results": [{"query": "chair", "pin": [{"id": "markb1x", "position": 1}], "hide": ["marka3x"]}],
    "boosts": [{"filter": {"field": "note", "is": "markb0x"}, "factor": 2}],
}


@pytest.fixture
def settings(settings: Settings, model_socket: socket.socket) -> Settings:
    address = f"http://127.0.0.1:{model_socket.getsockname()[1]}"
    return settings.model_copy(update={"model_url": address, "model_timeout": 15.0})


@pytest.fixture
def tenants(
    admin: httpx.Client, make_key: Make, as_key: As, encode: Callable[[], None], model_process: None
) -> dict[str, httpx.Client]:
    for index in ("one", "two"):
        fields = {"tenant": "keyword", "year": "number", "note": "keyword"}
        declared = {"fields": fields, "talk": {}, "dense": STANDIN_NAME, "windows": "both"}
        assert admin.put(f"/v1/indexes/{index}", json=declared).status_code == 201
        sent = admin.post(f"/v1/indexes/{index}/documents", json=[document for _, _, document in DOCUMENTS])
        assert sent.status_code == 202 and not sent.json()["rejected"], sent.text
        encode()
    rules = admin.put("/v1/indexes/one/curation", json={"rules": RULES})
    assert rules.status_code == 200, rules.text
    return {name: as_key(make_key(["search"], filter=one)) for name, one in FILTERS.items()}


def leaked(name: str, sent: Sent, answer: httpx.Response) -> set[str]:
    """Return the marks of other callers' documents in the response, except those in the caller's own request."""
    said = set(MARK.findall(f"{sent.path} {sent.body} {sent.parameters}"))
    own = {mark for mark, tenant, _ in DOCUMENTS if seen_by(name, tenant)}
    return {one.lower() for one in MARK.findall(answer.text)} - own - said


def hits(answer: Any) -> Iterator[dict[str, Any]]:
    """Yield every member of a response that represents a document."""
    if isinstance(answer, dict):
        if "id" in answer and ("score" in answer or "state" in answer):
            yield answer
        for value in answer.values():
            yield from hits(value)
    elif isinstance(answer, list):
        for value in answer:
            yield from hits(value)


@pytest.fixture
def answered() -> Iterator[Counter[tuple[str, int]]]:
    """Count the statuses of each operation, because refusals alone would prove nothing."""
    found: Counter[tuple[str, int]] = Counter()
    yield found
    assert all(found[operation, 200] for operation, _ in found), found
    assert found["search", 200] > found["search", 404] + found["search", 422], found


@hypothesis(
    max_examples=8,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_nobody_sees_what_is_another_s(
    tenants: dict[str, httpx.Client], told: list[str], answered: Counter[tuple[str, int]], data: st.DataObject
) -> None:
    for sent in data.draw(rounds(NAMES, WORDS)):
        for name, client in tenants.items():
            told.clear()
            for answer in ask(client, sent):
                answered[sent.operation, answer.status_code] += 1
                check(name, sent, answer)
            assert set(MARK.findall(" ".join(told))) <= owned(name), "a model reads what the caller may see"


def owned(name: str) -> set[str]:
    return {mark for mark, tenant, _ in DOCUMENTS if seen_by(name, tenant)}


def values(name: str, field: str) -> Counter[Any]:
    """Count the values of a field in a caller's documents."""
    found: Counter[Any] = Counter()
    for _, tenant, document in DOCUMENTS:
        if seen_by(name, tenant) and field in document["metadata"]:
            value = document["metadata"][field]
            found.update(value if isinstance(value, list) else [value])
    return found


def check(name: str, sent: Sent, answer: httpx.Response) -> None:
    own = owned(name)
    assert answer.status_code in (200, 404, 422), answer.text
    assert leaked(name, sent, answer) == set(), (name, sent, answer.text)
    if sent.operation == "export":
        return
    body = answer.json()
    assert {one["id"] for one in hits(body)} <= own | {"nobody"}
    for one in [body, *(each.get("answer", {}) for each in body.get("answers", ()))]:
        counted(name, one)
    if sent.operation == "get_index":
        assert sum(body["documents"].values()) == len(own)


def counted(name: str, body: dict[str, Any]) -> None:
    """Compare the numbers of one response with the caller's documents."""
    indexes = 2 if "indexes" in body else 1
    most = indexes * len(owned(name))
    assert "did_you_mean" not in body and "curation" not in body
    if "rerank" in body:
        assert body["rerank"]["applied"] and body["rerank"]["scored"] <= most
    if "counted" in body:
        assert body["counted"]["documents"] <= most
    for field, counts in (body.get("facets") or {}).items():
        there = values(name, field)
        assert all(bucket["count"] <= indexes * there[bucket["value"]] for bucket in counts["buckets"]), counts
        assert counts["other"] == 0


def test_all_that_is_one_s_own_is_seen(tenants: dict[str, httpx.Client]) -> None:
    for name, client in tenants.items():
        own = {mark for mark, tenant, _ in DOCUMENTS if seen_by(name, tenant)}
        listed = client.post("/v1/indexes/one/search", json={"sort": [{"field": "year"}], "size": 100}).json()
        assert {hit["id"] for hit in listed["hits"]} == own
        exported = client.get("/v1/indexes/one/export").text
        assert set(MARK.findall(exported)) == own
        for mark in NAMES:
            for index in ("one", "two"):
                found = client.get(f"/v1/indexes/{index}/documents/{mark}")
                assert (found.status_code == 200) == (mark in own)
                if mark not in own:
                    nobody = client.get(f"/v1/indexes/{index}/documents/nobody")
                    assert found.text == nobody.text.replace("nobody", mark)


@hypothesis(max_examples=1, derandomize=True)
@given(rounds(NAMES, WORDS))
def test_the_test_tries_every_door(sent: tuple[Sent, ...]) -> None:
    """The generated searches use every member. `cursor` only occurs in requests for further pages."""
    assert {one.operation for one in sent} == {name for name, rule in OPERATION_SCOPES.items() if "search" in rule}
    said = {member for one in sent if one.operation == "search" for member in one.body}
    assert said | {"cursor"} == set(SearchRequest.model_fields)


def test_a_cursor_is_of_the_key_that_it_was_given_to(tenants: dict[str, httpx.Client], admin: httpx.Client) -> None:
    search = {"query": "carpenter", "cursor": "*", "size": 1}
    cursor = tenants["a"].post("/v1/indexes/one/search", json=search).json()["cursor"]
    page = tenants["a"].get("/v1/indexes/one/export", params={"size": 1}).text.splitlines()[-1]
    exported = re.search(r'"cursor":"([^"]+)"', page)
    assert cursor and exported
    for other in (tenants["b"], tenants["not b"], admin):
        for answer in (
            other.post("/v1/indexes/one/search", json=search | {"cursor": cursor}),
            other.get("/v1/indexes/one/export", params={"size": 1, "cursor": exported[1]}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (422, "bad_cursor")
    assert tenants["a"].post("/v1/indexes/one/search", json=search | {"cursor": cursor}).status_code == 200


def test_a_filter_that_does_not_fit_an_index_shows_nothing_of_it(
    admin: httpx.Client, make_key: Make, as_key: As
) -> None:
    assert admin.put("/v1/indexes/plain").status_code == 201
    assert admin.post("/v1/indexes/plain/documents", json=[{"id": "1", "text": "x"}]).status_code == 202
    client = as_key(make_key(["search"], filter=FILTERS["a"]))
    for answer in (
        client.post("/v1/indexes/plain/search", json={"query": "x"}),
        client.get("/v1/indexes/plain/documents/1"),
        client.get("/v1/indexes/plain/export"),
        client.get("/v1/indexes/plain"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "key_filter_unfit")


def test_reranking_orders_all_that_is_one_s_own_and_nothing_else(
    tenants: dict[str, httpx.Client], told: list[str]
) -> None:
    for mode, (name, client) in product(("sparse", "lexical", "hybrid"), tenants.items()):
        body = {"query": "carpenter chair physician medicine harbour storm", "mode": mode, "size": 40}
        plain = client.post("/v1/indexes/one/search", json=body).json()["hits"]
        assert {hit["id"] for hit in plain} == owned(name)
        for rerank in RERANKS:
            told.clear()
            found = client.post("/v1/indexes/one/search", json=body | {"rerank": rerank}).json()
            assert found["rerank"] == {
                "applied": True,
                "model": rerank["model"],
                "scored": min(len(plain), rerank.get("top", 100)),
                "reason": None,
            }
            assert {hit["id"] for hit in found["hits"]} == owned(name)
            assert all(rerank["model"] in hit["scores"] for hit in found["hits"][: found["rerank"]["scored"]])
            assert set(MARK.findall(" ".join(told))) == (owned(name) if rerank["model"] == "cross-encoder" else set())


def test_without_the_filter_they_do(
    tenants: dict[str, httpx.Client], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without document-level security the requests find the other documents."""
    monkeypatch.setattr(DocumentLevelSecurity, "filter_call", lambda self, call: call)
    monkeypatch.setattr(DocumentLevelSecurity, "filter_answer", lambda self, call, answer: answer)
    doors = [
        Sent("search", "POST", "/v1/indexes/one/search", {"query": "carpenter chair", "size": 40}),
        Sent("search", "POST", "/v1/indexes/one/search", {"query": "chair", "unit": "passage", "size": 40}),
        Sent("search_across", "POST", "/v1/search", {"indexes": ["one", "two"], "query": "storm", "size": 40}),
        Sent("search_simply", "GET", "/v1/indexes/one/search", None, {"q": "harbour"}),
        Sent("suggest", "GET", "/v1/indexes/one/suggest", None, {"q": "mark"}),
        Sent("export", "GET", "/v1/indexes/one/export"),
        *(
            Sent("search", "POST", "/v1/indexes/one/search", {"query": "carpenter", "rerank": one, "size": 40})
            for one in RERANKS
        ),
    ]
    for sent in doors:
        assert leaked("a", sent, next(iter(ask(tenants["a"], sent)))), sent
    assert not set(MARK.findall(" ".join(told))) <= owned("a")
    assert tenants["a"].get("/v1/indexes/one/documents/markb1x").status_code == 200
