"""One search: plan, ask OpenSearch, fuse, shape. At most two requests, unless feedback or a model is asked for."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from query_api.parts import Parts
from query_api.search.asked import Asked
from query_api.search.bodies import needed_source
from query_api.search.context import remember
from query_api.search.engine import Engine
from query_api.search.explain import query_pieces
from query_api.search.feedback import feed_back
from query_api.search.highlight import highlight
from query_api.search.hits import shaped
from query_api.search.limits import checked
from query_api.search.lists import one_list, two_lists, with_sources
from query_api.search.pages import Answer, asked_part
from query_api.search.part import Part
from query_api.search.query_vector import query_vector
from query_api.search.request import SearchRequest
from query_api.search.rerank import reranked
from query_api.search.selection import selection
from query_api.search.stopwatch import Stopwatch
from services.errors import BackendUnavailable, NotFound
from services.index_spec import Generation


async def search(parts: Parts, index: str, request: SearchRequest, engine: Engine | None = None) -> Answer:
    """Answers a request.

    `engine`: one that is shared with other searches; None: the process's own.
    """
    checked(request, parts.settings)
    if request.like and not request.query.strip():
        # More like these documents: without words there is no keyword list to ask for, and the answer says so.
        request = request.model_copy(update={"mode": "sparse"})

    async def answered(generations: Sequence[Generation], within: Engine, part: Part | None) -> Answer:
        return await _search(parts, generations[0], request, within, part)

    async def of(near: bool) -> Answer:
        generations = [await parts.generation(index, near=near)]
        return await asked_part(parts, generations, request, engine or parts.engine, answered)

    return await in_time(parts, [index], of)


async def in_time(parts: Parts, indexes: Sequence[str], of: Callable[[bool], Awaitable[Answer]]) -> Answer:
    """What `of` answers, which looks the indexes up itself (`near` as in `Parts.generation`), and once more when a
    generation was swapped and removed since it was remembered.

    One deadline over everything that is asked of OpenSearch. Raises BackendUnavailable (`opensearch_timeout`).
    """
    try:
        async with asyncio.timeout(parts.settings.search_timeout):
            try:
                return await of(True)
            except NotFound as error:
                if error.code != "index_not_found":
                    raise
                for index in indexes:
                    parts.forget(index)
                return await of(False)
    except TimeoutError:
        raise late() from None


def late() -> BackendUnavailable:
    """The error for a search whose time is over."""
    return BackendUnavailable("opensearch_timeout", "OpenSearch did not answer in time.")


async def _search(
    parts: Parts, generation: Generation, request: SearchRequest, engine: Engine, part: Part | None
) -> Answer:
    watch = Stopwatch()
    table = parts.tables.of(generation)
    chosen = selection(request, generation.spec, parts.settings)
    vector = query_vector(request, table, parts.settings)
    asked = Asked(parts, generation, table, request, vector, watch, engine, chosen, part)
    if request.context is not None:
        remember(asked, request.context)
    watch.lap("encode")
    if request.asks_for_feedback:
        await feed_back(asked)
    lists = two_lists if request.is_ranked_here else one_list
    reranking = None
    if request.rerank is not None:
        found, reranking = await reranked(asked, request.rerank, lists)
    else:
        found = await lists(asked)
    if request.is_ranked_here or reranking is not None:
        await with_sources(asked, found, needed_source(request))
    there = [(one, one.source) for one in found if one.source is not None]
    hits = [shaped(asked, one, source) for one, source in there]
    if request.highlight and not request.browses:
        await highlight(asked, there, hits)
    answer: Answer = {
        "index": generation.index,
        "mode": asked.mode,
        "query": request.query,
        "encoder": generation.encoder.fingerprint,
        "hits": hits,
    } | asked.counts
    if reranking is not None:
        answer["rerank"] = reranking
    if request.explain:
        answer["pieces"] = query_pieces(table, asked.blend)
    if asked.fed_back is not None:
        answer["feedback"] = asked.fed_back
    watch.lap("shape")
    return answer | {"timings_ms": watch.finish()}
