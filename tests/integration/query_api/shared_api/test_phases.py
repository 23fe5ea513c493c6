"""Pruned queries, two phases and fusion methods through the live API: equal sums, and reported omissions."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from services.query.fusion import Fusion, fuse_lists

DOCUMENTS = [
    {"id": "temporary", "text": "Create a unique temporary directory and return the name of it."},
    {"id": "copy", "text": "Copy a directory tree to the name of another directory."},
    {"id": "sleep", "text": "Delay the execution of the calling thread for a number of seconds."},
    {"id": "name", "text": "The name of the thread."},
    {"id": "light", "text": "The one of a."},
]
# `temporary` is the heaviest of these tokens. `the`, `of` and `a` weigh next to nothing.
QUERY = "a unique temporary name of the thread"


@pytest.fixture(scope="module")
def index(api: httpx.Client, encode: Callable[[], None]) -> str:
    assert api.put("/v1/indexes/docs").status_code == 201
    job = api.post("/v1/indexes/docs/documents", json=DOCUMENTS).json()["job"]["id"]
    encode()
    assert api.get(f"/v1/jobs/{job}").json()["finished"]
    return "docs"


def search(api: httpx.Client, **body: Any) -> dict[str, Any]:
    response = api.post("/v1/indexes/docs/search", json={"query": QUERY, "mode": "sparse", **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def scores(answer: dict[str, Any]) -> dict[str, float]:
    return {hit["id"]: hit["score"] for hit in answer["hits"]}


def test_what_is_pruned_is_named_and_is_in_no_score(api: httpx.Client, index: str) -> None:
    whole, pruned = (search(api, prune=share, explain=True) for share in (0, 0.3))
    assert not any(piece["pruned"] for piece in whole["pieces"])
    assert {piece["piece"] for piece in pruned["pieces"] if piece["pruned"]} == {"a", "of", "the"}
    by_weight = [(piece["piece"], piece["weight"]) for piece in whole["pieces"]]
    assert [(piece["piece"], piece["weight"]) for piece in pruned["pieces"]] == by_weight
    assert "light" in scores(whole)
    assert "light" not in scores(pruned)
    kept = {piece["id"]: piece["weight"] for piece in pruned["pieces"] if not piece["pruned"]}
    for hit in pruned["hits"]:
        assert sum(why["contribution"] for why in hit["why"]) == pytest.approx(hit["score"], rel=1e-6)
        assert {why["id"] for why in hit["why"]} <= kept.keys()
        assert all(why["query_weight"] == kept[why["id"]] for why in hit["why"])


def test_two_phases_give_the_scores_of_one(api: httpx.Client, index: str) -> None:
    whole = search(api, prune=0)
    for two_phase in (True, {"threshold": 0.6}, {"threshold": 1.0, "window": 1}, {"window": 100}):
        again = search(api, prune=0, two_phase=two_phase, explain=True)
        assert [hit["id"] for hit in again["hits"]] == [hit["id"] for hit in whole["hits"]], two_phase
        assert scores(again) == pytest.approx(scores(whole), rel=1e-6), two_phase
        for hit in again["hits"]:
            assert sum(why["contribution"] for why in hit["why"]) == pytest.approx(hit["score"], rel=1e-6)


def test_light_pieces_are_added_to_what_heavy_ones_found(api: httpx.Client, index: str) -> None:
    """The request wants fewer hits than the heavy tokens find, so the service needs no second search in one phase."""
    whole = search(api, prune=0, size=1)
    again = search(api, prune=0, size=1, two_phase={"threshold": 1.0})
    assert scores(again) == pytest.approx(scores(whole), rel=1e-6)
    assert list(scores(again)) == ["temporary"]


def test_documents_that_only_light_pieces_find_are_not_lost(api: httpx.Client, index: str) -> None:
    for mode in ("sparse", "hybrid"):
        whole = search(api, prune=0, mode=mode)
        again = search(api, prune=0, mode=mode, two_phase={"threshold": 1.0})
        assert "light" in scores(again), mode
        assert scores(again) == pytest.approx(scores(whole), rel=1e-6), mode


@pytest.mark.parametrize("mode", ["sparse", "hybrid"])
def test_pages_of_two_phases_are_those_of_one(api: httpx.Client, index: str, mode: str) -> None:
    """Read the pages by number and by cursor: each document comes once, with the order and scores of the list."""
    whole = [(hit["id"], hit["score"]) for hit in search(api, prune=0, mode=mode)["hits"]]
    options: dict[str, Any] = {"prune": 0, "mode": mode, "size": 2, "two_phase": {"threshold": 1.0, "window": 1}}
    by_number = [hit for start in range(0, len(whole), 2) for hit in search(api, offset=start, **options)["hits"]]
    by_cursor, cursor = [], "*"
    while cursor:
        answer = search(api, cursor=cursor, **options)
        by_cursor += answer["hits"]
        cursor = answer["cursor"]
    for hits in (by_number, by_cursor):
        assert [hit["id"] for hit in hits] == [document for document, _ in whole]
        assert [hit["score"] for hit in hits] == pytest.approx([score for _, score in whole], rel=1e-6)


def test_hybrid_fuses_by_the_method_that_is_asked_for(api: httpx.Client, index: str) -> None:
    lists = {mode: scores(search(api, mode=mode, size=50)) for mode in ("sparse", "lexical")}
    fusions: list[tuple[Any, Fusion]] = [
        ("min_max", Fusion()),
        ("z_score", Fusion("z_score")),
        ({"method": "z_score"}, Fusion("z_score")),
        ("rrf", Fusion("rrf", 60)),
        ({"method": "rrf", "k": 1}, Fusion("rrf", 1)),
    ]
    for fusion, method in fusions:
        answer = search(api, mode="hybrid", size=50, fusion=fusion, weights={"sparse": 2, "lexical": 1})
        expected = fuse_lists(lists, {"sparse": 2, "lexical": 1}, method)
        assert [(hit["id"], hit["score"]) for hit in answer["hits"]] == expected
        assert {hit["id"] for hit in answer["hits"]} == lists["sparse"].keys() | lists["lexical"].keys()


def test_a_list_without_a_hit_leaves_the_other_as_it_is(api: httpx.Client, index: str) -> None:
    for fusion in ("min_max", "z_score", "rrf"):
        # stop words have no term in the lexical list
        answer = search(api, query="of the", mode="hybrid", fusion=fusion)
        assert answer["hits"]
        assert all(hit["scores"].keys() == {"sparse"} for hit in answer["hits"])


def test_what_cannot_be_asked_is_refused(api: httpx.Client) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"two_phase": {"window": 10_001}}, "window_too_large"),
        ({"two_phase": {"window": 0}}, "invalid_request"),
        ({"two_phase": {"threshold": 0}}, "invalid_request"),
        ({"two_phase": {"threshold": 1.5}}, "invalid_request"),
        ({"two_phase": {"threshold": "NaN"}}, "invalid_request"),
        ({"two_phase": {"depth": 3}}, "invalid_request"),
        ({"two_phase": "yes"}, "invalid_request"),
        ({"prune": 1}, "invalid_request"),
        ({"prune": -0.1}, "invalid_request"),
        ({"prune": "NaN"}, "invalid_request"),
        ({"fusion": "borda"}, "invalid_request"),
        ({"fusion": {"method": "min_max", "k": 60}}, "invalid_request"),
        ({"fusion": {"method": "rrf", "k": 0}}, "invalid_request"),
        ({"fusion": {"k": 60}}, "invalid_request"),
    ]
    for body, code in refused:
        response = api.post("/v1/indexes/docs/search", json={"query": QUERY, **body})
        assert (response.status_code, response.json()["code"]) == (422, code), body
