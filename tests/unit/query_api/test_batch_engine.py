"""Searches that share an engine: as few requests as the longest of them has rounds, and each gets what is its own."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from query_api.search.batch import BatchEngine
from query_api.search.executor import Documents, Key
from services.errors import BackendUnavailable
from services.opensearch.queries import SearchPlan


class Sent:
    """Stands where `DirectEngine` does and writes down what it is asked for; a list's answer names its index."""

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


async def together(*searches: Any) -> tuple[list[Any], list[Any]]:
    """What each search came to, and the requests."""
    sent = Sent()
    engine = BatchEngine(sent, len(searches))  # type: ignore[arg-type]

    async def one(search: Any) -> Any:
        with engine.seat():
            return await search(engine)

    return await asyncio.gather(*map(one, searches), return_exceptions=True), sent.requests


def two_rounds(name: str, *ids: str) -> Any:
    async def search(engine: BatchEngine) -> Any:
        answers = await engine.lists([SearchPlan(name, {}), SearchPlan(f"{name}2", {})])
        return answers, await engine.documents([("i", one) for one in ids], [name])

    return search


async def test_rounds_are_shared_and_answers_are_not() -> None:
    found, requests = await together(two_rounds("a", "1", "2"), two_rounds("b", "2", "gone"))
    assert requests == [
        ["a", "a2", "b", "b2"],
        (False, {("i", "1"): ["a"], ("i", "2"): ["a", "b"], ("i", "gone"): ["b"]}),
    ]
    (first, first_read), (second, second_read) = found
    assert (first, second) == ([{"of": "a"}, {"of": "a2"}], [{"of": "b"}, {"of": "b2"}])
    assert set(first_read) == {("i", "1"), ("i", "2")}
    assert set(second_read) == {("i", "2")}


async def test_nobody_waits_for_a_search_that_has_ended() -> None:
    async def fails(engine: BatchEngine) -> None:
        await engine.lists([SearchPlan("c", {})])
        raise ValueError("c")

    async def at_once(engine: BatchEngine) -> str:
        return "nothing needed"

    found, requests = await together(at_once, two_rounds("a", "1"), fails, two_rounds("b", "1"))
    assert [type(one) for one in found] == [str, tuple, ValueError, tuple]
    assert requests[0] == ["a", "a2", "c", "b", "b2"]
    assert len(requests) == 2


async def test_words_are_asked_about_once_for_each_index() -> None:
    def words(index: str, *distinct: str) -> Any:
        async def search(engine: BatchEngine) -> Any:
            return await engine.terms(index, "lexical", distinct)

        return search

    long = "".join(chr(0x4E00 + n) for n in range(6000))
    found, requests = await together(
        words("a", "the", "sea"), words("b", "sea"), words("a", "sea", long), words("a", long[1:])
    )
    wanted = [("a", "lexical", ["the", "sea", long]), ("b", "lexical", ["sea"]), ("a", "lexical", [long[1:]])]
    assert sorted(requests) == sorted(wanted)
    assert found[:2] == [{"sea": "sea in a"}, {"sea": "sea in b"}]
    assert [set(one) for one in found[2:]] == [{"sea", long}, {long[1:]}]


async def test_searches_of_unequal_length_go_on_alone() -> None:
    async def three(engine: BatchEngine) -> Any:
        return [await engine.lists([SearchPlan(f"x{n}", {})]) for n in range(3)]

    found, requests = await together(three, two_rounds("a", "1"))
    assert len(found[0]) == 3
    assert requests == [["x0", "a", "a2"], ["x1"], (False, {("i", "1"): ["a"]}), ["x2"]]


async def test_what_fails_for_all_is_told_to_each() -> None:
    found, requests = await together(two_rounds("down"), two_rounds("a"))
    assert len(requests) == 1
    assert [type(one) for one in found] == [BackendUnavailable] * 2


async def test_a_search_that_is_cancelled_holds_nobody_up() -> None:
    sent = Sent()
    engine = BatchEngine(sent, 2)  # type: ignore[arg-type]

    async def one() -> Any:
        with engine.seat():
            return await engine.lists([SearchPlan("a", {})])

    async def slow() -> None:
        with engine.seat():
            await asyncio.Event().wait()

    waiting, never = asyncio.create_task(one()), asyncio.create_task(slow())
    await asyncio.sleep(0)
    assert sent.requests == []
    never.cancel()
    assert await waiting == [{"of": "a"}]
    with pytest.raises(asyncio.CancelledError):
        await never
