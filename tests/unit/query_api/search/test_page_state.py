"""Pages of any size show the same ranking."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_api.search.page_state import PageState

Shards = Sequence[Sequence[float]]


class Engine:
    """An engine that ranks as OpenSearch does: by score, by the document's number in its shard, by shard."""

    def __init__(self, shards: Shards) -> None:
        hits = [
            {"_id": f"{shard}/{number}", "sort": [score, number]}
            for shard, scores in enumerate(shards)
            for number, score in enumerate(scores)
        ]
        self.hits = sorted(hits, key=lambda hit: (-hit["sort"][0], hit["sort"][1]))

    def search(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        hits = self.hits
        if "search_after" in body:
            score, number = body["search_after"]
            hits = [hit for hit in hits if (-hit["sort"][0], hit["sort"][1]) > (-score, number)]
        return hits[body.get("from", 0) :][: body["size"]]


SHARDS = st.lists(st.lists(st.sampled_from([1.0, 2.0, 3.5]), max_size=12), min_size=1, max_size=5)


@given(SHARDS, st.lists(st.integers(1, 9), min_size=1))
def test_pages_by_position_add_up_to_the_whole_ranking(shards: Shards, sizes: list[int]) -> None:
    engine, page, seen = Engine(shards), PageState(by_position=True), []
    for turn in range(100):
        size = sizes[turn % len(sizes)]
        hits, page = page.of_list({"hits": engine.search(page.narrow({}, size))}, size)
        assert len(hits) <= size
        seen += [hit["_id"] for hit in hits]
        assert page.begin == len(seen)
        if page.end is not None:
            break
        assert hits
    assert seen == [hit["_id"] for hit in engine.hits]
    assert page.end == "matches"


@given(SHARDS, st.integers(0, 70), st.integers(1, 20))
def test_a_page_by_number_is_a_slice_of_the_ranking(shards: Shards, begin: int, size: int) -> None:
    engine, page = Engine(shards), PageState(begin)
    hits, page = page.of_list({"hits": engine.search(page.narrow({}, size))}, size)
    assert hits == engine.hits[begin : begin + size]
    assert (page.end is None) == (len(engine.hits) > begin + size)


@pytest.mark.parametrize(("full", "end"), [(False, "matches"), (True, "candidates")])
def test_the_last_page_of_a_fused_list_tells_why_it_is_the_last(full: bool, end: str) -> None:
    page, shown = PageState(depth=5), []
    for _ in range(3):
        assert page.end is None
        hits, page = page.of_ranking("abcdefg", 3, full=full)
        shown.append(hits)
    assert shown == ["abc", "def", "g"]
    assert page.end == end


def test_a_page_by_position_adds_the_document_number_to_the_sort_keys() -> None:
    search: dict[str, Any] = {"sort": [{"metadata.year": "desc"}]}
    narrowed = PageState(by_position=True, after=[1, 2], skip=3).narrow(search, 10)
    assert narrowed == {"sort": [{"metadata.year": "desc"}, {"_doc": "asc"}], "size": 14, "search_after": [1, 2]}
    assert search == {"sort": [{"metadata.year": "desc"}]}
