"""The lists of all indexes are made beside the event loop: 5,000 indexes take half a second."""

import asyncio
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from query_api.routes.health import read_service_status
from query_api.routes.indexes import list_indexes
from services.access.principals import EVERYBODY
from services.encoders.manifest import WindowSettings
from services.errors import BackendUnavailable
from services.index_spec import EncoderIdentity, Generation, IndexNames, IndexSpec
from services.opensearch.client import Call
from services.opensearch.reindex import reindex_records_call

NAMES = IndexNames("x")
INDEXES = 2000
SPEC = IndexSpec.model_validate({"fields": {f"field{number}": "keyword" for number in range(20)}})
# The thread hands over after 5 ms, so the loop turns about 40 times during the .2 s of the work. Without a thread it
# turns once at most.
LEAST_TURNS = 8


def listed() -> dict[str, Any]:
    answer = {}
    for number in range(INDEXES):
        generation = Generation(
            index=f"docs{number}", number=1, physical=f"x-docs{number}.g000001", spec=SPEC,
            window=WindowSettings(pieces=382, overlap=48), encoder=EncoderIdentity(name="e", fingerprint="f"),
            created_at="2026-01-01T00:00:00+00:00",
        )  # fmt: skip
        record = {"_meta": {"sparsewell": generation.model_dump(mode="json")}}
        answer[generation.physical] = {"aliases": {generation.alias: {}}, "mappings": record}
    return answer


class Search:
    """A client whose answers have arrived already."""

    def __init__(self) -> None:
        self._listed = listed()

    async def send(self, call: Call) -> Any:
        if call.path == reindex_records_call(NAMES, 1.0).path:
            return {"hits": {"hits": []}}
        return self._listed if call.method == "GET" else {"aggregations": {"generations": {"buckets": []}}}


class AbsentRedis:
    def depth(self, *_: str) -> int:
        raise BackendUnavailable("redis_unavailable", "away")


@pytest.fixture(scope="module")
def app() -> Any:
    search = Search()
    return SimpleNamespace(
        names=NAMES, principal=EVERYBODY, search=search, unrestricted_search=search, publisher=AbsentRedis()
    )


async def turns_during(work: Any) -> tuple[int, Any]:
    """Return how often another task ran during `work`, and the result."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(turn())
    result = await work
    beside.cancel()
    return turns, result


async def test_the_list_of_indexes(app: Any) -> None:
    turns, answer = await turns_during(list_indexes(app))
    assert len(orjson.loads(answer.body)["indexes"]) == INDEXES
    assert turns > LEAST_TURNS


async def test_the_status(app: Any) -> None:
    turns, answer = await turns_during(read_service_status(app))
    assert len(answer["indexes"]) == INDEXES
    assert turns > LEAST_TURNS


async def test_in_the_loop_nothing_else_runs(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the tests above."""

    async def call(function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", call)
    turns, _ = await turns_during(list_indexes(app))
    assert turns <= 1
