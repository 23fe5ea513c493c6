"""POST /v1/search searches several indexes as one and never omits an index."""

from collections.abc import Sequence
from contextlib import closing
from itertools import product
from typing import Any

import httpx
import pytest

from benchmarks.service import create_index, encode_documents, fill_generation
from models.registry import load_encoder
from services.documents.document import Document
from services.index_spec import IndexSpec
from services.opensearch.client import SyncSearchClient
from services.settings import Settings

PATH = "/v1/search"
SEA = ["whale captain sea", "captain of a ship", "sea storm and whale whale", "a garden", "storm over the island"]
AIR = ["wing of a plane", "captain of a plane at sea", "air air storm", "island in the air", "whale song in the air"]
QUERIES = ["captain", "whale at sea", "storm island", "wing of the captain"]
MODES = ["lexical", "sparse", "hybrid"]
OTHER = "projected-minilm-l6"
DATED = IndexSpec.model_validate({"fields": {"year": "number", "kind": "keyword"}})


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"more_encoders": OTHER, "max_indexes": 4})


@pytest.fixture(scope="module")
def shelves(api: httpx.Client, settings: Settings) -> httpx.Client:
    """Create `sea`, `air`, `both` (with their documents) and `model` (those of `air` by another encoder)."""
    sea = [Document(f"s{n}", text, f"S {n}", {"year": n, "kind": "sea"}) for n, text in enumerate(SEA)]
    air = [Document(f"a{n}", text, f"A {n}", {"year": n}) for n, text in enumerate(AIR)]
    other = settings.model_copy(update={"encoder": OTHER})
    with closing(SyncSearchClient(settings)) as search:
        for name, documents, chosen in (
            ("sea", sea, settings), ("air", air, settings), ("both", sea + air, settings), ("model", air, other),
        ):  # fmt: skip
            encoded = encode_documents(load_encoder(chosen.encoder), documents)
            fill_generation(search, chosen, create_index(search, chosen, name, DATED), encoded)
    return api


def ask(api: httpx.Client, indexes: Sequence[str], **members: Any) -> dict[str, Any]:
    response = api.post(PATH, json={"indexes": indexes, "query": "captain"} | members)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def refused(api: httpx.Client, status: int, **members: Any) -> dict[str, Any]:
    response = api.post(PATH, json={"indexes": ["sea", "air"], "query": "captain"} | members)
    assert response.status_code == status, response.text
    problem: dict[str, Any] = response.json()
    return problem


def scored(hits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {hit["id"]: [hit["score"], *sorted(hit["scores"].items())] for hit in hits}


def close(some: dict[str, Any], others: dict[str, Any]) -> None:
    assert some.keys() == others.keys()
    for one, (score, *own) in some.items():
        assert score == pytest.approx(others[one][0], rel=1e-5), one
        assert dict(own) == pytest.approx(dict(others[one][1:]), rel=1e-5), one


@pytest.mark.parametrize("mode", MODES)
def test_the_answer_is_that_of_one_index_with_all_documents(shelves: httpx.Client, mode: str) -> None:
    """Scores are equal to the last digit. BM25 uses the statistics of both indexes."""
    for query in QUERIES:
        across = ask(shelves, ["sea", "air"], query=query, mode=mode, explain=True)
        one = shelves.post("/v1/indexes/both/search", json={"query": query, "mode": mode, "explain": True}).json()
        assert len(one["hits"]) > 1
        close(scored(across["hits"]), scored(one["hits"]))
        assert [hit["score"] for hit in across["hits"]] == sorted(
            (hit["score"] for hit in across["hits"]), reverse=True
        )
        assert all(hit["index"] == ("sea" if hit["id"].startswith("s") else "air") for hit in across["hits"])
        assert across["pieces"] == {"sea": one["pieces"], "air": one["pieces"]}
        by_id = {hit["id"]: hit for hit in one["hits"]}
        for hit in across["hits"]:
            alone = by_id[hit["id"]]
            assert hit["passage"] == alone["passage"]
            assert [why["piece"] for why in hit["why"]] == [why["piece"] for why in alone["why"]]
    assert across["encoders"].keys() == {"sea", "air"}


def test_the_control_searched_apart_the_keyword_scores_differ(shelves: httpx.Client) -> None:
    both = shelves.post("/v1/indexes/both/search", json={"query": "whale", "mode": "lexical"}).json()
    apart = [
        shelves.post(f"/v1/indexes/{index}/search", json={"query": "whale", "mode": "lexical"}).json()
        for index in ("sea", "air")
    ]
    raw = scored([hit for answer in apart for hit in answer["hits"]])
    assert raw.keys() == scored(both["hits"]).keys()
    assert any(raw[one][0] != pytest.approx(score[0], rel=1e-2) for one, score in scored(both["hits"]).items())


@pytest.mark.parametrize("mode", MODES)
def test_pages_and_offsets(shelves: httpx.Client, mode: str) -> None:
    whole = ask(shelves, ["sea", "air"], query="captain storm whale", mode=mode, size=20)
    order = [hit["id"] for hit in whole["hits"]]
    given: list[str] = []
    cursor = "*"
    while cursor is not None:
        page = ask(shelves, ["sea", "air"], query="captain storm whale", mode=mode, size=3, cursor=cursor)
        given += [hit["id"] for hit in page["hits"]]
        cursor = page["cursor"]
    assert page["end"] == "matches"
    assert sorted(given) == sorted(order)
    later = ask(shelves, ["sea", "air"], query="captain storm whale", mode=mode, size=3, offset=3)
    assert {hit["id"] for hit in later["hits"]} == set(given[3:6])
    cursor = ask(shelves, ["sea", "air"], mode=mode, size=1, cursor="*")["cursor"]
    assert refused(shelves, 422, indexes=["air", "sea"], mode=mode, cursor=cursor)["code"] == "bad_cursor"
    assert refused(shelves, 422, mode=mode, query="whale", cursor=cursor)["code"] == "cursor_mismatch"


@pytest.mark.parametrize("mode", MODES)
def test_indexes_of_different_encoders(shelves: httpx.Client, mode: str) -> None:
    """The service searches each index with its own query table. No hit is missing, and the pages follow the ranking."""
    whole = ask(shelves, ["sea", "model"], query="captain storm", mode=mode, size=20, explain=True)
    assert whole["encoders"]["sea"] != whole["encoders"]["model"]
    assert whole["pieces"]["sea"] != whole["pieces"]["model"]
    assert {hit["index"] for hit in whole["hits"]} == {"sea", "model"}
    scores = [hit["score"] for hit in whole["hits"]]
    assert scores == sorted(scores, reverse=True)
    for index in ("sea", "model"):
        alone = shelves.post(
            f"/v1/indexes/{index}/search", json={"query": "captain storm", "mode": mode, "size": 20}
        ).json()
        assert {hit["id"] for hit in alone["hits"]} == {hit["id"] for hit in whole["hits"] if hit["index"] == index}
        if mode != "lexical":
            assert {hit["id"]: hit["scores"].get("sparse") for hit in alone["hits"]} == {
                hit["id"]: hit["scores"].get("sparse") for hit in whole["hits"] if hit["index"] == index
            }
    if mode == "sparse":  # the score is the document's mean weight for the query's tokens
        for hit in whole["hits"]:
            weight = sum(piece["weight"] for piece in whole["pieces"][hit["index"]])
            assert hit["score"] == pytest.approx(hit["scores"]["sparse"] / weight)
    given: list[str] = []
    cursor = "*"
    while cursor is not None:
        page = ask(shelves, ["sea", "model"], query="captain storm", mode=mode, size=2, cursor=cursor)
        given += [hit["id"] for hit in page["hits"]]
        cursor = page["cursor"]
    assert sorted(given) == sorted(hit["id"] for hit in whole["hits"])
    if mode == "lexical":  # (OpenSearch chooses the order of equal scores, as in any search)
        return
    assert given == [hit["id"] for hit in whole["hits"]]
    parts = [ask(shelves, ["sea", "model"], query="captain storm", mode=mode, size=2, offset=at) for at in (2, 4)]
    assert [hit["id"] for part in parts for hit in part["hits"]] == given[2:6]


def test_a_document_is_named_by_its_index_and_its_id(shelves: httpx.Client) -> None:
    """The same ids occur in `air`, `both` and `model`."""
    for mode in MODES:
        answer = ask(shelves, ["air", "both"], query="captain plane", mode=mode, fields=["text"])
        named = [(hit["index"], hit["id"]) for hit in answer["hits"]]
        assert len(named) == len(set(named))
        assert {("air", "a1"), ("both", "a1")} <= set(named)
        assert all(hit["text"] == AIR[int(hit["id"][1:])] for hit in answer["hits"] if hit["id"].startswith("a"))


def test_filters_hold_in_each_index_and_highlights_are_each_ones_own(shelves: httpx.Client) -> None:
    for mode in MODES:
        answer = ask(
            shelves, ["sea", "model"], query="captain storm", mode=mode, filter={"field": "year", "range": {"gte": 2}}
        )
        assert answer["hits"]
        assert all(hit["metadata"]["year"] >= 2 for hit in answer["hits"])
        marked = ask(shelves, ["sea", "air"], query="captain", mode=mode, highlight=True)
        assert all(hit["highlight"]["text"] for hit in marked["hits"] if "captain" in hit["passage"]["text"])
    shelves.put("/v1/indexes/bare", json={}).raise_for_status()
    problem = refused(shelves, 422, indexes=["sea", "bare"], filter={"field": "year", "range": {"gte": 2}})
    assert (problem["code"], "'bare'" in problem["detail"]) == ("undeclared_metadata", True)


def test_what_cannot_be_searched_is_named(shelves: httpx.Client) -> None:
    problem = refused(shelves, 404, indexes=["sea", "nowhere", "air"])
    assert (problem["code"], "'nowhere'" in problem["detail"]) == ("index_not_found", True)
    assert refused(shelves, 422, indexes=["sea", "sea"])["code"] == "repeated_index"
    assert refused(shelves, 422, indexes=["sea", "No!"])["code"] == "invalid_index_name"
    assert refused(shelves, 422, indexes=[f"x{n}" for n in range(5)])["code"] == "too_many_indexes"
    for wrong in ([], "sea", [5], None):
        assert refused(shelves, 422, indexes=wrong)["code"] == "invalid_request"
    assert shelves.post(PATH, json={"query": "x"}).json()["code"] == "invalid_request"
    assert refused(shelves, 422, size=10_000)["code"] == "size_too_large"
    many = " ".join(f"w{n}" for n in range(1030))
    assert refused(shelves, 422, query=many, mode="lexical")["code"] == "query_too_long"


def test_in_a_batch(shelves: httpx.Client) -> None:
    searches = [{"indexes": ["sea", "air"], "query": query, "mode": mode} for query in QUERIES for mode in MODES]
    wrong = {"indexes": ["sea", "nowhere"], "query": "x"}
    answers = shelves.post(f"{PATH}/batch", json={"searches": [*searches, wrong]}).raise_for_status().json()["answers"]
    for search, one in zip(searches, answers[:-1], strict=True):
        alone = shelves.post(PATH, json=search).raise_for_status().json()
        assert one["answer"]["hits"] == alone["hits"]
    assert (answers[-1]["status"], answers[-1]["problem"]["code"]) == (404, "index_not_found")


def one_index(api: httpx.Client, **members: Any) -> dict[str, Any]:
    answer: dict[str, Any] = api.post("/v1/indexes/both/search", json=members).raise_for_status().json()
    return answer


FACETS = {
    "kind": {"terms": 5, "ignore_own_filter": True},
    "year": {"ranges": [{"lt": 2}, {"gte": 2}]},
}
SORTS: list[list[dict[str, str]]] = [[{"field": "year", "order": "desc"}], [{"field": "kind"}, {"field": "year"}]]
KIND = {"any": [{"field": "kind", "is": "sea"}, {"field": "year", "range": {"lt": 4}}]}


@pytest.mark.parametrize("mode", MODES)
def test_order_and_counts_are_those_of_one_index(shelves: httpx.Client, mode: str) -> None:
    """Candidates and all matches give equal results. Documents of `air` have no kind and come last in either order."""
    for among, sort in product(("matches", "candidates"), SORTS):
        members = {"query": "captain storm whale", "mode": mode, "among": among, "sort": sort, "facets": FACETS,
                   "filter": {"all": [{"field": "kind", "is": "sea"}, KIND]} if sort is SORTS[0] else KIND,
                   "size": 20, "explain": True}  # fmt: skip
        across, one = ask(shelves, ["sea", "air"], **members), one_index(shelves, **members)
        assert len(one["hits"]) > 1
        assert [hit["id"] for hit in across["hits"]] == [hit["id"] for hit in one["hits"]], (among, sort)
        assert (across["facets"], across["counted"]) == (one["facets"], one["counted"])
        assert (across["hits"][0]["score"] is None) == (mode == "hybrid" and among == "matches")
        given, cursor = [], "*"
        while cursor is not None:
            page = ask(shelves, ["sea", "air"], **members | {"size": 2, "cursor": cursor})
            given += [hit["id"] for hit in page["hits"]]
            cursor = page["cursor"]
        assert (given, page["end"]) == ([hit["id"] for hit in one["hits"]], "matches")
    counted = ask(shelves, ["sea", "air"], query="captain", mode=mode, facets={"kind": {"terms": 1}})
    assert counted["counted"]["among"] == ("matches" if mode == "lexical" else "candidates")
    assert counted["facets"] == one_index(shelves, query="captain", mode=mode, facets={"kind": {"terms": 1}})["facets"]


@pytest.mark.parametrize("mode", MODES)
def test_order_and_counts_where_indexes_are_searched_apart(shelves: httpx.Client, mode: str) -> None:
    """Different encoders require separate searches. The documents of `model` are those of `air`."""
    query = "captain storm"
    alone = {
        index: shelves.post(f"/v1/indexes/{index}/search", json={"query": query, "mode": mode, "size": 20}).json()
        for index in ("sea", "model")
    }
    expected = {(index, hit["id"]) for index, answer in alone.items() for hit in answer["hits"]}
    for among, order in product(("matches", "candidates"), ("asc", "desc")):
        members = {"query": query, "mode": mode, "among": among, "sort": [{"field": "year", "order": order}]}
        answer = ask(shelves, ["sea", "model"], **members, size=20, facets=FACETS)
        named = [(hit["index"], hit["id"]) for hit in answer["hits"]]
        assert set(named) == expected
        years = [int(one[1:]) for _, one in named]
        assert years == sorted(years, reverse=order == "desc")
        assert answer["counted"] == {"documents": len(expected), "among": among}
        sea = sum(index == "sea" for index, _ in expected)
        assert answer["facets"]["kind"] == {"buckets": [{"value": "sea", "count": sea}], "other": 0, "exact": True}
        ranges = [bucket["count"] for bucket in answer["facets"]["year"]["buckets"]]
        assert ranges == [sum(year < 2 for year in years), sum(year >= 2 for year in years)]
        given, cursor = [], "*"
        while cursor is not None:
            page = ask(shelves, ["sea", "model"], **members, size=3, cursor=cursor)
            given += [(hit["index"], hit["id"]) for hit in page["hits"]]
            cursor = page["cursor"]
        assert given == named


def test_a_field_is_declared_alike_or_the_index_is_named(shelves: httpx.Client) -> None:
    shelves.put("/v1/indexes/other", json={"fields": {"year": "keyword"}}).raise_for_status()
    shelves.put("/v1/indexes/bare", json={}).raise_for_status()
    for members, code in (
        ({"sort": [{"field": "year"}]}, "bad_sort"),
        ({"facets": {"year": {"terms": 3}}}, "bad_facet"),
    ):
        problem = refused(shelves, 422, indexes=["sea", "air", "other"], **members)
        assert (problem["code"], "'other'" in problem["detail"], "'sea'" in problem["detail"]) == (code, True, True)
        problem = refused(shelves, 422, indexes=["sea", "bare"], **members)
        assert (problem["code"], "'bare'" in problem["detail"]) == ("undeclared_metadata", True)
    assert refused(shelves, 422, query="", sort=[{"field": "year"}])["code"] == "not_across_indexes"
