"""One search over several indexes, answered as one index that held all their documents would answer it.

Each index says how its lists are asked for, with its own table and fields. Those that say the same are searched as one,
with the statistics of words of all of them; where they differ, lists are put together before they are fused. See
docs/decisions/0166.
"""

import asyncio
from collections.abc import Sequence

from query_api.parts import Parts
from query_api.search.across_form import AcrossRequest
from query_api.search.across_kinds import checked_kinds, mixed_fields
from query_api.search.across_lists import alike, put_together
from query_api.search.across_sorted import sorted_together
from query_api.search.asked import Asked
from query_api.search.context import remember
from query_api.search.engine import Engine
from query_api.search.highlight import highlight
from query_api.search.hits import pieces_of, shaped
from query_api.search.limits import checked
from query_api.search.lists import one_list
from query_api.search.own_terms import read_own_terms
from query_api.search.pages import Answer, asked_part
from query_api.search.part import Part
from query_api.search.pipeline import in_time
from query_api.search.query_vector import query_vector
from query_api.search.reading import read_shown
from query_api.search.rules import curated
from query_api.search.selection import selection
from query_api.search.spelling import did_you_mean
from query_api.search.stopwatch import Stopwatch
from services.errors import InvalidInput
from services.index_spec import Generation, IndexSpec
from services.settings import Settings

# What can be asked of several indexes. What is added to a search later is refused until it is here.
KNOWN = {
    "indexes", "query", "mode", "size", "offset", "cursor", "weights", "candidates", "fusion", "prune", "two_phase",
    "context", "score_by", "passage", "highlight", "explain", "fields", "filter", "curation", "sort", "facets", "among",
    "did_you_mean", "learn",
}  # fmt: skip


async def search_across(parts: Parts, request: AcrossRequest, engine: Engine | None = None) -> Answer:
    """Answers a request. An index that cannot be searched is an error that names it, never left out.

    Raises InvalidInput (`too_many_indexes`, `repeated_index`, `not_across_indexes`) what each index raises alone, and
    `bad_sort` and `bad_facet` for a field that they declare as different types.
    """
    checked_across(request, parts.settings)

    async def answered(generations: Sequence[Generation], within: Engine, part: Part | None) -> Answer:
        return await _search(parts, generations, request, within, part)

    async def of(near: bool) -> Answer:
        found = await asyncio.gather(
            *(parts.generation(index, near=near) for index in request.indexes), return_exceptions=True
        )
        generations = []
        for one in found:
            if isinstance(one, BaseException):
                raise one
            generations.append(one)
        return await asked_part(parts, generations, request, engine or parts.engine, answered)

    return await in_time(parts, request.indexes, of)


def checked_across(request: AcrossRequest, settings: Settings) -> None:
    """Raises InvalidInput: see `search_across` and `limits.checked`."""
    checked(request, settings)
    if len(request.indexes) > settings.max_indexes:
        raise InvalidInput("too_many_indexes", f"One search may be of {settings.max_indexes} indexes at most.")
    if len(set(request.indexes)) < len(request.indexes):
        raise InvalidInput("repeated_index", "`indexes` names an index twice.")
    if request.browses:
        raise InvalidInput("not_across_indexes", "Several indexes are searched with words; `query` is empty.")
    for name in sorted(request.model_fields_set - KNOWN):
        if getattr(request, name) != type(request).model_fields[name].get_default(call_default_factory=True):
            raise InvalidInput("not_across_indexes", f"`{name}` is for a search of one index.")


def scored_alike(request: AcrossRequest, specs: Sequence[IndexSpec]) -> AcrossRequest:
    """The request with one way to score for all indexes: scores of windows and of whole documents do not compare.

    Raises InvalidInput (`not_scored_by`) when the indexes have none in common.
    """
    if request.score_by is not None or request.mode == "lexical":
        return request
    common = [by for by in specs[0].scored_by if all(by in spec.scored_by for spec in specs)]
    if not common:
        raise InvalidInput(
            "not_scored_by",
            "Some of the indexes score by window and the others by document only: declare `windows` as both for one of "
            "these (sparsewell reindex --windows both).",
        )
    return request.model_copy(update={"score_by": common[0]})


async def _search(
    parts: Parts, generations: Sequence[Generation], request: AcrossRequest, engine: Engine, part: Part | None
) -> Answer:
    watch = Stopwatch()
    request = scored_alike(request, [generation.spec for generation in generations])
    each = [await _asked(parts, generation, request, watch, engine, part) for generation in generations]
    watch.lap("encode")
    for asked in each:
        if asked.curated is not None:
            asked.curated.unplace("several_indexes")
            asked.curated.unboost(mixed_fields(each), "several_indexes")
            await read_own_terms(asked, asked.curated)
    checked_kinds(each)
    if not request.is_ranked_here and len(same := alike(each, request.mode, request.size)) == 1:
        found = await one_list(same[0])
        each[0].unmatched = same[0].unmatched
    else:
        apart = sorted_together if request.sort and not request.is_ranked_here else put_together
        found = await apart(each)
        await read_shown(alike(each, "lexical", request.size), found)
    by_name = {asked.generation.physical: asked for asked in each}
    there = [(by_name[one.index], one, one.source) for one in found if one.source is not None]
    hits = [{"index": asked.generation.index} | shaped(asked, one, source) for asked, one, source in there]
    if request.highlight:
        for asked in each:
            own = [(at, (one, source)) for at, (of, one, source) in enumerate(there) if of is asked]
            await highlight(asked, [pair for _, pair in own], [hits[at] for at, _ in own])
    answer: Answer = {
        "indexes": list(request.indexes),
        "mode": request.mode,
        "query": request.query,
        "encoders": {asked.generation.index: asked.generation.encoder.fingerprint for asked in each},
        "hits": hits,
    }
    answer |= each[0].counts | await did_you_mean(each)
    if request.explain:
        answer["pieces"] = {asked.generation.index: pieces_of(asked) for asked in each}
    rules = {asked.generation.index: asked.curated.shown() for asked in each if asked.curated is not None}
    if rules and parts.who.filter is None:  # (they name documents and filters of others)
        answer["curation"] = rules
    watch.lap("shape")
    return answer | {"timings_ms": watch.finish(request.mode)}


async def _asked(
    parts: Parts,
    generation: Generation,
    request: AcrossRequest,
    watch: Stopwatch,
    engine: Engine,
    part: Part | None,
) -> Asked:
    table = parts.tables.of(generation)
    try:
        chosen = selection(request, generation.spec, parts.settings)
        rules = await curated(parts, generation, request, part, None)
        vector = query_vector(request, table, parts.settings, rules)
    except InvalidInput as error:
        raise InvalidInput(error.code, f"Of the index {generation.index!r}: {error.detail}", **error.extra) from None
    asked = Asked(parts, generation, table, request, vector, watch, engine, chosen, part, curated=rules)
    if rules is not None:
        asked.origins = rules.origins_of(vector)
    if request.context is not None:
        remember(asked, request.context)
    return asked
