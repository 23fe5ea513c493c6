"""Learning which queries are frequent: counted in memory by each API process, written down every half a minute.

A search only counts; nothing on its way waits for this. What is not written when a process dies is lost, which costs a
few counts. It is off unless the operator names indexes, because what people ask can be about themselves.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Final

from services.access.principal import EVERYBODY, Principal
from services.environment import listed
from services.errors import Conflict, SparsewellError
from services.index_spec import Generation, Names
from services.learned import QueryCounts, learnable
from services.opensearch import own_index
from services.opensearch.client import AsyncSearch
from services.opensearch.journal import now_ms
from services.opensearch.query_store import (
    Asked,
    beyond_call,
    forget_call,
    is_missing,
    make_calls,
    read_beyond,
    read_call,
    read_conflicts,
    refresh_call,
    remove_call,
    write_call,
)
from services.settings import Settings

log = logging.getLogger(__name__)

INTERVAL: Final = 30.0
_TOGETHER: Final = 500
# Different queries between two writes.
_MOST: Final = 5000
_TIMEOUT: Final = 10.0
_TRIES: Final = 5
EVERY: Final = "*"


class Learning:
    """Counts for one process; belongs to one event loop."""

    def __init__(self, search: AsyncSearch, names: Names, settings: Settings) -> None:
        self._search: Final = search
        self._names: Final = names
        self._settings: Final = settings
        self._indexes: Final = frozenset(listed(settings.learn_queries))
        self._counts: Final = QueryCounts(_MOST)
        # What is being written down is neither in the counts nor found by a search: who removes it waits.
        self._writing: Final = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def note(self, generation: Generation, query: str, of: Principal = EVERYBODY) -> None:
        """Counts a query that found something; not that of a caller who sees some documents only: others would be told
        what it asks.
        """
        if of.filter is not None:
            return
        if not self._indexes or (generation.index not in self._indexes and EVERY not in self._indexes):
            return
        kept = learnable(query)
        if kept is None:
            return
        self._counts.note(generation.index, generation.lineage, kept)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._later())

    async def flush(self) -> None:
        """Writes what was counted. Raises what OpenSearch says; the counts are lost then."""
        async with self._writing:
            asked = [Asked(*key, times) for key, times in self._counts.take().items()]
            for one in await self._write(asked):  # somebody else was faster: with the next ones
                self._counts.note(one.index, one.lineage, one.query, one.times)
        for lineage in {one.lineage for one in asked}:
            await self._tidy(lineage)

    async def add(self, asked: Sequence[Asked]) -> None:
        """Adds to the counts that are stored. Raises Conflict (`queries_busy`) when others keep changing them."""
        for _ in range(_TRIES):
            if not (asked := await self._write(asked)):
                return
        raise Conflict("queries_busy", "The same queries are counted by others just now; send them again.")

    async def forget(self, index: str, query: str | None) -> int:
        """Removes a query of an index, or all; how many there were."""
        async with self._writing:
            self._counts.forget(index, query)
            await self._search.send(refresh_call(self._names))
            answer = await self._search.send(remove_call(self._names, index, query))
        return int(answer.get("deleted", 0))

    async def close(self) -> None:
        """Writes the last counts, unless that takes long."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(SparsewellError, TimeoutError):
            async with asyncio.timeout(2):
                await self.flush()

    async def _later(self) -> None:
        while len(self._counts):
            await asyncio.sleep(INTERVAL)
            try:
                await self.flush()
            except SparsewellError as error:
                log.warning("queries were counted and not written: %s", error.code)

    async def _write(self, asked: Sequence[Asked]) -> list[Asked]:
        """Those that somebody else changed meanwhile are given back."""
        left: list[Asked] = []
        for start in range(0, len(asked), _TOGETHER):
            some = asked[start : start + _TOGETHER]
            read = await self._search.send(read_call(self._names, some, _TIMEOUT))
            if is_missing(read):
                await self._make()
            call = write_call(self._names, some, read, now_ms(), _TIMEOUT)
            left += read_conflicts(some, await self._search.send(call))
        return left

    async def _tidy(self, lineage: str) -> None:
        beyond = read_beyond(
            await self._search.send(beyond_call(self._names, lineage, self._settings.max_learned_queries))
        )
        await self._search.send(forget_call(self._names, lineage, beyond, now_ms()))

    async def _make(self) -> None:
        await own_index.make(self._search, make_calls(self._names, self._settings.replicas))
