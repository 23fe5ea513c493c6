"""Whether this process can answer searches, part by part, looked at once a second however many probes ask."""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from query_api.encoders import QueryTables
from services.contracts import encode_queue
from services.errors import BackendUnavailable, EncoderMismatch, SparsewellError
from services.index_spec import Names
from services.opensearch.client import AsyncSearch
from services.opensearch.generations import list_call, read_active
from services.queue import Publisher

T = TypeVar("T")

FRESH_SECONDS: Final = 1.0
# A probe that waits longer is given up by whoever sent it.
LOOK_SECONDS: Final = 3.0


@dataclass(frozen=True)
class Look:
    """What was found. `failure` is why no search can be answered; `checks` says it of each part, `ok` or a code."""

    at: float
    checks: dict[str, str]
    indexes: int
    messages: int | None
    failure: SparsewellError | None


class Readiness:
    """Made with the process's parts. `drain` is for good."""

    def __init__(self, names: Names, tables: QueryTables, search: AsyncSearch, publisher: Publisher) -> None:
        self._names = names
        self._tables = tables
        self._search = search
        self._publisher = publisher
        self._draining = False
        self._last: Look | None = None
        self._lock = asyncio.Lock()

    def drain(self) -> None:
        """From now on this process is not ready, because it is about to end."""
        self._draining = True

    async def said(self) -> dict[str, Any]:
        """The answer of a process that is ready. Raises the reason why it is not, with `checks` of every part."""
        if self._draining:
            raise BackendUnavailable("draining", "This process is about to end: ask another one.", checks={})
        look = await self._look()
        if look.failure is not None:
            error = look.failure
            raise type(error)(error.code, error.detail, **error.extra, checks=look.checks)
        default = self._tables.default
        return {
            "status": "ready",
            "encoder": {"name": default.name, "fingerprint": default.fingerprint},
            "indexes": look.indexes,
            "queue": {"reachable": look.messages is not None, "messages": look.messages},
            "checks": look.checks,
        }

    async def _look(self) -> Look:
        async with self._lock:
            if self._last is None or time.monotonic() - self._last.at >= FRESH_SECONDS:
                self._last = await self._looked()
            return self._last

    async def _looked(self) -> Look:
        (indexes, failure), messages = await asyncio.gather(self._indexes(), self._messages())
        tables = isinstance(failure, EncoderMismatch)
        checks = {
            "opensearch": "ok" if failure is None or tables else failure.code,
            "query_tables": failure.code if tables and failure is not None else "ok" if failure is None else "unknown",
            "redis": "redis_unavailable" if messages is None else "ok",
        }
        return Look(time.monotonic(), checks, indexes, messages, failure)

    async def _indexes(self) -> tuple[int, SparsewellError | None]:
        """How many there are, and why they cannot be searched."""
        try:
            call = replace(list_call(self._names, near=True), timeout=LOOK_SECONDS)
            generations = read_active(await _within(self._search.send(call)))
        except SparsewellError as error:
            return 0, error
        except TimeoutError:
            return 0, BackendUnavailable("opensearch_timeout", "OpenSearch did not answer in time.")
        for one in generations:
            if not self._tables.serves(one.encoder.fingerprint):
                return len(generations), EncoderMismatch(
                    "encoder_mismatch",
                    f"No query table for the index {one.index!r}, which {one.encoder.name} "
                    f"({one.encoder.fingerprint}) encoded.",
                )
        return len(generations), None

    async def _messages(self) -> int | None:
        """Messages in the queue of the API's own encoder; None while Redis does not answer, which no search needs."""
        queue = encode_queue(self._tables.default.name)
        try:
            return await _within(asyncio.to_thread(self._publisher.depth, queue))
        except (BackendUnavailable, TimeoutError):
            return None


async def _within(answer: Awaitable[T]) -> T:
    async with asyncio.timeout(LOOK_SECONDS):
        return await answer
