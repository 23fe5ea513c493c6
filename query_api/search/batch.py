"""Batches: many searches in one request, each with its own answer or its own problem, in the order of the request.

The searches begin together, have one deadline and share their requests to OpenSearch (docs/decisions/0167).
`BatchExecutor` waits until each search needs something, then sends for all of them at once. So a batch of any length
sends as many requests as its longest search has rounds, and the stages of a search need not know of the batch.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from query_api.app_state import AppState
from query_api.schemas.search_request import BatchRequest, MultiIndexRequest, SearchRequest
from query_api.search.executor import DirectExecutor, Documents, Key, ListAnswer
from query_api.search.pipeline import deadline_error, search, search_multi_index
from query_api.search.stages import Response
from services.errors import InvalidInput
from services.opensearch.analysis import AnalysedTerm, TermsByWord, limit_words
from services.opensearch.queries import SearchPlan
from services.web.problems import count_problem, error_members


@dataclass(slots=True)
class _ListCall:
    """Lists that a search waits for."""

    plans: Sequence[SearchPlan]
    answers: "asyncio.Future[Sequence[ListAnswer]]"


@dataclass(slots=True)
class _DocumentCall:
    """Documents that a search waits for."""

    wanted: Sequence[Key]
    fields: Sequence[str]
    answers: "asyncio.Future[Documents]"


@dataclass(slots=True)
class _TermCall:
    """Analysed words that a search waits for."""

    distinct: Sequence[str]
    answers: "asyncio.Future[TermsByWord]"


@dataclass(slots=True)
class _PendingCalls:
    """The calls that searches wait for.

    Reads in real time are apart from reads of the refreshed index. Words are grouped by the generation and the field
    whose analyser they need.
    """

    lists: list[_ListCall] = field(default_factory=list)
    searchable: list[_DocumentCall] = field(default_factory=list)
    realtime: list[_DocumentCall] = field(default_factory=list)
    words: dict[tuple[str, str], list[_TermCall]] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """The number of calls."""
        return len(self.lists) + len(self.searchable) + len(self.realtime) + sum(map(len, self.words.values()))


class BatchExecutor:
    """An executor that `members` searches share; each search runs as a `member`."""

    def __init__(self, inner: DirectExecutor, members: int) -> None:
        self._inner = inner
        self._members = members
        self._pending = _PendingCalls()
        self._sending: set[asyncio.Task[None]] = set()

    @contextmanager
    def member(self) -> Iterator[None]:
        """Count one search as a member. After it ends, by success or error, no other search waits for it."""
        try:
            yield
        finally:
            self._members -= 1
            self._send_when_all_wait()

    async def lists(self, plans: Sequence[SearchPlan]) -> Sequence[ListAnswer]:
        call = _ListCall(plans, asyncio.get_running_loop().create_future())
        self._pending.lists.append(call)
        self._send_when_all_wait()
        return await call.answers

    async def documents(self, wanted: Sequence[Key], source: Sequence[str], *, realtime: bool = False) -> Documents:
        call = _DocumentCall(wanted, source, asyncio.get_running_loop().create_future())
        (self._pending.realtime if realtime else self._pending.searchable).append(call)
        self._send_when_all_wait()
        return await call.answers

    async def terms(self, index: str, field: str, distinct: Sequence[str]) -> TermsByWord:
        call = _TermCall(distinct, asyncio.get_running_loop().create_future())
        self._pending.words.setdefault((index, field), []).append(call)
        self._send_when_all_wait()
        return await call.answers

    def _send_when_all_wait(self) -> None:
        ready = self._pending
        if not ready.waiting or ready.waiting < self._members:
            return
        self._pending = _PendingCalls()
        if ready.lists:
            self._start(self._send_lists(ready.lists))
        if ready.searchable:
            self._start(self._send_sources(ready.searchable, realtime=False))
        if ready.realtime:
            self._start(self._send_sources(ready.realtime, realtime=True))
        for (index, name), calls in ready.words.items():
            self._start(self._send_words(index, name, calls))

    def _start(self, sending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(sending)
        self._sending.add(task)  # The event loop holds only a weak reference to a task.
        task.add_done_callback(self._sending.discard)

    async def _send_lists(self, calls: Sequence[_ListCall]) -> None:
        try:
            answers = iter(await self._inner.lists([plan for call in calls for plan in call.plans]))
        except Exception as error:  # Each search handles the error as if it were alone.
            _fail([call.answers for call in calls], error)
            return
        for call in calls:
            own_answers = list(islice(answers, len(call.plans)))
            if not call.answers.done():
                call.answers.set_result(own_answers)

    async def _send_sources(self, calls: Sequence[_DocumentCall], *, realtime: bool) -> None:
        # Several searches may need the same document: it is read once, with all fields that any of them needs.
        fields: dict[Key, set[str]] = {}
        for call in calls:
            for key in call.wanted:
                fields.setdefault(key, set()).update(call.fields)
        try:
            documents = await self._inner.sources(
                [(key, sorted(names)) for key, names in fields.items()], realtime=realtime
            )
        except Exception as error:
            _fail([call.answers for call in calls], error)
            return
        for call in calls:
            if not call.answers.done():
                call.answers.set_result({key: documents[key] for key in call.wanted if key in documents})

    async def _send_words(self, index: str, name: str, calls: Sequence[_TermCall]) -> None:
        remaining = list(dict.fromkeys(word for call in calls for word in call.distinct))
        terms: dict[str, Sequence[AnalysedTerm]] = {}
        try:
            # One search asks for at most one request's worth of words; several together may ask for more.
            while remaining:
                chunk = limit_words(remaining)
                terms |= await self._inner.terms(index, name, chunk)
                remaining = remaining[len(chunk) :]
        except Exception as error:
            _fail([call.answers for call in calls], error)
            return
        for call in calls:
            if not call.answers.done():
                call.answers.set_result({word: terms[word] for word in call.distinct if word in terms})


def _fail(futures: "Sequence[asyncio.Future[Any]]", error: Exception) -> None:
    """Set the error on futures that have no result yet."""
    for future in futures:
        if not future.done():
            future.set_exception(error)


async def batch(app: AppState, request: BatchRequest) -> dict[str, Any]:
    """Answer all searches of a batch. An error of one search is reported in its own answer.

    Raises InvalidInput (`empty_batch`, `batch_too_large`), and Overloaded for a caller beyond its rate limit.
    """
    searches: Sequence[object] = request.searches
    limit = app.settings.max_batch
    if not searches:
        raise InvalidInput("empty_batch", "The batch has no searches.")
    if len(searches) > limit:
        raise InvalidInput("batch_too_large", f"A batch may have {limit:,} searches; this has {len(searches):,}.")
    # The request itself has taken one token already.
    if len(searches) > 1:
        app.limiter.admit(app.principal, len(searches) - 1)
    deadline = asyncio.get_running_loop().time() + app.settings.search_timeout
    await _resolve_indexes(app, searches, deadline)
    executor = BatchExecutor(app.executor, len(searches))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_run(app, executor, body, deadline)) for body in searches]
    return {"answers": [task.result() for task in tasks]}


async def _resolve_indexes(app: AppState, searches: Sequence[object], deadline: float) -> None:
    """Look each index up once; otherwise all its searches would look it up at the same time.

    Errors are ignored: each search meets them again.
    """
    named = {body["index"] for body in searches if isinstance(body, dict) and isinstance(body.get("index"), str)}
    with suppress(TimeoutError):
        async with asyncio.timeout_at(deadline):
            await asyncio.gather(*(app.generation(index, prefer_local=True) for index in named), return_exceptions=True)


async def _run(app: AppState, executor: BatchExecutor, body: object, deadline: float) -> dict[str, Any]:
    """Answer one search, a member of the batch, with its status and its answer or problem."""
    with executor.member():
        try:
            async with asyncio.timeout_at(deadline):
                return {"status": 200, "answer": await _answer(app, executor, body)}
        except TimeoutError:
            problem = count_problem(error_members(deadline_error()))
        except Exception as error:  # An internal error of one search must not fail the others.
            problem = count_problem(error_members(error))
    return {"status": problem["status"], "problem": problem}


async def _answer(app: AppState, executor: BatchExecutor, body: object) -> Response:
    """Parse and run one search, of one index or of several."""
    if not isinstance(body, dict):
        raise InvalidInput("invalid_request", "Each search of a batch must be a JSON object.")
    if "indexes" in body:
        return await search_multi_index(app, MultiIndexRequest.model_validate(body), executor)
    index = body.get("index")
    if not isinstance(index, str):
        raise InvalidInput("invalid_request", "Each search of a batch must name its `index`, or several `indexes`.")
    request = SearchRequest.model_validate({name: value for name, value in body.items() if name != "index"})
    return await search(app, index, request, executor)
