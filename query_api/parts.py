"""What lives as long as the process: clients, tables, and what is remembered of the indexes for a moment."""

import asyncio
import time
from collections.abc import Sequence
from copy import copy
from typing import Annotated, Self

from fastapi import Depends, Request

from query_api.access.confined import ConfinedSearch, own_filter
from query_api.access.limiting import Limiter
from query_api.access.operations import principal_of
from query_api.access.ring import KeyRing
from query_api.admission import InFlight
from query_api.backlog import Backlog
from query_api.curations import Curations
from query_api.encoders import QueryTables
from query_api.learning import Learning
from query_api.long_reading import LongReading
from query_api.readiness import Readiness
from query_api.search.engine import Direct
from query_api.search.selection import limits_of
from query_api.snapshots import Held
from services.access.mode import read_keys
from services.access.principal import EVERYBODY, Limits, Principal
from services.addresses import each_address
from services.errors import NotFound
from services.index_spec import Generation, Names
from services.known_dense import known_dense
from services.model_client import ModelClient
from services.opensearch.client import AsyncSearch
from services.opensearch.confinement import Confinement
from services.opensearch.generations import generation_call, index_not_found, read_generation, resolve_call
from services.presence import Presence
from services.queue import Publisher
from services.settings import Settings
from services.versions import Clock

# A swapped alias is noticed after this long; until then the old generation answers whole and with its own table.
REMEMBERED_SECONDS = 2.0


class AppState:
    """Made by `create_app`, closed with it. Each request has a view of them: that of who asks (`seen_by`)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.names = Names(settings.index_prefix)
        self.tables = QueryTables(settings)
        self.dense = known_dense(settings)
        # A late model never costs the answer: at least half of a search's time is OpenSearch's.
        patience = min(settings.model_timeout, settings.search_timeout / 2)
        key = next(iter(read_keys(settings.model_key_file, "SPARSEWELL_MODEL_KEY_FILE")), "")
        self.model = ModelClient(settings.model_url, patience, key) if settings.model_url else None
        self.search = AsyncSearch(settings)
        # Several addresses are asked in turn, so each node's own copies get their share of searches.
        self.near = len(each_address(settings.opensearch_url)) > 1
        self.engine = Direct(self.search, settings.search_timeout, near=self.near)
        self.held = Held(settings.max_snapshots)
        self.publisher = Publisher(settings.redis_address)
        self.clock = Clock()
        self.backlog = Backlog(settings, self.search, self.publisher)
        # Searches share the connections to OpenSearch: a quarter of them is never taken by documents.
        most = min(settings.max_ingest_requests, max(1, settings.opensearch_pool * 3 // 4))
        self.in_flight = InFlight(most, settings.max_ingest_bytes)
        self.long_reading = LongReading()
        self.curations = Curations(self.search, self.names, settings.search_timeout)
        self.learning = Learning(self.search, self.names, settings)
        self.keys = KeyRing(self.search, self.names)
        defaults = Limits(settings.key_rate or None, settings.key_burst or None, settings.key_daily or None)
        self.limiter = Limiter(settings.redis_address, settings.index_prefix, defaults)
        self.who: Principal = EVERYBODY
        self.presence = Presence(settings.redis_address)
        self.readiness = Readiness(self.names, self.tables, self.search, self.publisher)
        # Of a caller with a filter of its own, `search` is kept within it, and `everything` is for what is no document.
        self.everything = self.search
        self._within: Confinement | None = None
        self._generations: dict[str, tuple[float, Generation]] = {}

    def seen_by(self, who: Principal) -> Self:
        """The same parts, for what one principal asks."""
        if who is self.who:
            return self
        view = copy(self)
        view.who = who
        if who.filter is not None:
            view._within = Confinement()
            view.search = ConfinedSearch(self.everything, view._within)
            view.engine = Direct(view.search, self.settings.search_timeout, near=self.near)
        return view

    async def generation(self, index: str, *, near: bool = False) -> Generation:
        """The generation that an index's alias points to; `near` as in `resolve_call`. Its rules are read beside it.

        Raises NotFound (`index_not_found`), Forbidden (`index_forbidden`, `key_filter_unfit`).
        """
        self.who.demand_index(index)
        return self._admitted(await self._generation(index, near=near))

    async def _generation(self, index: str, *, near: bool) -> Generation:
        remembered = self._generations.get(index)
        now = time.monotonic()
        if remembered is not None and now - remembered[0] < REMEMBERED_SECONDS:
            return remembered[1]
        call = resolve_call(self.names, index, near=near)
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
            self._within.admit(generation, own_filter(self.who.filter, generation, limits_of(self.settings)))
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


def app_state_of(request: Request) -> AppState:
    """Return the application's state as the caller of a request may use it."""
    every: AppState = request.app.state.app_state
    return every.seen_by(principal_of(request))


async def _app_state(request: Request) -> AppState:
    # async although it awaits nothing: FastAPI sends plain functions through a thread pool, on every request
    return app_state_of(request)


WithApp = Annotated[AppState, Depends(_app_state)]
