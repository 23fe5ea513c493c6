"""Learning which queries are frequent: counted in memory by each API process, written down every half a minute.

A search only counts; nothing on its way waits for this. What is not written when a process dies is lost, which costs a
few counts. It is off unless the operator names indexes, because what people ask can be about themselves.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Final

from services.access.principals import EVERYBODY, Principal
from services.errors import Conflict, SparsewellError
from services.index_spec import Generation, IndexNames
from services.opensearch.client import AsyncSearchClient
from services.opensearch.journal import now_ms
from services.opensearch.suggestions import (
    CountedQuery,
    excess_rank_call,
    is_query_index_missing,
    make_query_log_calls,
    prune_queries_call,
    read_conflicting_queries,
    read_excess_rank,
    read_query_counts_call,
    refresh_queries_call,
    remove_queries_call,
    write_query_counts_call,
)
from services.opensearch.system_indexes import create_system_index
from services.query.suggest import QueryCounter, learnable_query
from services.settings import Settings, split_names

log = logging.getLogger(__name__)

FLUSH_INTERVAL_SECONDS: Final = 30.0
_BATCH_QUERIES: Final = 500
# Different queries between two writes.
_MAX_QUERIES: Final = 5000
_TIMEOUT_SECONDS: Final = 10.0
_MAX_ATTEMPTS: Final = 5
ALL_QUERIES: Final = "*"


class QueryLog:
    """Counts for one process; belongs to one event loop."""

    def __init__(self, search: AsyncSearchClient, names: IndexNames, settings: Settings) -> None:
        self._search: Final = search
        self._names: Final = names
        self._settings: Final = settings
        self._indexes: Final = frozenset(split_names(settings.learn_queries))
        self._counts: Final = QueryCounter(_MAX_QUERIES)
        # What is being written down is neither in the counts nor found by a search: who removes it waits.
        self._writing: Final = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def note(self, generation: Generation, query: str, of: Principal = EVERYBODY) -> None:
        """Counts a query that found something; not that of a caller who sees some documents only: others would be told
        what it asks.
        """
        if of.filter is not None:
            return
        if not self._indexes or (generation.index not in self._indexes and ALL_QUERIES not in self._indexes):
            return
        kept = learnable_query(query)
        if kept is None:
            return
        self._counts.note(generation.index, generation.lineage, kept)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._later())

    async def flush(self) -> None:
        """Writes what was counted. Raises what OpenSearch says; the counts are lost then."""
        async with self._writing:
            asked = [CountedQuery(*key, times) for key, times in self._counts.take().items()]
            for one in await self._write(asked):  # somebody else was faster: with the next ones
                self._counts.note(one.index, one.lineage, one.query, one.times)
        for lineage in {one.lineage for one in asked}:
            await self._tidy(lineage)

    async def add(self, asked: Sequence[CountedQuery]) -> None:
        """Adds to the counts that are stored. Raises Conflict (`queries_busy`) when others keep changing them."""
        for _ in range(_MAX_ATTEMPTS):
            if not (asked := await self._write(asked)):
                return
        raise Conflict("queries_busy", "The same queries are counted by others just now; send them again.")

    async def forget(self, index: str, query: str | None) -> int:
        """Removes a query of an index, or all; how many there were."""
        async with self._writing:
            self._counts.forget(index, query)
            await self._search.send(refresh_queries_call(self._names))
            answer = await self._search.send(remove_queries_call(self._names, index, query))
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
            await asyncio.sleep(FLUSH_INTERVAL_SECONDS)
            try:
                await self.flush()
            except SparsewellError as error:
                log.warning("queries were counted and not written: %s", error.code)

    async def _write(self, asked: Sequence[CountedQuery]) -> list[CountedQuery]:
        """Those that somebody else changed meanwhile are given back."""
        left: list[CountedQuery] = []
        for start in range(0, len(asked), _BATCH_QUERIES):
            some = asked[start : start + _BATCH_QUERIES]
            read = await self._search.send(read_query_counts_call(self._names, some, _TIMEOUT_SECONDS))
            if is_query_index_missing(read):
                await self._make()
            call = write_query_counts_call(self._names, some, read, now_ms(), _TIMEOUT_SECONDS)
            left += read_conflicting_queries(some, await self._search.send(call))
        return left

    async def _tidy(self, lineage: str) -> None:
        beyond = read_excess_rank(
            await self._search.send(excess_rank_call(self._names, lineage, self._settings.max_learned_queries))
        )
        await self._search.send(prune_queries_call(self._names, lineage, beyond, now_ms()))

    async def _make(self) -> None:
        await create_system_index(self._search, make_query_log_calls(self._names, self._settings.replicas))
