"""Many searches in one request: each has its own answer or its own problem, in the order in which they were asked.

They share their requests to OpenSearch (`batch_engine`), begin together and have one deadline. See decision 0167.

Several searches on one engine: it waits until each of them needs something, then asks for all of it at once.

A batch of any length so takes as many requests as its longest search has rounds, and no stage of a search knows of it.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from query_api.app_state import AppState
from query_api.schemas.search_request import SearchRequest
from query_api.schemas.search_response import AcrossRequest, BatchRequest
from query_api.search.executor import DirectEngine, Documents, Key, ListAnswer
from query_api.search.pipeline import deadline_error, search, search_across
from query_api.search.stages import Response
from services.errors import InvalidInput
from services.opensearch.analysis import AnalysedTerm, TermsByWord, limit_words
from services.opensearch.queries import SearchPlan
from services.web.problems import count_problem, error_members


@dataclass(slots=True)
class _ListCall:
    plans: Sequence[SearchPlan]
    answers: "asyncio.Future[Sequence[ListAnswer]]"


@dataclass(slots=True)
class _DocumentCall:
    wanted: Sequence[Key]
    fields: Sequence[str]
    answers: "asyncio.Future[Documents]"


@dataclass(slots=True)
class _TermCall:
    distinct: Sequence[str]
    answers: "asyncio.Future[TermsByWord]"


@dataclass(slots=True)
class _Round:
    """What searches wait for: documents in real time apart from those as searches see them, words by the generation
    and the field whose terms are wanted.
    """

    lists: list[_ListCall] = field(default_factory=list)
    seen: list[_DocumentCall] = field(default_factory=list)
    realtime: list[_DocumentCall] = field(default_factory=list)
    words: dict[tuple[str, str], list[_TermCall]] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        return len(self.lists) + len(self.seen) + len(self.realtime) + sum(map(len, self.words.values()))


class BatchEngine:
    """The engine of so many searches (`members`), each of which runs in a `seat`."""

    def __init__(self, inner: DirectEngine, members: int) -> None:
        self._inner = inner
        self._members = members
        self._round = _Round()
        self._sending: set[asyncio.Task[None]] = set()

    @contextmanager
    def seat(self) -> Iterator[None]:
        """A search's time. Once it has ended, however it did, nobody waits for what it may need."""
        try:
            yield
        finally:
            self._members -= 1
            self._send_when_all_wait()

    async def lists(self, plans: Sequence[SearchPlan]) -> Sequence[ListAnswer]:
        one = _ListCall(plans, asyncio.get_running_loop().create_future())
        self._round.lists.append(one)
        self._send_when_all_wait()
        return await one.answers

    async def documents(self, wanted: Sequence[Key], source: Sequence[str], *, realtime: bool = False) -> Documents:
        one = _DocumentCall(wanted, source, asyncio.get_running_loop().create_future())
        (self._round.realtime if realtime else self._round.seen).append(one)
        self._send_when_all_wait()
        return await one.answers

    async def terms(self, index: str, field: str, distinct: Sequence[str]) -> TermsByWord:
        one = _TermCall(distinct, asyncio.get_running_loop().create_future())
        self._round.words.setdefault((index, field), []).append(one)
        self._send_when_all_wait()
        return await one.answers

    def _send_when_all_wait(self) -> None:
        now = self._round
        if not now.waiting or now.waiting < self._members:
            return
        self._round = _Round()
        if now.lists:
            self._start(self._send_lists(now.lists))
        if now.seen:
            self._start(self._send_sources(now.seen, realtime=False))
        if now.realtime:
            self._start(self._send_sources(now.realtime, realtime=True))
        for (index, name), asked in now.words.items():
            self._start(self._send_words(index, name, asked))

    def _start(self, sending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(sending)
        self._sending.add(task)  # (the loop itself keeps no hold of a task)
        task.add_done_callback(self._sending.discard)

    async def _send_lists(self, asked: Sequence[_ListCall]) -> None:
        try:
            answers = iter(await self._inner.lists([plan for one in asked for plan in one.plans]))
        except Exception as error:  # (each of the searches makes of it what it would alone)
            _fail([one.answers for one in asked], error)
            return
        for one in asked:
            some = list(islice(answers, len(one.plans)))
            if not one.answers.done():
                one.answers.set_result(some)

    async def _send_sources(self, asked: Sequence[_DocumentCall], *, realtime: bool) -> None:
        # Several searches may have found the same document: it is read once, with all that they need of it.
        fields: dict[Key, set[str]] = {}
        for one in asked:
            for key in one.wanted:
                fields.setdefault(key, set()).update(one.fields)
        try:
            found = await self._inner.sources([(key, sorted(some)) for key, some in fields.items()], realtime=realtime)
        except Exception as error:  # (as above)
            _fail([one.answers for one in asked], error)
            return
        for one in asked:
            if not one.answers.done():
                one.answers.set_result({key: found[key] for key in one.wanted if key in found})

    async def _send_words(self, index: str, name: str, asked: Sequence[_TermCall]) -> None:
        left = list(dict.fromkeys(word for one in asked for word in one.distinct))
        found: dict[str, Sequence[AnalysedTerm]] = {}
        try:
            while left:  # (each search asks about as many words as one request may, at most)
                some = limit_words(left)
                found |= await self._inner.terms(index, name, some)
                left = left[len(some) :]
        except Exception as error:  # (as above)
            _fail([one.answers for one in asked], error)
            return
        for one in asked:
            if not one.answers.done():
                one.answers.set_result({word: found[word] for word in one.distinct if word in found})


def _fail(waiting: "Sequence[asyncio.Future[Any]]", error: Exception) -> None:
    for one in waiting:
        if not one.done():
            one.set_exception(error)


async def batch(app: AppState, request: BatchRequest) -> dict[str, Any]:
    """Answers all. What is wrong with one search is its own.

    Raises InvalidInput (`empty_batch`, `batch_too_large`), and Overloaded for a caller who may not ask so much.
    """
    searches: Sequence[object] = request.searches
    most = app.settings.max_batch
    if not searches:
        raise InvalidInput("empty_batch", "The batch has no searches.")
    if len(searches) > most:
        raise InvalidInput("batch_too_large", f"A batch may have {most:,} searches; this has {len(searches):,}.")
    if len(searches) > 1:  # (the request itself counted as one)
        app.limiter.admit(app.who, len(searches) - 1)
    until = asyncio.get_running_loop().time() + app.settings.search_timeout
    await _resolve_indexes(app, searches, until)
    engine = BatchEngine(app.engine, len(searches))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_run(app, engine, asked, until)) for asked in searches]
    return {"answers": [task.result() for task in tasks]}


async def _resolve_indexes(app: AppState, searches: Sequence[object], until: float) -> None:
    """Each index once, or all its searches would ask for it at the same time. What is not found they find out."""
    named = {asked["index"] for asked in searches if isinstance(asked, dict) and isinstance(asked.get("index"), str)}
    with suppress(TimeoutError):
        async with asyncio.timeout_at(until):
            await asyncio.gather(*(app.generation(index, near=True) for index in named), return_exceptions=True)


async def _run(app: AppState, engine: BatchEngine, asked: object, until: float) -> dict[str, Any]:
    with engine.seat():
        try:
            async with asyncio.timeout_at(until):
                return {"status": 200, "answer": await _answer(app, engine, asked)}
        except TimeoutError:
            problem = count_problem(error_members(deadline_error()))
        except Exception as error:  # (a fault of ours in one search is none of the others' either)
            problem = count_problem(error_members(error))
    return {"status": problem["status"], "problem": problem}


async def _answer(app: AppState, engine: BatchEngine, asked: object) -> Response:
    if not isinstance(asked, dict):
        raise InvalidInput("invalid_request", "A search of a batch is a JSON object.")
    if "indexes" in asked:
        return await search_across(app, AcrossRequest.model_validate(asked), engine)
    index = asked.get("index")
    if not isinstance(index, str):
        raise InvalidInput("invalid_request", "A search of a batch names its `index`, or several `indexes`.")
    request = SearchRequest.model_validate({name: value for name, value in asked.items() if name != "index"})
    return await search(app, index, request, engine)
