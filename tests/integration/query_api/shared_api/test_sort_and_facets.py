"""Order, facets and browsing documents through the REST API."""

import json
import os
from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import httpx
import pytest

from services.settings import Settings
from tests.preloaded import run_sparsewell

Eventually = Callable[[Callable[[], object], float, str], None]
FIELDS = {"genre": "keyword", "year": "number", "printed": "date", "lent": "boolean", "blurb": "text"}
MODES = ("sparse", "lexical", "hybrid")
GENRES = ["sea", "classic", "science", "poem"]


def book(number: int) -> dict[str, Any]:
    """Return a book. Number 0 has no metadata. Every other text mentions the sea, more often for greater numbers."""
    text = "A captain. " + "The sea. " * (number // 2 if number % 2 else 0)
    metadata: dict[str, Any] = {}
    if number:
        metadata = {
            "genre": [GENRES[number % 3], GENRES[number % 4]],
            "year": 1900 + number % 5,
            "printed": f"2024-{1 + number % 3:02}-{number:02}T10:00:00Z",
            "lent": number % 2 == 0,
            "blurb": "words",
        }
    return {"id": f"b{number:02}", "title": f"Book {number}", "text": text, "metadata": metadata}


DOCUMENTS = [book(number) for number in range(24)]
METADATA = {one["id"]: one["metadata"] for one in DOCUMENTS}
SEA = {one["id"] for one in DOCUMENTS if "sea" in one["text"]}


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"shards": 2, "max_facet_values": 50})


@pytest.fixture
def index(api: httpx.Client, encode: Callable[[], None], eventually: Eventually) -> str:
    assert api.put("/v1/indexes/books", json={"fields": FIELDS}).status_code == 201
    gone = {"id": "gone", "text": "The sea.", "metadata": {"genre": "gone", "year": 1, "printed": "1999-01-01"}}
    job = api.post("/v1/indexes/books/documents", json=[*DOCUMENTS, gone]).json()["job"]["id"]
    encode()
    assert api.get(f"/v1/jobs/{job}").json()["finished"]
    assert api.delete("/v1/indexes/books/documents/gone").status_code == 204
    eventually(lambda: "gone" not in ids(ask(api, query="sea", mode="lexical", size=50)), 60, "the deleted one is gone")
    return "books"


def ask(api: httpx.Client, **body: Any) -> dict[str, Any]:
    response = api.post("/v1/indexes/books/search", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in answer["hits"]]


def refused(api: httpx.Client, **body: Any) -> str:
    response = api.post("/v1/indexes/books/search", json=body)
    assert response.status_code == 422, response.text
    return str(response.json()["code"])


def by(field: str, order: str | None = None) -> dict[str, str]:
    return {"field": field} | ({"order": order} if order else {})


def genres(of: set[str]) -> dict[str, int]:
    return dict(Counter(genre for name in of for genre in set(METADATA[name].get("genre", []))))


def counts(answer: dict[str, Any], field: str) -> dict[Any, int]:
    return {bucket["value"]: bucket["count"] for bucket in answer["facets"][field]["buckets"]}


def test_what_was_found_in_the_order_of_fields(api: httpx.Client, index: str) -> None:
    for mode in MODES:
        plain = ask(api, query="sea", mode=mode, size=50)
        scores = {hit["id"]: hit["score"] for hit in plain["hits"]}
        assert scores.keys() == SEA
        answer = ask(api, query="sea", mode=mode, size=50, sort=[by("year", "desc"), by("_score")])
        assert ids(answer) == sorted(SEA, key=lambda name: (-METADATA[name]["year"], -scores[name], name))
        assert {hit["id"]: hit["score"] for hit in answer["hits"]} == scores
        # equal years are in the order of scores by default
        assert ids(ask(api, query="sea", mode=mode, size=50, sort=[by("year", "desc")])) == ids(answer)
        assert ids(ask(api, query="sea", mode=mode, size=3, sort=[by("year", "desc")])) == ids(answer)[:3]
        assert ids(ask(api, query="sea", mode=mode, size=50, sort=[by("_score")])) == ids(plain)
        # a field of several values sorts by the least or the greatest
        ascending = ask(api, query="sea", mode=mode, size=50, sort=[by("genre"), by("year"), by("printed")])
        assert ids(ascending) == sorted(
            SEA, key=lambda name: (min(METADATA[name]["genre"]), METADATA[name]["year"], METADATA[name]["printed"])
        )


def test_candidates_and_matches(api: httpx.Client, index: str) -> None:
    """Sort the best few candidates, or sort all matches."""
    for mode in ("sparse", "lexical"):
        best = ids(ask(api, query="sea", mode=mode, size=4))
        few = ask(
            api, query="sea", mode=mode, size=4, candidates=4, among="candidates", sort=[by("printed")], facets={}
        )
        assert set(ids(few)) == set(best)
        assert few["counted"] == {"documents": 4, "among": "candidates"}
    for mode in ("sparse", "lexical", "hybrid"):
        every = ask(api, query="sea", mode=mode, size=4, candidates=4, among="matches", sort=[by("printed")], facets={})
        assert ids(every) == sorted(SEA, key=lambda name: METADATA[name]["printed"])[:4]
        assert every["counted"] == {"documents": len(SEA), "among": "matches"}
        assert (every["hits"][0]["score"] is None) == (mode == "hybrid")
    assert refused(api, query="sea", among="matches", sort=[by("_score")]) == "bad_sort"


def test_facets_count_what_was_found(api: httpx.Client, index: str) -> None:
    for mode, among in product(MODES, ("matches", "candidates")):
        ranges = [{"lt": 1901}, {"gte": 1901, "lte": 1903}, {"gt": 1903}]
        facets = {
            "genre": {"terms": 10}, "lent": {"terms": 2}, "year": {"ranges": ranges}, "printed": {"dates": "month"},
        }  # fmt: skip
        answer = ask(api, query="sea", mode=mode, among=among, size=2, facets=facets)
        assert ids(answer) == ids(ask(api, query="sea", mode=mode, size=2))
        assert answer["counted"] == {"documents": len(SEA), "among": among}
        assert counts(answer, "genre") == genres(SEA)
        assert counts(answer, "lent") == {False: len(SEA)}
        years = [METADATA[name]["year"] for name in SEA]
        assert answer["facets"]["year"]["buckets"] == [
            {"range": ranges[0], "count": sum(year < 1901 for year in years)},
            {"range": ranges[1], "count": sum(1901 <= year <= 1903 for year in years)},
            {"range": ranges[2], "count": sum(year > 1903 for year in years)},
        ]
        months = Counter(METADATA[name]["printed"][:7] for name in SEA)
        assert answer["facets"]["printed"]["buckets"] == [
            {"range": {"gte": f"{month}-01", "lt": f"2024-{int(month[5:]) + 1:02}-01"}, "count": months[month]}
            for month in sorted(months)
        ]
        one = ask(api, query="sea", mode=mode, among=among, facets={"genre": {"terms": 1}})["facets"]["genre"]
        assert one["buckets"] == [
            {"value": max(genres(SEA), key=lambda g: genres(SEA)[g]), "count": max(genres(SEA).values())}
        ]
        assert one["other"] == sum(genres(SEA).values()) - max(genres(SEA).values())
        assert one["exact"] is True


def test_a_chosen_value_leaves_the_counts_of_the_others(api: httpx.Client, index: str) -> None:
    for mode, among in product(MODES, ("matches", "candidates")):
        chosen = {"all": [{"field": "genre", "is": "poem"}, {"field": "year", "range": {"gte": 1902}}]}
        late = {name for name in SEA if METADATA[name]["year"] >= 1902}
        poems = {name for name in SEA if "poem" in METADATA[name]["genre"]}
        facets = {
            "genre": {"terms": 10, "ignore_own_filter": True},
            "year": {"ranges": [{"lt": 1902}, {"gte": 1902}], "ignore_own_filter": True},
            "lent": {"terms": 2},
        }
        answer = ask(api, query="sea", mode=mode, among=among, size=50, filter=chosen, facets=facets)
        assert set(ids(answer)) == late & poems
        assert answer["counted"] == {"documents": len(late & poems), "among": among}
        assert counts(answer, "genre") == genres(late)
        assert [bucket["count"] for bucket in answer["facets"]["year"]["buckets"]] == [
            len(poems - late),
            len(poems & late),
        ]
        assert counts(answer, "lent") == {False: len(late & poems)}
        plain = ask(api, query="sea", mode=mode, among=among, filter=chosen, facets={"genre": {"terms": 10}})
        assert counts(plain, "genre") == genres(late & poems)


def test_looking_through_documents_without_words(api: httpx.Client, index: str) -> None:
    answer = ask(api, sort=[by("year"), by("printed", "desc")], size=50, facets={"genre": {"terms": 10}})
    named = sorted(
        (name for name in METADATA if METADATA[name]), key=lambda name: METADATA[name]["printed"], reverse=True
    )
    assert ids(answer) == [*sorted(named, key=lambda name: METADATA[name]["year"]), "b00"]
    assert answer["mode"] == "browse"
    assert answer["counted"] == {"documents": 24, "among": "matches"}
    assert counts(answer, "genre") == genres(set(METADATA))
    assert {key for hit in answer["hits"] for key in hit} == {"id", "score", "scores", "state", "title", "metadata"}
    assert all(hit["score"] is None and hit["scores"] == {} for hit in answer["hits"])
    # a deleted document would satisfy a condition on a missing value, but must not appear
    bare = ask(api, query="  ", filter={"field": "genre", "exists": False}, explain=True, highlight=True)
    assert ids(bare) == ["b00"]
    assert bare["hits"][0]["why"] == []
    assert len(ids(ask(api, filter={"not": {"field": "genre", "is": "poem"}}, size=50))) == sum(
        "poem" not in one.get("genre", []) for one in METADATA.values()
    )
    assert refused(api, query="") == "empty_query"
    assert refused(api) == "empty_query"
    assert refused(api, sort=[by("_score")]) == "bad_sort"


def test_pages_in_the_order_of_fields(api: httpx.Client, index: str) -> None:
    for request in (
        {"sort": [by("year", "desc"), by("genre")]},
        {"filter": {"field": "lent", "is": True}},
        {"query": "sea", "mode": "lexical", "sort": [by("lent"), by("genre", "desc")]},
        {"query": "sea", "mode": "sparse", "sort": [by("year")]},
        {"query": "sea", "mode": "hybrid", "sort": [by("printed", "desc")], "facets": {"genre": {"terms": 3}}},
        {"query": "sea", "mode": "hybrid", "sort": [by("printed", "desc")], "among": "matches"},
    ):
        whole = ids(ask(api, **request, size=50))
        seen: list[str] = []
        page = ask(api, **request, size=5, cursor="*")
        seen += ids(page)
        while page["cursor"] is not None:
            page = ask(api, **request, size=5, cursor=page["cursor"])
            seen += ids(page)
        assert seen == whole, request
        assert ids(ask(api, **request, size=5, offset=3)) == whole[3:8], request


def test_the_address_carries_the_same(api: httpx.Client, index: str) -> None:
    said = {
        "q": "sea", "mode": "lexical", "size": "50", "filter": '{"field": "genre", "is": "poem"}',
        "sort": ["year:desc", "printed"], "facet": ["genre:2", "printed:month"],
    }  # fmt: skip
    short = api.get("/v1/indexes/books/search", params=said)
    assert short.status_code == 200, short.text
    whole = ask(
        api, query="sea", mode="lexical", size=50, filter={"field": "genre", "is": "poem"},
        sort=[by("year", "desc"), by("printed")], facets={"genre": {"terms": 2}, "printed": {"dates": "month"}},
    )  # fmt: skip
    assert {**short.json(), "timings_ms": None} == {**whole, "timings_ms": None}
    for wrong, code in [
        ({"filter": "genre=poem"}, "bad_filter"),
        ({"filter": "[]"}, "bad_filter"),
        ({"sort": "year:down"}, "bad_sort"),
        ({"facet": "genre:0"}, "bad_facet"),
        ({"facet": "genre:many"}, "bad_facet"),
        ({"facet": "genre:" + "9" * 30}, "bad_facet"),
        ({"size": "0"}, "invalid_request"),
    ]:
        answer = api.get("/v1/indexes/books/search", params={"q": "sea"} | wrong)
        assert (answer.status_code, answer.json()["code"]) == (422, code), wrong


def test_the_command_line_shows_order_and_counts(api_url: str, api: httpx.Client, index: str) -> None:
    line = ["search", "--index", "books", "--api", api_url, "-n", "3"]
    said = [
        "--filter",
        '{"field": "lent", "is": true}',
        "--sort",
        "printed:desc",
        "--facet",
        "genre",
        "--facet",
        "printed:month",
    ]
    done = run_sparsewell(*line, *said, environment=os.environ)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert [text.split("  ")[-1] for text in shown[:3]] == ["Book 20", "Book 14", "Book 8"]
    assert shown[3] == "11 documents that match"
    lent = {name for name, metadata in METADATA.items() if metadata.get("lent")}
    most = sorted(genres(lent).items(), key=lambda pair: (-pair[1], pair[0]))
    assert shown[4] == "     genre: " + ", ".join(f"{genre} {count}" for genre, count in most)
    assert shown[5].startswith("     printed: gte 2024-01-01 lt 2024-02-01 ")
    whole = run_sparsewell(*line, "sea", *said, "--mode", "lexical", "--json", environment=os.environ)
    assert json.loads(whole.stdout)["counted"] == {"documents": 0, "among": "matches"}


def test_what_is_refused(api: httpx.Client, index: str) -> None:
    for sort, code in [
        ([by("blurb")], "bad_sort"),
        ([by("year"), by("year", "desc")], "bad_sort"),
        ([by(name) for name in ("year", "genre", "printed", "lent", "_score")] + [by("blurb")], "bad_sort"),
        ([by("colour")], "undeclared_metadata"),
        ([by("_id")], "undeclared_metadata"),
        ([by("year", "down")], "invalid_request"),
        (["year"], "invalid_request"),
        ({"year": "desc"}, "invalid_request"),
        ([{"field": "year", "script": "1"}], "invalid_request"),
    ]:
        assert refused(api, query="sea", sort=sort) == code, sort
    for facets, code in [
        ({"blurb": {"terms": 5}}, "bad_facet"),
        ({"printed": {"terms": 5}}, "bad_facet"),
        ({"genre": {"dates": "month"}}, "bad_facet"),
        ({"genre": {"ranges": [{"gte": 1}]}}, "bad_facet"),
        ({"genre": {"terms": 51}}, "bad_facet"),
        ({"genre": {"terms": 0}}, "invalid_request"),
        ({"genre": {}}, "invalid_request"),
        ({"genre": {"terms": 5, "dates": "month"}}, "invalid_request"),
        ({"genre": 5}, "invalid_request"),
        ({"year": {"ranges": []}}, "bad_facet"),
        ({"year": {"ranges": {"gte": 1}}}, "bad_facet"),
        ({"year": {"ranges": [{"gte": 2, "lt": 1}]}}, "contradictory_range"),
        ({"year": {"ranges": [{"gte": "x"}]}}, "bad_filter"),
        ({"year": {"ranges": [{"gte": 1}] * 51}}, "bad_facet"),
        ({"printed": {"dates": "minute"}}, "invalid_request"),
        ({"colour": {"terms": 5}}, "undeclared_metadata"),
        ({f"f{n}": {"terms": 5} for n in range(21)}, "too_many_facets"),
        ({"metadata.genre": {"terms": 5}}, "undeclared_metadata"),
    ]:
        assert refused(api, query="sea", facets=facets) == code, facets
    assert refused(api, query="sea", among="all") == "invalid_request"


def test_stretches_of_time_beyond_the_limit(api: httpx.Client, index: str, eventually: Eventually) -> None:
    days = [
        {"id": f"day{n}", "text": "sea", "metadata": {"printed": f"2023-{1 + n // 28:02}-{1 + n % 28:02}"}}
        for n in range(60)
    ]
    api.post("/v1/indexes/books/documents", json=days)
    request: dict[str, Any] = {"query": "sea", "mode": "lexical", "facets": {"printed": {"dates": "day"}}}
    eventually(lambda: api.post("/v1/indexes/books/search", json=request).status_code == 422, 60, "all are found")
    assert refused(api, **request) == "facet_too_fine"
    assert refused(api, **request | {"among": "candidates"}) == "facet_too_fine"
    assert ask(api, **request | {"facets": {"printed": {"dates": "week"}}})["facets"]["printed"]["buckets"]
