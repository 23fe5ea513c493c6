"""Several searches on one engine: it waits until each of them needs something, then asks for all of it at once.

A batch of any length so takes as many requests as its longest search has rounds, and no stage of a search knows of it.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from query_api.search.engine import Answer, Direct, Documents, Key
from services.opensearch.analysis import Term, Terms, affordable
from services.opensearch.queries import Plan


@dataclass(slots=True)
class _Lists:
    plans: Sequence[Plan]
    answers: "asyncio.Future[Sequence[Answer]]"


@dataclass(slots=True)
class _Sources:
    wanted: Sequence[Key]
    fields: Sequence[str]
    answers: "asyncio.Future[Documents]"


@dataclass(slots=True)
class _Words:
    distinct: Sequence[str]
    answers: "asyncio.Future[Terms]"


@dataclass(slots=True)
class _Round:
    """What searches wait for: documents in real time apart from those as searches see them, words by the generation
    and the field whose terms are wanted.
    """

    lists: list[_Lists] = field(default_factory=list)
    seen: list[_Sources] = field(default_factory=list)
    realtime: list[_Sources] = field(default_factory=list)
    words: dict[tuple[str, str], list[_Words]] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        return len(self.lists) + len(self.seen) + len(self.realtime) + sum(map(len, self.words.values()))


class Together:
    """The engine of so many searches (`members`), each of which runs in a `seat`."""

    def __init__(self, inner: Direct, members: int) -> None:
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

    async def lists(self, plans: Sequence[Plan]) -> Sequence[Answer]:
        one = _Lists(plans, asyncio.get_running_loop().create_future())
        self._round.lists.append(one)
        self._send_when_all_wait()
        return await one.answers

    async def documents(self, wanted: Sequence[Key], source: Sequence[str], *, realtime: bool = False) -> Documents:
        one = _Sources(wanted, source, asyncio.get_running_loop().create_future())
        (self._round.realtime if realtime else self._round.seen).append(one)
        self._send_when_all_wait()
        return await one.answers

    async def terms(self, index: str, field: str, distinct: Sequence[str]) -> Terms:
        one = _Words(distinct, asyncio.get_running_loop().create_future())
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

    async def _send_lists(self, asked: Sequence[_Lists]) -> None:
        try:
            answers = iter(await self._inner.lists([plan for one in asked for plan in one.plans]))
        except Exception as error:  # (each of the searches makes of it what it would alone)
            _fail([one.answers for one in asked], error)
            return
        for one in asked:
            some = list(islice(answers, len(one.plans)))
            if not one.answers.done():
                one.answers.set_result(some)

    async def _send_sources(self, asked: Sequence[_Sources], *, realtime: bool) -> None:
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

    async def _send_words(self, index: str, name: str, asked: Sequence[_Words]) -> None:
        left = list(dict.fromkeys(word for one in asked for word in one.distinct))
        found: dict[str, Sequence[Term]] = {}
        try:
            while left:  # (each search asks about as many words as one request may, at most)
                some = affordable(left)
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
