"""Searches that share an executor send as many requests as the longest has rounds. Each gets its own results."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from query_api.search.batch import BatchExecutor
from query_api.search.executor import Documents, Key
from services.errors import BackendUnavailable
from services.opensearch.queries import SearchPlan


class RecordingExecutor:
    """A substitute for `DirectExecutor` that records its requests. The answer of a list names its index."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    async def lists(self, plans: Sequence[SearchPlan]) -> list[dict[str, Any]]:
        self.requests.append([plan.index for plan in plans])
        if any(plan.index == "down" for plan in plans):
            raise BackendUnavailable("opensearch_unavailable", "OpenSearch cannot be reached.")
        return [{"of": plan.index} for plan in plans]

    async def sources(self, wanted: Sequence[tuple[Key, Sequence[str]]], *, realtime: bool) -> Documents:
        self.requests.append((realtime, dict(wanted)))
        return {key: dict.fromkeys(fields, key[1]) for key, fields in wanted if key[1] != "gone"}

    async def terms(self, index: str, field: str, distinct: Sequence[str]) -> dict[str, str]:
        self.requests.append((index, field, list(distinct)))
        return {word: f"{word} in {index}" for word in distinct if word != "the"}


async def run_together(*searches: Any) -> tuple[list[Any], list[Any]]:
    """Run searches on one executor; return the result of each, and the requests."""
    recorder = RecordingExecutor()
    executor = BatchExecutor(recorder, len(searches))  # type: ignore[arg-type]

    async def run(search: Any) -> Any:
        with executor.member():
            return await search(executor)

    return await asyncio.gather(*map(run, searches), return_exceptions=True), recorder.requests


def two_rounds(name: str, *ids: str) -> Any:
    async def search(executor: BatchExecutor) -> Any:
        answers = await executor.lists([SearchPlan(name, {}), SearchPlan(f"{name}2", {})])
        return answers, await executor.documents([("i", document) for document in ids], [name])

    return search


async def test_searches_share_rounds_and_get_their_own_answers() -> None:
    results, requests = await run_together(two_rounds("a", "1", "2"), two_rounds("b", "2", "gone"))
    assert requests == [
        ["a", "a2", "b", "b2"],
        (False, {("i", "1"): ["a"], ("i", "2"): ["a", "b"], ("i", "gone"): ["b"]}),
    ]
    (first, first_read), (second, second_read) = results
    assert (first, second) == ([{"of": "a"}, {"of": "a2"}], [{"of": "b"}, {"of": "b2"}])
    assert set(first_read) == {("i", "1"), ("i", "2")}
    assert set(second_read) == {("i", "2")}


async def test_no_search_waits_for_a_search_that_has_ended() -> None:
    async def fails(executor: BatchExecutor) -> None:
        await executor.lists([SearchPlan("c", {})])
        raise ValueError("c")

    async def at_once(executor: BatchExecutor) -> str:
        return "nothing needed"

    results, requests = await run_together(at_once, two_rounds("a", "1"), fails, two_rounds("b", "1"))
    assert [type(result) for result in results] == [str, tuple, ValueError, tuple]
    assert requests[0] == ["a", "a2", "c", "b", "b2"]
    assert len(requests) == 2


async def test_words_are_analysed_once_for_each_index() -> None:
    def words(index: str, *distinct: str) -> Any:
        async def search(executor: BatchExecutor) -> Any:
            return await executor.terms(index, "lexical", distinct)

        return search

    long = "".join(chr(0x4E00 + n) for n in range(3000))
    results, requests = await run_together(
        words("a", "the", "sea"), words("b", "sea"), words("a", "sea", long), words("a", long[1:])
    )
    wanted = [("a", "lexical", ["the", "sea", long]), ("b", "lexical", ["sea"]), ("a", "lexical", [long[1:]])]
    assert sorted(requests) == sorted(wanted)
    assert results[:2] == [{"sea": "sea in a"}, {"sea": "sea in b"}]
    assert [set(result) for result in results[2:]] == [{"sea", long}, {long[1:]}]


async def test_a_longer_search_continues_alone() -> None:
    async def three(executor: BatchExecutor) -> Any:
        return [await executor.lists([SearchPlan(f"x{n}", {})]) for n in range(3)]

    results, requests = await run_together(three, two_rounds("a", "1"))
    assert len(results[0]) == 3
    assert requests == [["x0", "a", "a2"], ["x1"], (False, {("i", "1"): ["a"]}), ["x2"]]


async def test_an_error_of_a_shared_request_reaches_every_search() -> None:
    results, requests = await run_together(two_rounds("down"), two_rounds("a"))
    assert len(requests) == 1
    assert [type(result) for result in results] == [BackendUnavailable] * 2


async def test_a_cancelled_search_delays_no_other() -> None:
    recorder = RecordingExecutor()
    executor = BatchExecutor(recorder, 2)  # type: ignore[arg-type]

    async def run() -> Any:
        with executor.member():
            return await executor.lists([SearchPlan("a", {})])

    async def slow() -> None:
        with executor.member():
            await asyncio.Event().wait()

    waiting, never = asyncio.create_task(run()), asyncio.create_task(slow())
    await asyncio.sleep(0)
    assert recorder.requests == []
    never.cancel()
    assert await waiting == [{"of": "a"}]
    with pytest.raises(asyncio.CancelledError):
        await never
