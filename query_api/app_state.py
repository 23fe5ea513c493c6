"""What lives as long as the process: clients, tables, and what is remembered of the indexes for a moment.

OpenSearch as a caller with a filter of its own reaches it: see `services.opensearch.confinement`.
"""

import asyncio
import time
from collections.abc import Sequence
from copy import copy
from typing import Annotated, Any, Self

from fastapi import Depends, Request

from query_api.access.gate import request_principal
from query_api.access.key_ring import KeyRing
from query_api.access.rate_limit import RateLimiter
from query_api.curation_cache import CurationCache
from query_api.ingest.backpressure import BackgroundReader, BacklogMonitor, InFlightRequests
from query_api.query_log import QueryLog
from query_api.readiness import QueryTableCache, ReadinessMonitor
from query_api.search.executor import DirectEngine
from query_api.search.page_state import HeldPointsInTime
from query_api.search.validation import limits_of
from services.access.api_keys import read_key_file
from services.access.principals import EVERYBODY, Principal, RateLimits
from services.documents.document import VersionClock
from services.encoders.catalogue import list_dense_encoders
from services.errors import Forbidden, InvalidInput, NotFound
from services.filters.parsing import FilterLimits, parse_filter
from services.filters.tree import Filter
from services.index_spec import Generation, IndexNames
from services.model_client import ModelClient
from services.opensearch.client import AsyncSearchClient, Call
from services.opensearch.document_level_security import DocumentLevelSecurity
from services.opensearch.generations import generation_call, index_not_found, read_generation, resolve_alias_call
from services.queue.messages import Publisher
from services.queue.worker_registry import WorkerRegistry
from services.settings import Settings, split_addresses


class RestrictedSearchClient(AsyncSearchClient):
    """Sends what another client sends, confined. It has no connections of its own."""

    def __init__(self, everything: AsyncSearchClient, within: DocumentLevelSecurity) -> None:
        self._everything = everything
        self._within = within

    async def send(self, call: Call) -> Any:
        return self._within.answered(call, await self._everything.send(self._within.confined(call)))

    async def close(self) -> None:
        """They are the other's."""


def parse_key_filter(value: Any, generation: Generation, limits: FilterLimits) -> Filter:
    """A caller's filter as one of an index. Raises Forbidden (`key_filter_unfit`): without it nothing is shown."""
    try:
        return parse_filter(value, generation.spec.fields, limits)
    except InvalidInput as error:
        raise Forbidden(
            "key_filter_unfit",
            f"The filter of this key does not fit the index {generation.index!r}, so nothing of it is shown: "
            f"{error.detail}",
        ) from None


# A swapped alias is noticed after this long; until then the old generation answers whole and with its own table.
GENERATION_CACHE_SECONDS = 2.0


class AppState:
    """Made by `create_app`, closed with it. Each request has a view of them: that of who asks (`seen_by`)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.names = IndexNames(settings.index_prefix)
        self.tables = QueryTableCache(settings)
        self.dense = list_dense_encoders(settings)
        # A late model never costs the answer: at least half of a search's time is OpenSearch's.
        patience = min(settings.model_timeout, settings.search_timeout / 2)
        key = next(iter(read_key_file(settings.model_key_file, "SPARSEWELL_MODEL_KEY_FILE")), "")
        self.model = ModelClient(settings.model_url, patience, key) if settings.model_url else None
        self.search = AsyncSearchClient(settings)
        # Several addresses are asked in turn, so each node's own copies get their share of searches.
        self.near = len(split_addresses(settings.opensearch_url)) > 1
        self.engine = DirectEngine(self.search, settings.search_timeout, near=self.near)
        self.held = HeldPointsInTime(settings.max_snapshots)
        self.publisher = Publisher(settings.redis_address)
        self.clock = VersionClock()
        self.backlog = BacklogMonitor(settings, self.search, self.publisher)
        # Searches share the connections to OpenSearch: a quarter of them is never taken by documents.
        most = min(settings.max_ingest_requests, max(1, settings.opensearch_pool * 3 // 4))
        self.in_flight = InFlightRequests(most, settings.max_ingest_bytes)
        self.long_reading = BackgroundReader()
        self.curations = CurationCache(self.search, self.names, settings.search_timeout)
        self.learning = QueryLog(self.search, self.names, settings)
        self.keys = KeyRing(self.search, self.names)
        defaults = RateLimits(settings.key_rate or None, settings.key_burst or None, settings.key_daily or None)
        self.limiter = RateLimiter(settings.redis_address, settings.index_prefix, defaults)
        self.who: Principal = EVERYBODY
        self.presence = WorkerRegistry(settings.redis_address)
        self.readiness = ReadinessMonitor(self.names, self.tables, self.search, self.publisher)
        # Of a caller with a filter of its own, `search` is kept within it, and `everything` is for what is no document.
        self.everything = self.search
        self._within: DocumentLevelSecurity | None = None
        self._generations: dict[str, tuple[float, Generation]] = {}

    def seen_by(self, who: Principal) -> Self:
        """The same parts, for what one principal asks."""
        if who is self.who:
            return self
        view = copy(self)
        view.who = who
        if who.filter is not None:
            view._within = DocumentLevelSecurity()
            view.search = RestrictedSearchClient(self.everything, view._within)
            view.engine = DirectEngine(view.search, self.settings.search_timeout, near=self.near)
        return view

    async def generation(self, index: str, *, near: bool = False) -> Generation:
        """The generation that an index's alias points to; `near` as in `resolve_alias_call`. Its rules are read beside it.

        Raises NotFound (`index_not_found`), Forbidden (`index_forbidden`, `key_filter_unfit`).
        """
        self.who.demand_index(index)
        return self._admitted(await self._generation(index, near=near))

    async def _generation(self, index: str, *, near: bool) -> Generation:
        remembered = self._generations.get(index)
        now = time.monotonic()
        if remembered is not None and now - remembered[0] < GENERATION_CACHE_SECONDS:
            return remembered[1]
        call = resolve_alias_call(self.names, index, near=near)
        try:
            answer, rules = await asyncio.gather(self.everything.send(call), self.curations.read(index, near=near))
            generation = read_generation(answer, index)
        except NotFound:
            self.forget(index)
            self.curations.forget(index)
            raise index_not_found(index) from None
        self._generations[index] = (now, generation)
        self.curations.remember(generation, rules)
        return generation

    async def generation_of(self, index: str, physical: str) -> Generation:
        """A generation by its own name: of what began a while ago, and may not be the one that is searched by now.

        Raises NotFound (`index_not_found`) for one that was dropped.
        """
        active = await self.generation(index, near=True)
        if active.physical == physical:
            return active
        if not self.names.is_generation(index, physical):
            raise index_not_found(index)
        found = read_generation(await self.everything.send(generation_call(physical)), index)
        if found.physical != physical:
            raise index_not_found(index)
        return self._admitted(found)

    def cursor_key(self, kind: str, generations: Sequence[Generation]) -> bytes:
        """What cursors of a kind over these indexes are sealed with for who asks.

        Who is given a cursor does not know it: it was drawn when the index was made. A cursor is of the caller that it
        was given to, and none for another one.
        """
        return "\0".join([kind, *(one.lineage for one in generations), self.who.mark]).encode()

    def _admitted(self, generation: Generation) -> Generation:
        """The generation, for a caller with a filter of its own to be asked under that filter alone."""
        if self._within is not None:
            self._within.admit(generation, parse_key_filter(self.who.filter, generation, limits_of(self.settings)))
        return generation

    def forget(self, index: str) -> None:
        """The next request asks OpenSearch again."""
        self._generations.pop(index, None)

    async def close(self) -> None:
        self.long_reading.close()
        await self.keys.close()
        await self.limiter.close()
        await self.learning.close()
        await self.everything.close()
        if self.model is not None:
            await self.model.close()
        self.publisher.close()
        self.presence.close()


def request_app_state(request: Request) -> AppState:
    """Return the application's state as the caller of a request may use it."""
    every: AppState = request.app.state.app_state
    return every.seen_by(request_principal(request))


async def _app_state(request: Request) -> AppState:
    # async although it awaits nothing: FastAPI sends plain functions through a thread pool, on every request
    return request_app_state(request)


WithApp = Annotated[AppState, Depends(_app_state)]
