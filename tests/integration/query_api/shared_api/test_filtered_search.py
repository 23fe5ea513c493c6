"""Filters through the REST API: matching documents and refused filters."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from services.settings import Settings

Eventually = Callable[[Callable[[], object], float, str], None]
FIELDS = {"genre": "keyword", "year": "number", "printed": "date", "lent": "boolean", "blurb": "text"}
DOCUMENTS: list[dict[str, Any]] = [
    {"id": "moby", "title": "Moby Dick", "text": "A captain hunts a white whale over every sea.",
     "metadata": {"genre": ["sea", "classic"], "year": 1851, "printed": "1851-10-18", "blurb": "A whale of a tale"}},
    {"id": "sea-wolf", "title": "The Sea-Wolf", "text": "A captain rules his ship on the sea with his fists.",
     "metadata": {"genre": "sea", "year": 1904, "printed": "1904-10-25T12:00:00Z", "lent": True}},
    {"id": "machine", "title": "The Time Machine", "text": "A scientist travels to a far year by the sea.",
     "metadata": {"genre": "science", "year": 1895, "lent": False}},
    {"id": "bare", "text": "A sea without a captain and without metadata."},
    {"id": "gone", "text": "A sea captain who is deleted.", "metadata": {"genre": "sea"}},
]  # fmt: skip


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_filter_conditions": 500})


@pytest.fixture(scope="module")
def index(api: httpx.Client, encode: Callable[[], None], eventually: Eventually) -> str:
    assert api.put("/v1/indexes/books", json={"fields": FIELDS}).status_code == 201
    job = api.post("/v1/indexes/books/documents", json=DOCUMENTS).json()["job"]["id"]
    encode()
    assert api.get(f"/v1/jobs/{job}").json()["finished"]
    assert api.delete("/v1/indexes/books/documents/gone").status_code == 204
    eventually(lambda: "gone" not in ids(api, query="captain", mode="lexical"), 60, "the deleted one is gone")
    return "books"


def ask(api: httpx.Client, **body: Any) -> httpx.Response:
    return api.post("/v1/indexes/books/search", json=body)


def ids(api: httpx.Client, **body: Any) -> list[str]:
    response = ask(api, **body)
    assert response.status_code == 200, response.text
    return [hit["id"] for hit in response.json()["hits"]]


def field(name: str, **operator: Any) -> dict[str, Any]:
    return {"field": name} | {key.rstrip("_"): value for key, value in operator.items()}


@pytest.mark.parametrize("mode", ["sparse", "lexical", "hybrid"])
def test_every_mode_finds_the_matching_documents_that_satisfy_the_filter(
    api: httpx.Client, index: str, mode: str
) -> None:
    cases: list[tuple[dict[str, Any], set[str]]] = [
        (field("genre", is_="sea"), {"moby", "sea-wolf"}),
        (field("genre", any_of=["classic", "science"]), {"moby", "machine"}),
        (field("genre", prefix="s"), {"moby", "sea-wolf", "machine"}),
        (field("year", range={"gt": 1851, "lte": 1904}), {"sea-wolf", "machine"}),
        (field("printed", is_="1904-10-25"), {"sea-wolf"}),
        (field("lent", is_=False), {"machine"}),
        (field("lent", exists=False), {"moby", "bare"}),
        (field("blurb", match="tale whale"), {"moby"}),
        (field("_id", any_of=["bare", "machine", "unknown"]), {"bare", "machine"}),
        (field("_state", is_="pending"), set()),
        ({"not": field("genre", is_="sea")}, {"machine", "bare"}),
        ({"all": [field("genre", is_="sea"), {"any": [field("year", is_=1904), field("lent", is_=False)]}]},
         {"sea-wolf"}),
    ]  # fmt: skip
    for written, expected in cases:
        found = ids(api, query="sea", mode=mode, filter=written)
        assert set(found) == expected, written
        assert len(found) == len(expected)
    # a filter narrows the matches and adds no documents
    assert ids(api, query="scientist", mode=mode, filter=field("genre", is_="sea")) == []
    assert ids(api, query="sea", mode=mode, filter=None) == ids(api, query="sea", mode=mode)


def test_a_filter_changes_no_score(api: httpx.Client, index: str) -> None:
    for mode in ("sparse", "lexical"):
        free = {hit["id"]: hit["score"] for hit in ask(api, query="captain sea", mode=mode).json()["hits"]}
        narrow = ask(api, query="captain sea", mode=mode, filter=field("genre", is_="sea"), explain=True).json()["hits"]
        assert {hit["id"]: hit["score"] for hit in narrow} == {name: free[name] for name in ("moby", "sea-wolf")}
        for hit in narrow:
            assert sum(why["contribution"] for why in hit["why"]) == pytest.approx(hit["score"], rel=1e-5)


def test_single_metadata_fields_are_returned(api: httpx.Client, index: str) -> None:
    hit = ask(api, query="whale", mode="lexical", passage=False, fields=["metadata.year", "metadata.genre"]).json()[
        "hits"
    ][0]
    assert hit.keys() == {"id", "score", "scores", "state", "metadata"}
    assert hit["metadata"] == {"year": 1851, "genre": ["sea", "classic"]}
    for mode in ("sparse", "hybrid"):
        hits = ask(api, query="whale", mode=mode, fields=["title", "metadata.lent"]).json()["hits"]
        assert {"metadata", "text"}.isdisjoint(hits[0])


def code(response: httpx.Response) -> str:
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return str(response.json()["code"])


def test_what_is_refused(api: httpx.Client, index: str) -> None:
    for written, expected in [
        ({"script": {"source": "while (true) {}"}}, "bad_filter"),
        ({"query_string": {"query": "/(a+)+$/"}}, "bad_filter"),
        (field("genre", regexp="(a+)+$"), "bad_filter"),
        ("genre = sea", "bad_filter"),
        (field("colour", is_="red"), "undeclared_metadata"),
        (field("year", is_="1851"), "bad_filter"),
        (field("year", range={"gt": 2000, "lt": 1000}), "contradictory_range"),
        (field("genre", any_of=[f"g{n}" for n in range(10_000)]), "filter_too_large"),
        ({"any": [field("genre", is_="sea")] * 501}, "filter_too_large"),
    ]:
        assert code(ask(api, query="sea", filter=written)) == expected, written
    refusal = ask(api, query="sea", filter={"all": [field("year", range={"gte": "x"})]}).json()
    assert refusal["where"] == "filter.all[0].range.gte"
    assert code(ask(api, query="sea", fields=["metadata.colour"])) == "undeclared_metadata"
    for fields in (["vector"], ["metadata.*"], ["windows"], [""], ["metadata."], ["*"]):
        assert code(ask(api, query="sea", fields=fields)) == "invalid_request"


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8"])
def test_bytes_that_hold_what_json_should_not(api: httpx.Client, index: str, kind: str) -> None:
    for value in (b"NaN", b"Infinity", b"1e999", b'"\\ud800"', b"9" * 4000, b"[" * 90 + b"]" * 90):
        body = b'{"query": "sea", "filter": {"field": "year", "is": ' + value + b"}}"
        answer = api.post("/v1/indexes/books/search", content=body, headers={"content-type": kind})
        assert code(answer) in ("bad_filter", "invalid_json"), value
    body = b'{"query": "sea", "filter": ' + b'{"not":' * 100_000 + b"1" + b"}" * 100_000 + b"}"
    answer = api.post("/v1/indexes/books/search", content=body, headers={"content-type": kind})
    assert code(answer) in ("filter_too_large", "invalid_json")


def test_query_and_filter_share_the_engine_s_limit_of_clauses(api: httpx.Client, index: str) -> None:
    """600 words and 450 conditions exceed the limit of 1,024 together, but not separately."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = " ".join([a + b for a in letters for b in letters][:600])
    # (OpenSearch combines the terms of one field into one clause)
    wide = {"any": [field("genre", prefix=f"p{n}") for n in range(450)]}
    for mode in ("lexical", "hybrid"):
        assert ask(api, query=words, mode=mode).status_code == 200
        assert ask(api, query="sea", mode=mode, filter=wide).status_code == 200
        assert code(ask(api, query=words, mode=mode, filter=wide)) == "query_too_long"
