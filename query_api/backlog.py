"""Looks at what waits behind the API, a second old at most, and refuses more when it is too much."""

import asyncio
import time
from collections import deque
from dataclasses import replace

from query_api.admission import Look, refusal, waiting_documents
from services.contracts import encode_queue
from services.errors import SparsewellError
from services.index_spec import Names
from services.opensearch.client import AsyncSearch
from services.opensearch.generations import pending_call, read_pending
from services.queue import Publisher
from services.settings import Settings

FRESH_SECONDS = 1.0
# Looks that the rate is told from.
KEPT_SECONDS = 60.0
# A look is a small request; one that takes longer is no look.
LOOK_SECONDS = 2.0


class Backlog:
    """What waits to be encoded: documents of all indexes, as OpenSearch counts them, and messages of each encoder.

    Documents are counted where they are durable, so the limit holds with Redis away as well. A count is as old as a
    refresh and a look; what this process journalled meanwhile is added to it.
    """

    def __init__(self, settings: Settings, search: AsyncSearch, publisher: Publisher) -> None:
        self._settings = settings
        self._search = search
        self._publisher = publisher
        self._names = Names(settings.index_prefix)
        self._looks: dict[str, deque[Look]] = {}
        self._looking: dict[str, asyncio.Lock] = {}
        self._journalled = 0

    def journalled(self, documents: int) -> None:
        """Counts documents that were accepted a moment ago."""
        self._journalled += documents

    async def admit(self, encoder: str) -> None:
        """Raises Overloaded (`too_many_pending`, `queue_full`) when more documents for this encoder are too many."""
        looks = self._looks.setdefault(encoder, deque())
        lock = self._looking.setdefault(encoder, asyncio.Lock())
        if not looks:
            async with lock:
                if not looks:
                    await self._look(encoder, looks)
        elif time.monotonic() - looks[-1].at >= FRESH_SECONDS and not lock.locked():
            # One request looks; those that come meanwhile go by the look before.
            async with lock:
                await self._look(encoder, looks)
        pending = waiting_documents(looks, time.monotonic(), self._journalled)
        settings = self._settings
        error = refusal(
            [*looks, replace(looks[-1], pending=pending)], settings.max_pending_documents, settings.max_queue_messages
        )
        if error is not None:
            raise error

    async def _look(self, encoder: str, looks: deque[Look]) -> None:
        journalled = self._journalled
        pending, messages = await asyncio.gather(self._pending(), self._messages(encoder))
        now = time.monotonic()
        looks.append(Look(now, pending, messages, journalled))
        while len(looks) > 1 and now - looks[0].at > KEPT_SECONDS:
            looks.popleft()

    async def _pending(self) -> int | None:
        try:
            return read_pending(await self._search.send(pending_call(self._names, LOOK_SECONDS)))
        except SparsewellError:
            return None

    async def _messages(self, encoder: str) -> int | None:
        try:
            return await asyncio.to_thread(self._publisher.depth, encode_queue(encoder))
        except SparsewellError:
            return None
