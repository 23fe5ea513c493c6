"""A shard does not finish in time: test the product's request to OpenSearch and its handling of the response."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import orjson
import pytest

from query_api.search.executor import Stopwatch, complete_hits
from services.errors import BackendUnavailable
from services.opensearch.client import AsyncSearchClient, Call, SyncSearchClient
from services.opensearch.queries import SearchPlan, build_search_body, msearch_call, search_call
from tests.faults.door import Door
from tests.faults.stack import Stack

NewStack = Callable[..., Stack]
RowOf = Callable[..., None]
SLOW = "double sum = 0; for (int i = 0; i < 200000; i++) { sum += Math.sin(i); } return 2 + Math.abs(sum);"
# OpenSearch checks the time before each segment, so the test keeps several segments unmerged.
UNMERGED = {"index.merge.policy.floor_segment": "1b", "index.merge.policy.segments_per_tier": 50}
SEGMENTS, DOCUMENTS = 8, 400


def slow_query(ids: list[str]) -> dict[str, Any]:
    """Return a query that matches every document and takes milliseconds to score each."""
    slow = {"script_score": {"query": {"ids": {"values": ids}}, "script": {"source": SLOW}}}
    return {"bool": {"should": [slow, {"match_all": {}}]}}


def test_one_of_two_shards_does_not_finish_in_time(new_stack: NewStack, row: RowOf) -> None:
    stack = new_stack(shards=2)
    with Door(stack.api()[1]) as door:
        door.create_index()
        stack.search.send(Call("PUT", f"/{stack.physical}/_settings", orjson.dumps(UNMERGED)))
        for at in range(0, DOCUMENTS, DOCUMENTS // SEGMENTS):
            door.post({f"d{i}": f"harmless {i}" for i in range(at, at + DOCUMENTS // SEGMENTS)})
            assert len(stack.documents("state")) == at + DOCUMENTS // SEGMENTS  # (this also refreshes)
    everything = {"size": 1000, "_source": False}
    with closing(SyncSearchClient(stack.settings)) as search:
        on_first = search.send(
            Call("POST", f"/{stack.physical}/_search", orjson.dumps(everything), {"preference": "_shards:0"})
        )
        ids = [hit["_id"] for hit in on_first["hits"]["hits"]]
        assert 0 < len(ids) < DOCUMENTS
        plan = build_search_body(slow_query(ids), DOCUMENTS, False, 0.1)
        whole_call = search_call(SearchPlan(stack.physical, plan), 60)
        naive = search.send(replace(whole_call, params={}))
        assert naive["timed_out"], naive["took"]
        with pytest.raises(BackendUnavailable):
            complete_hits(search.send(whole_call), Stopwatch())
    both = asyncio.run(_two_lists(stack, plan))
    for answer in both:
        with pytest.raises(BackendUnavailable):
            complete_hits(answer, Stopwatch())
    row(
        fault="one of two shards does not finish in time",
        promise="P5",
        protection="a partial answer is an error",
        counted="documents missing from an answer",
        without=DOCUMENTS - len(naive["hits"]["hits"]),
        with_it=0,
    )


async def _two_lists(stack: Stack, plan: dict[str, Any]) -> list[dict[str, Any]]:
    search = AsyncSearchClient(stack.settings)
    try:
        answer = await search.send(msearch_call([SearchPlan(stack.physical, plan)] * 2, 60))
        return list(answer["responses"])
    finally:
        await search.close()
