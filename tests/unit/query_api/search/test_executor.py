"""The counters of searches that OpenSearch refuses."""

import asyncio
from typing import Any

import pytest

from query_api.search.executor import DirectExecutor, Stopwatch, complete_hits
from services.errors import Overloaded
from services.opensearch.client import AsyncSearchClient, Call
from services.opensearch.queries import SearchPlan
from services.telemetry.metrics import SEARCH_OVERLOADED


class OverloadedClient(AsyncSearchClient):
    """A client of an OpenSearch whose search queue is full."""

    def __init__(self) -> None:
        """Open no connection."""

    async def send(self, call: Call) -> Any:
        """Refuse the call."""
        raise Overloaded("opensearch_overloaded", call.path)


def refusals() -> float:
    (family,) = SEARCH_OVERLOADED.collect()
    return next(one.value for one in family.samples if one.name.endswith("_total"))


@pytest.mark.parametrize("lists", [1, 2])
def test_a_search_that_an_overloaded_opensearch_refuses_is_counted(lists: int) -> None:
    executor = DirectExecutor(OverloadedClient(), 1.0, prefer_local=False)
    plans = [SearchPlan("index", {"query": {"match_all": {}}})] * lists
    before = refusals()
    with pytest.raises(Overloaded):
        asyncio.run(executor.lists(plans))
    assert refusals() == before + 1


def test_a_list_that_an_overloaded_opensearch_refuses_is_counted() -> None:
    before = refusals()
    with pytest.raises(Overloaded):
        complete_hits({"error": {"type": "rejected_execution_exception"}, "status": 429}, Stopwatch())
    assert refusals() == before + 1
