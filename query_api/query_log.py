"""The query log: counts of frequent queries for suggestions.

Each API process counts queries in memory and writes the counts to OpenSearch every 30 s. A search never waits for it.
A process that dies loses its unwritten counts. The log is off unless the operator names indexes
(`SPARSEWELL_LEARN_QUERIES`), because queries can be personal data.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Final

from services.access.principals import EVERYBODY, Principal
from services.dates import now_ms
from services.errors import Conflict, SparsewellError
from services.index_spec import Generation, IndexNames
from services.opensearch.client import AsyncSearchClient
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
# Distinct queries that are counted between two writes.
_MAX_QUERIES: Final = 5000
_TIMEOUT_SECONDS: Final = 10.0
_MAX_ATTEMPTS: Final = 5
ALL_QUERIES: Final = "*"


class QueryLog:
    """The query counts of one process. It belongs to one event loop."""

    def __init__(self, search: AsyncSearchClient, names: IndexNames, settings: Settings) -> None:
        self._search: Final = search
        self._names: Final = names
        self._settings: Final = settings
        self._indexes: Final = frozenset(split_names(settings.learn_queries))
        self._counts: Final = QueryCounter(_MAX_QUERIES)
        # Counts that are being written are in neither the memory nor a search. A removal waits for the write.
        self._write_lock: Final = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def note(self, generation: Generation, query: str, principal: Principal = EVERYBODY) -> None:
        """Count a query that found documents.

        Queries of a principal with a document filter are not counted: suggestions would reveal them to others.
        """
        if principal.filter is not None:
            return
        if not self._indexes or (generation.index not in self._indexes and ALL_QUERIES not in self._indexes):
            return
        normalised = learnable_query(query)
        if normalised is None:
            return
        self._counts.count(generation.index, generation.lineage, normalised)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._flush_periodically())

    async def flush(self) -> None:
        """Write the counts. Raises the errors of OpenSearch; the counts are then lost."""
        async with self._write_lock:
            queries = [CountedQuery(*key, times) for key, times in self._counts.drain().items()]
            for counted in await self._write(queries):  # Another process changed them; the next flush writes them.
                self._counts.count(counted.index, counted.lineage, counted.query, counted.times)
        for lineage in {counted.lineage for counted in queries}:
            await self._prune(lineage)

    async def add(self, queries: Sequence[CountedQuery]) -> None:
        """Add to the stored counts. Raises Conflict (`queries_busy`) when other processes keep changing them."""
        for _ in range(_MAX_ATTEMPTS):
            if not (queries := await self._write(queries)):
                return
        raise Conflict("queries_busy", "Another process is counting the same queries; send them again.")

    async def forget(self, index: str, query: str | None) -> int:
        """Remove a query of an index, or all with None. Return the number of removed queries."""
        async with self._write_lock:
            self._counts.forget(index, query)
            await self._search.send(refresh_queries_call(self._names))
            answer = await self._search.send(remove_queries_call(self._names, index, query))
        return int(answer.get("deleted", 0))

    async def close(self) -> None:
        """Write the last counts, within two seconds."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(SparsewellError, TimeoutError):
            async with asyncio.timeout(2):
                await self.flush()

    async def _flush_periodically(self) -> None:
        while len(self._counts):
            await asyncio.sleep(FLUSH_INTERVAL_SECONDS)
            try:
                await self.flush()
            except SparsewellError as error:
                log.warning("the query counts could not be written and are lost: %s", error.code)

    async def _write(self, queries: Sequence[CountedQuery]) -> list[CountedQuery]:
        """Add counts with a compare-and-swap each. Return the queries that another process changed meanwhile."""
        conflicting: list[CountedQuery] = []
        for start in range(0, len(queries), _BATCH_QUERIES):
            batch = queries[start : start + _BATCH_QUERIES]
            stored = await self._search.send(read_query_counts_call(self._names, batch, _TIMEOUT_SECONDS))
            if is_query_index_missing(stored):
                await self._create_index()
            call = write_query_counts_call(self._names, batch, stored, now_ms(), _TIMEOUT_SECONDS)
            conflicting += read_conflicting_queries(batch, await self._search.send(call))
        return conflicting

    async def _prune(self, lineage: str) -> None:
        """Remove the rarest queries of an index beyond the limit."""
        excess_rank = read_excess_rank(
            await self._search.send(excess_rank_call(self._names, lineage, self._settings.max_learned_queries))
        )
        await self._search.send(prune_queries_call(self._names, lineage, excess_rank, now_ms()))

    async def _create_index(self) -> None:
        await create_system_index(self._search, make_query_log_calls(self._names, self._settings.replicas))
