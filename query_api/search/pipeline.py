"""One search: plan, ask OpenSearch, fuse, shape. At most two requests, none to a model."""

import asyncio
from collections.abc import Sequence
from typing import Any

from query_api.parts import Parts
from query_api.search.asked import Asked
from query_api.search.engine import Engine
from query_api.search.explain import query_pieces
from query_api.search.highlight import highlight
from query_api.search.hits import shaped
from query_api.search.limits import checked
from query_api.search.lists import needed_source, one_list, two_lists, with_sources
from query_api.search.pages import page
from query_api.search.part import Part
from query_api.search.query_vector import query_vector
from query_api.search.request import SearchRequest
from query_api.search.selection import selection
from query_api.search.stopwatch import Stopwatch
from services.errors import BackendUnavailable, NotFound
from services.index_spec import Generation


async def search(parts: Parts, index: str, request: SearchRequest) -> dict[str, Any]:
    """Answers a request. An index whose generation was swapped and removed meanwhile is looked up once more."""
    checked(request, parts.settings)
    try:
        # One deadline over everything that is asked of OpenSearch, the look-up of the alias included.
        async with asyncio.timeout(parts.settings.search_timeout):
            try:
                return await _asked_of(parts, await parts.generation(index, near=True), request)
            except NotFound as error:
                if error.code != "index_not_found":
                    raise
                parts.forget(index)
                return await _asked_of(parts, await parts.generation(index), request)
    except TimeoutError:
        raise BackendUnavailable("opensearch_timeout", "OpenSearch did not answer in time.") from None


async def _asked_of(parts: Parts, generation: Generation, request: SearchRequest) -> dict[str, Any]:
    if request.cursor is not None:

        async def answered(generations: Sequence[Generation], engine: Engine, part: Part) -> dict[str, Any]:
            return await _search(parts, generations[0], request, engine, part)

        return await page(parts, [generation], request, answered)
    if not request.offset:
        return await _search(parts, generation, request, parts.engine)
    part = Part(request.offset, depth=max(request.candidates, request.size))
    answer = await _search(parts, generation, request, parts.engine, part)
    return answer | {"end": part.end}


async def _search(
    parts: Parts, generation: Generation, request: SearchRequest, engine: Engine, part: Part | None = None
) -> dict[str, Any]:
    watch = Stopwatch()
    table = parts.tables.of(generation)
    chosen = selection(request, generation.spec, parts.settings)
    vector = query_vector(request, table, parts.settings)
    asked = Asked(parts, generation, table, request, vector, watch, engine, chosen, part)
    watch.lap("encode")
    if request.mode == "hybrid":
        found = await two_lists(asked)
        await with_sources(asked, found, needed_source(request))
    else:
        found = await one_list(asked)
    there = [(one, one.source) for one in found if one.source is not None]
    hits = [shaped(asked, one, source) for one, source in there]
    if request.highlight:
        await highlight(asked, there, hits)
    answer: dict[str, Any] = {
        "index": generation.index,
        "mode": request.mode,
        "query": request.query,
        "encoder": generation.encoder.fingerprint,
        "hits": hits,
    }
    if request.explain:
        answer["pieces"] = query_pieces(table, asked.query)
    watch.lap("shape")
    return answer | {"timings_ms": watch.finish()}
