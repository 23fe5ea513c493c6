"""The state of an API process and the view of one caller on it.

`AppState` holds the clients, the query tables and short-lived caches of generations and curation rules. `for_principal`
returns a view for one principal. For a principal with a document filter, the view sends every call through
`RestrictedSearchClient`, which applies document-level security (`services.access.document_level_security`).
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Annotated, Any, Self

from fastapi import Depends, Request

from query_api.access.gate import request_principal
from query_api.access.key_ring import KeyRing
from query_api.access.rate_limit import RateLimiter
from query_api.index_cache import CurationCache, QueryTableCache
from query_api.ingest.backpressure import BackgroundReader, BacklogMonitor, InFlightRequests
from query_api.points_in_time import PointInTimeRegistry
from query_api.query_log import QueryLog
from query_api.readiness import ReadinessMonitor
from query_api.search.executor import DirectExecutor
from query_api.search.validation import limits_of
from services.access.api_keys import read_key_file
from services.access.document_level_security import DocumentLevelSecurity
from services.access.principals import EVERYBODY, Principal, RateLimits
from services.documents.document import VersionClock
from services.encoders.catalogue import list_dense_encoders
from services.errors import Forbidden, InvalidInput, NotFound, SparsewellError
from services.filters.parsing import FilterLimits, parse_filter
from services.filters.tree import Filter
from services.index_spec import Generation, IndexNames
from services.model_client import ModelClient
from services.opensearch.client import AsyncSearchClient, Call
from services.opensearch.generations import generation_call, index_not_found, read_generation, resolve_alias_call
from services.queue.installation import InstallationClaim
from services.queue.messages import EncodeMessage, Publisher
from services.queue.worker_registry import WorkerRegistry
from services.settings import Settings, split_addresses

log = logging.getLogger(__name__)

# The process notices a swapped alias after this time. Until then the old generation answers, with its own query table.
GENERATION_CACHE_SECONDS = 2.0
# Writes that wait until searches see their documents (`?wait=`). Further ones are answered at once.
MAX_WAITS = 64
# Pages of several stored documents that ingestion holds at once. A page of the largest documents takes 128 MB.
MAX_WHOLE_DOCUMENT_READS = 4


class AppState:
    """The clients, tables and caches of one API process. A request uses the view of its principal (`for_principal`)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.names = IndexNames(settings.index_prefix)
        self.document_limits = settings.document_limits
        self.tables = QueryTableCache(settings)
        self.dense = list_dense_encoders(settings)
        # A slow model never costs the answer: OpenSearch gets at least half of a search's time.
        longest = settings.search_timeout / 2
        reranker_timeouts = {
            "cross-encoder": min(settings.cross_encoder_timeout, longest),
            "listwise": min(settings.listwise_timeout, longest),
        }
        model_key = next(iter(read_key_file(settings.model_key_file, "SPARSEWELL_MODEL_KEY_FILE")), "")
        self.model = (
            ModelClient(
                settings.model_url,
                min(settings.model_timeout, longest),
                model_key,
                reranker_timeouts=reranker_timeouts,
            )
            if settings.model_url
            else None
        )
        self.search = AsyncSearchClient(settings)
        # The client rotates over several addresses, so a search on the node's own copies spreads the load.
        self.prefer_local = len(split_addresses(settings.opensearch_url)) > 1
        self.executor = DirectExecutor(self.search, settings.search_timeout, prefer_local=self.prefer_local)
        self.points_in_time = PointInTimeRegistry(settings.max_points_in_time)
        self.publisher = Publisher(settings.redis_address)
        self.claim = InstallationClaim(settings, self.publisher)
        self.clock = VersionClock()
        self.backlog = BacklogMonitor(settings, self.search, self.publisher)
        # Searches and ingestion share the connections to OpenSearch. A quarter of them is reserved for searches.
        max_requests = min(settings.max_ingest_requests, max(1, settings.opensearch_pool * 3 // 4))
        self.in_flight = InFlightRequests(max_requests, settings.max_ingest_bytes)
        self.background_reader = BackgroundReader()
        self.waits = asyncio.Semaphore(MAX_WAITS)
        self.whole_document_reads = asyncio.Semaphore(MAX_WHOLE_DOCUMENT_READS)
        self.curations = CurationCache(self.search, self.names, settings.search_timeout)
        self.query_log = QueryLog(self.search, self.names, settings)
        self.keys = KeyRing(self.search, self.names)
        defaults = RateLimits(
            settings.key_rate or None,
            settings.key_burst or None,
            settings.key_daily or None,
            settings.key_documents or None,
            settings.key_bytes or None,
        )
        self.limiter = RateLimiter(settings.redis_address, settings.index_prefix, defaults)
        self.principal: Principal = EVERYBODY
        self.worker_registry = WorkerRegistry(settings.redis_address)
        self.readiness = ReadinessMonitor(self.names, self.tables, self.search, self.publisher)
        # `search` is restricted for a caller with a filter. `unrestricted_search` serves reads of no documents.
        self.unrestricted_search = self.search
        self._restriction: DocumentLevelSecurity | None = None
        self._generations: dict[str, tuple[float, Generation]] = {}

    def for_principal(self, principal: Principal) -> Self:
        """Return a view of this state for one principal. The view shares all clients and caches."""
        if principal is self.principal:
            return self
        view = copy(self)
        view.principal = principal
        if principal.filter is not None:
            view._restriction = DocumentLevelSecurity()
            view.search = RestrictedSearchClient(self.unrestricted_search, view._restriction)
            view.executor = DirectExecutor(view.search, self.settings.search_timeout, prefer_local=self.prefer_local)
        return view

    async def generation(self, index: str, *, prefer_local: bool = False) -> Generation:
        """Return the generation that an index's alias points to, and read its curation rules in parallel.

        `prefer_local` as in `resolve_alias_call`. Raises NotFound (`index_not_found`), Forbidden (`index_forbidden`,
        `key_filter_unfit`).
        """
        self.principal.demand_index(index)
        return self._restrict(await self._resolve_generation(index, prefer_local=prefer_local))

    async def _resolve_generation(self, index: str, *, prefer_local: bool) -> Generation:
        cached = self._generations.get(index)
        now = time.monotonic()
        if cached is not None and now - cached[0] < GENERATION_CACHE_SECONDS:
            return cached[1]
        call = resolve_alias_call(self.names, index, prefer_local=prefer_local)
        try:
            answer, rules = await asyncio.gather(
                self.unrestricted_search.send(call), self.curations.read(index, prefer_local=prefer_local)
            )
            generation = read_generation(answer, index)
        except NotFound:
            self.forget(index)
            self.curations.forget(index)
            raise index_not_found(index) from None
        generation = await self._prepare_table(generation, cached and cached[1])
        self._generations[index] = (now, generation)
        self.curations.remember(generation, rules)
        return generation

    async def _prepare_table(self, generation: Generation, cached: Generation | None) -> Generation:
        """Load the piece frequencies that a generation names; return the generation with those that are loaded.

        A search never fails when they are missing: it keeps the earlier frequencies, or the encoder's own weights.
        """
        try:
            await self.tables.prepare(generation, self.unrestricted_search, self.names)
        except SparsewellError as error:
            # The record of a restored index is missing until the sweeper has counted it.
            level = logging.DEBUG if isinstance(error, NotFound) else logging.WARNING
            log.log(level, "%s is searched without its newest piece frequencies: %s", generation.physical, error)
            kept = cached is not None and (cached.physical, cached.token) == (generation.physical, generation.token)
            return generation.model_copy(update={"frequencies": cached.frequencies if cached and kept else 0})
        return generation

    async def generation_of(self, index: str, physical: str) -> Generation:
        """Return a generation by its physical name. A cursor or an export may name one that is no longer active.

        Raises NotFound (`index_not_found`) when the generation was deleted.
        """
        active = await self.generation(index, prefer_local=True)
        if active.physical == physical:
            return active
        if not self.names.is_generation(index, physical):
            raise index_not_found(index)
        generation = read_generation(await self.unrestricted_search.send(generation_call(physical)), index)
        if generation.physical != physical:
            raise index_not_found(index)
        return self._restrict(generation)

    async def admit_documents(self, generation: Generation) -> None:
        """Check the limits on documents before more of them are read.

        Raises Overloaded: `write_rate_limited`, and as `BacklogMonitor.admit`.
        """
        self.limiter.admit_writes(self.principal)
        await self.backlog.admit(generation)

    async def enqueue(self, generation: Generation, message: EncodeMessage, *, interactive: bool = False) -> None:
        """Send documents of a generation to the workers that hold its encoder.

        Raises BackendUnavailable, Overloaded (`redis_full`), ConfigurationError (`foreign_redis`).
        """
        await self.claim.claim_once(self.unrestricted_search)
        send = partial(self.publisher.encode, generation.encoder.name, message, interactive=interactive)
        await asyncio.to_thread(send)

    def cursor_key(self, kind: str, generations: Sequence[Generation]) -> bytes:
        """Return the secret that authenticates the caller's cursors of one kind over these indexes.

        The lineage of an index is random and clients never see it, so they cannot forge a cursor. A cursor is valid
        only for the principal that received it.
        """
        return "\0".join(
            [kind, *(generation.lineage for generation in generations), self.principal.fingerprint]
        ).encode()

    def _restrict(self, generation: Generation) -> Generation:
        """Apply the principal's filter, if it has one, to all further calls on this generation."""
        if self._restriction is not None:
            key_filter = parse_key_filter(self.principal.filter, generation, limits_of(self.settings))
            self._restriction.admit(generation, key_filter)
        return generation

    def forget(self, index: str) -> None:
        """Drop an index's generation from the cache, so that the next request asks OpenSearch."""
        self._generations.pop(index, None)

    async def close(self) -> None:
        """Close all clients and stop all background work."""
        self.background_reader.close()
        await self.keys.close()
        await self.limiter.close()
        await self.query_log.close()
        await self.unrestricted_search.close()
        if self.model is not None:
            await self.model.close()
        self.publisher.close()
        self.worker_registry.close()


class RestrictedSearchClient(AsyncSearchClient):
    """A client that restricts every call to the documents that one principal may see.

    It sends through another client and has no connections itself.
    """

    def __init__(self, unrestricted: AsyncSearchClient, restriction: DocumentLevelSecurity) -> None:
        self._unrestricted = unrestricted
        self._restriction = restriction

    async def send(self, call: Call) -> Any:
        """Send the restricted call and check its answer."""
        return self._restriction.filter_answer(call, await self._unrestricted.send(self._restriction.filter_call(call)))

    async def close(self) -> None:
        """Do nothing: the connections belong to the other client."""


def parse_key_filter(value: Any, generation: Generation, limits: FilterLimits) -> Filter:
    """Parse a principal's filter for one index.

    Raises Forbidden (`key_filter_unfit`) when the filter does not fit the index's fields: the caller then sees nothing.
    """
    try:
        return parse_filter(value, generation.spec.fields, limits)
    except InvalidInput as error:
        raise Forbidden(
            "key_filter_unfit",
            f"The filter of this key does not fit the index {generation.index!r}, so the key sees none of its "
            f"documents: {error.detail}",
        ) from None


def request_app_state(request: Request) -> AppState:
    """Return the application's state as the caller of a request may use it."""
    state: AppState = request.app.state.app_state
    return state.for_principal(request_principal(request))


async def _app_state(request: Request) -> AppState:
    # `async` although it awaits nothing: FastAPI runs plain functions in a thread pool, on every request.
    return request_app_state(request)


WithApp = Annotated[AppState, Depends(_app_state)]
