"""The readiness of an API process to answer searches.

`ReadinessMonitor` checks OpenSearch, the query tables of all indexes and Redis, at most once a second however many
probes arrive.
"""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from query_api.index_cache import QueryTableCache
from services.errors import BackendUnavailable, EncoderMismatch, SparsewellError
from services.index_spec import IndexNames
from services.opensearch.client import AsyncSearchClient
from services.opensearch.generations import list_generations_call, read_active_generations
from services.queue.lanes import encode_queues
from services.queue.messages import Publisher

T = TypeVar("T")

CHECK_INTERVAL_SECONDS: Final = 1.0
# Probes time out after a few seconds, so a check must be faster.
CHECK_TIMEOUT_SECONDS: Final = 3.0


@dataclass(frozen=True)
class ReadinessReport:
    """The result of a check. `checks` has `ok` or a code for each part; `failure` is why no search can be answered."""

    at: float
    checks: dict[str, str]
    indexes: int
    messages: int | None
    failure: SparsewellError | None


class ReadinessMonitor:
    """The readiness of one process, checked at most once a second."""

    def __init__(
        self, names: IndexNames, tables: QueryTableCache, search: AsyncSearchClient, publisher: Publisher
    ) -> None:
        self._names = names
        self._tables = tables
        self._search = search
        self._publisher = publisher
        self._draining = False
        self._last: ReadinessReport | None = None
        self._lock = asyncio.Lock()

    def drain(self) -> None:
        """Mark the process as not ready for good, because it is about to end."""
        self._draining = True

    async def report(self) -> dict[str, Any]:
        """Return the answer of a ready process.

        Raises the reason why the process is not ready, with `checks` of every part: BackendUnavailable (`draining` and
        the codes of OpenSearch) or EncoderMismatch (`encoder_mismatch`).
        """
        if self._draining:
            raise BackendUnavailable("draining", "This process is about to end: use another one.", checks={})
        last = await self._last_check()
        if last.failure is not None:
            error = last.failure
            raise type(error)(error.code, error.detail, **error.extra, checks=last.checks)
        default = self._tables.default
        return {
            "status": "ready",
            "encoder": {"name": default.name, "fingerprint": default.fingerprint},
            "indexes": last.indexes,
            "queue": {"reachable": last.messages is not None, "messages": last.messages},
            "checks": last.checks,
        }

    async def _last_check(self) -> ReadinessReport:
        async with self._lock:
            if self._last is None or time.monotonic() - self._last.at >= CHECK_INTERVAL_SECONDS:
                self._last = await self._check()
            return self._last

    async def _check(self) -> ReadinessReport:
        (indexes, failure), messages = await asyncio.gather(self._check_indexes(), self._count_messages())
        mismatch = isinstance(failure, EncoderMismatch)
        checks = {
            "opensearch": "ok" if failure is None or mismatch else failure.code,
            "query_tables": "ok" if failure is None else failure.code if mismatch else "unknown",
            "redis": "redis_unavailable" if messages is None else "ok",
        }
        return ReadinessReport(time.monotonic(), checks, indexes, messages, failure)

    async def _check_indexes(self) -> tuple[int, SparsewellError | None]:
        """Return the number of indexes and the reason why they cannot be searched."""
        try:
            call = replace(list_generations_call(self._names, prefer_local=True), timeout=CHECK_TIMEOUT_SECONDS)
            generations = read_active_generations(await _with_timeout(self._search.send(call)))
        except SparsewellError as error:
            return 0, error
        except TimeoutError:
            return 0, BackendUnavailable("opensearch_timeout", "OpenSearch did not answer in time.")
        for generation in generations:
            encoder = generation.encoder
            if not self._tables.serves(encoder.fingerprint):
                return len(generations), EncoderMismatch(
                    "encoder_mismatch",
                    f"This service has no query table for the index {generation.index!r}, which {encoder.name} "
                    f"({encoder.fingerprint}) encoded.",
                )
        return len(generations), None

    async def _count_messages(self) -> int | None:
        """Count the messages for the configured encoder; None while Redis does not answer. Searches need no Redis."""
        queues = encode_queues(self._tables.default.name)
        try:
            return await _with_timeout(asyncio.to_thread(self._publisher.depth, *queues))
        except (BackendUnavailable, TimeoutError):
            return None


async def _with_timeout(answer: Awaitable[T]) -> T:
    async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
        return await answer
