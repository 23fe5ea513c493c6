"""The least match of a hit (`min_score`) and the number of matches (`total`), by mode, sort and index."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

MODES = ("sparse", "lexical", "hybrid")
MOWER = {"id": "mower", "text": "Sharpen the blade of a lawn mower.", "metadata": {"year": 1990}}
SEED = {"id": "seed", "text": "Sow the seed of a lawn in the spring.", "metadata": {"year": 1980}}
TREES = [{"id": f"tree{n}", "text": f"Prune tree {n} in winter.", "metadata": {"year": 2000 + n}} for n in range(40)]
QUERY = "sharpen mower blade"
# One of its words is in two documents.
GIBBERISH = "lawn zorblat kravixo plimp"


@pytest.fixture(scope="module")
def indexes() -> tuple[str, str]:
    """Return an index of two documents and one of 42."""
    return "small", "large"


@pytest.fixture
def filled(api: httpx.Client, encode: Callable[[], None], indexes: tuple[str, str]) -> tuple[str, str]:
    for name, more in zip(indexes, ([], TREES), strict=True):
        api.put(f"/v1/indexes/{name}", json={"fields": {"year": "number"}}).raise_for_status()
        api.post(f"/v1/indexes/{name}/documents", json=[MOWER, SEED, *more]).raise_for_status()
    encode()
    return indexes


def ask(api: httpx.Client, index: str, **body: Any) -> dict[str, Any]:
    answer = api.post(f"/v1/indexes/{index}/search", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in answer["hits"]]


def test_a_match_means_the_same_in_every_index(
    api: httpx.Client, filled: tuple[str, str], eventually: Callable[[Callable[[], object], float, str], None]
) -> None:
    small, large = filled
    for index, number in ((small, 2), (large, 42)):
        eventually(lambda index=index, number=number: len(_browsed(api, index)) == number, 60, "all are searched")  # type: ignore[misc]
    for index in filled:
        for mode in MODES:
            # the fused score of the best hit is high in any case
            assert set(ids(ask(api, index, query=GIBBERISH, mode=mode))) == {"mower", "seed"}, "the control"
            assert ids(ask(api, index, query=GIBBERISH, mode=mode, min_score=0.5)) == []
            assert ids(ask(api, index, query=QUERY, mode=mode, min_score=0.5)) == ["mower"]
            assert ids(ask(api, index, query="sharpen a tool", mode=mode, min_score=0.9)) == []
        assert "seed" in ids(ask(api, index, query="lawn mower", min_score=0.1))

    # a list in the order of a field holds no document below it, among all matches and among candidates
    for among in ("matches", "candidates"):
        for mode in MODES:
            order = {
                "mode": mode,
                "among": among,
                "sort": [{"field": "year"}],
                "query": "lawn mower blade",
                "facets": {},
            }
            assert ids(ask(api, large, **order))[:2] == ["seed", "mower"], "the control"
            above = ask(api, large, **order, min_score=0.6)
            assert (ids(above), above["counted"]["documents"]) == (["mower"], 1)

    across = api.post("/v1/search", json={"indexes": [small, large], "query": QUERY, "min_score": 0.5, "total": True})
    assert sorted((hit["index"], hit["id"]) for hit in across.json()["hits"]) == [(large, "mower"), (small, "mower")]
    assert across.json()["total"] == {"value": 2, "relation": "eq"}


def _browsed(api: httpx.Client, index: str) -> list[str]:
    return ids(ask(api, index, sort=[{"field": "year"}], size=50))


def test_the_total_says_whether_it_is_exact(
    api: httpx.Client, filled: tuple[str, str], monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[[Callable[[], object], float, str], None],
) -> None:  # fmt: skip
    _, large = filled
    eventually(lambda: len(_browsed(api, large)) == 42, 60, "all are searched")
    for mode in MODES:
        plain = ask(api, large, query="prune tree", mode=mode, size=3)
        assert "total" not in plain
        counted = ask(
            api,
            large,
            query="prune tree",
            mode=mode,
            size=3,
            total=True,
            filter={"field": "year", "range": {"gte": 2010}},
        )
        assert (len(counted["hits"]), counted["total"]) == (3, {"value": 30, "relation": "eq"})
    assert ask(api, large, total=True, sort=[{"field": "year"}])["total"] == {"value": 42, "relation": "eq"}
    assert ask(api, large, query=GIBBERISH, total=True, min_score=0.5)["total"] == {"value": 0, "relation": "eq"}
    short = api.get(f"/v1/indexes/{large}/search", params={"q": GIBBERISH, "min_score": 0.5, "total": True}).json()
    assert (short["hits"], short["total"]["value"]) == ([], 0)
    monkeypatch.setattr("query_api.search.counting.MAX_TOTAL", 5)
    assert ask(api, large, query="prune tree", mode="lexical", total=True)["total"]["relation"] == "gte"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"min_score": 0.5, "sort": [{"field": "year"}]}, "min_score_without_words"),
        ({"min_score": 0.5, "query": "x", "unit": "passage"}, "not_by_unit"),
        ({"total": True, "query": "x", "unit": "passage"}, "not_by_unit"),
        ({"min_score": 0, "query": "x"}, "invalid_request"),
        ({"min_score": 1.1, "query": "x"}, "invalid_request"),
    ],
)
def test_bad_ones_are_refused(api: httpx.Client, filled: tuple[str, str], body: dict[str, Any], code: str) -> None:
    answer = api.post(f"/v1/indexes/{filled[0]}/search", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
