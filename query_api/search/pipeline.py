"""One search: plan, ask OpenSearch, fuse, shape. At most two requests, unless feedback or a model is asked for."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from query_api.parts import Parts
from query_api.search.asked import Asked, Found
from query_api.search.context import remember
from query_api.search.engine import Engine
from query_api.search.feedback import feed_back
from query_api.search.highlight import highlight
from query_api.search.hits import pieces_of, shaped
from query_api.search.limits import checked
from query_api.search.lists import one_list, two_lists
from query_api.search.pages import Answer, asked_part
from query_api.search.part import Part
from query_api.search.pins import prepared
from query_api.search.query_vector import query_vector
from query_api.search.reading import read_shown, unread
from query_api.search.request import SearchRequest
from query_api.search.rerank import reranked
from query_api.search.rules import curated
from query_api.search.selection import selection
from query_api.search.spelling import did_you_mean
from query_api.search.stopwatch import Stopwatch
from query_api.search.units import found_parts
from services.curation.matching import Compiled
from services.errors import BackendUnavailable, NotFound
from services.index_spec import Generation


async def search(
    parts: Parts,
    index: str,
    request: SearchRequest,
    engine: Engine | None = None,
    proposed: Compiled | None = None,
) -> Answer:
    """Answers a request.

    `engine`: one that is shared with other searches; None: the process's own. `proposed`: rules in place of those that
    are stored with the index.
    """
    checked(request, parts.settings)
    if request.like and not request.query.strip():
        # More like these documents: without words there is no keyword list to ask for, and the answer says so.
        request = request.model_copy(update={"mode": "sparse"})

    async def answered(generations: Sequence[Generation], within: Engine, part: Part | None) -> Answer:
        return await _search(parts, generations[0], request, within, part, proposed)

    async def of(near: bool) -> Answer:
        generations = [await parts.generation(index, near=near)]
        answer = await asked_part(parts, generations, request, engine or parts.engine, answered)
        # (a batch, or rules that are tried, is nobody who asks)
        if request.learn and answer["hits"] and request.is_first and engine is None and proposed is None:
            parts.learning.note(generations[0], request.query, of=parts.who)
        return answer

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
    parts: Parts,
    generation: Generation,
    request: SearchRequest,
    engine: Engine,
    part: Part | None,
    proposed: Compiled | None,
) -> Answer:
    watch = Stopwatch()
    table = parts.tables.of(generation)
    chosen = selection(request, generation.spec, parts.settings)
    rules = await curated(parts, generation, request, part, proposed)
    vector = query_vector(request, table, parts.settings, rules)
    asked = Asked(parts, generation, table, request, vector, watch, engine, chosen, part, curated=rules)
    if rules is not None:
        asked.origins = rules.origins_of(vector)
    if request.context is not None:
        remember(asked, request.context)
    watch.lap("encode")
    if request.asks_for_feedback:
        await feed_back(asked)
    reranking: dict[str, Any] | None = None
    if request.unit == "document":
        found, reranking = await _found(asked)
    else:
        found = await found_parts(asked, request.unit)
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
    }
    if request.unit != "document":
        answer["unit"] = request.unit
    answer |= asked.counts | await did_you_mean([asked])
    if reranking is not None:
        answer["rerank"] = reranking
    if request.explain:
        answer["pieces"] = pieces_of(asked)
    if rules is not None and parts.who.filter is None:  # (rules name documents and filters of others)
        answer["curation"] = rules.shown()
    if asked.fed_back is not None:
        answer["feedback"] = asked.fed_back
    watch.lap("shape")
    return answer | {"timings_ms": watch.finish(asked.mode)}


async def _found(asked: Asked) -> tuple[list[Found], dict[str, Any] | None]:
    """The documents of the page, read, and what the answer says of reranking."""
    request, rules, reranking = asked.request, asked.curated, None
    pins = None if rules is None else await prepared(asked, rules)
    lists = two_lists if request.is_ranked_here else one_list
    if request.rerank is not None:
        found, reranking = await reranked(asked, request.rerank, lists)
    else:
        found = await lists(asked)
    if rules is not None and pins is not None:
        found = pins.placed(asked, rules, found)
    await read_shown([asked], unread(request, found))
    return found, reranking
