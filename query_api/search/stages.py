"""The stages of a search, for one index and for several: expand the query, retrieve, rerank, pin, read, respond.

A search of one index is a search of several with one context. The reindex gate runs the same stages as the API.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from query_api.schemas.search_response import AcrossRequest
from query_api.search.chapters import retrieve_parts
from query_api.search.context import CuratedQuery, Hit, Retrieved, SearchContext, query_vector
from query_api.search.curation import curate_query, with_curation_terms, with_pins
from query_api.search.expansion import with_conversation, with_feedback
from query_api.search.highlight import highlight
from query_api.search.hits import shape_hit, shape_query_pieces
from query_api.search.multi_index import check_field_types, drop_incompatible_rules
from query_api.search.rerank import retrieve_reranked
from query_api.search.retrieval import read_hits, retrieve
from query_api.search.spelling import did_you_mean
from services.curation.matching import CompiledRules

# The JSON body of a response.
Response = dict[str, Any]


def with_query(context: SearchContext, rules: CompiledRules | None = None) -> SearchContext:
    """Return the context with the vector of the request's words, curation rules and earlier turns of a conversation.

    Raises InvalidInput (`query_too_long`).
    """
    request, settings = context.request, context.settings
    curated = None if rules is None else curate_query(rules, context.generation, request, settings)
    vector, curated = query_vector(request, context.table, settings, curated)
    origins = None if curated is None else curated.origins_of(vector)
    context = replace(context, query=vector, curated=curated, origins=origins)
    return context if request.context is None else with_conversation(context, request.context)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of all stages. `reranking`, `feedback`: members of the response, where they were asked for."""

    contexts: Sequence[SearchContext]
    retrieved: Retrieved
    reranking: Mapping[str, Any] | None = None
    feedback: Mapping[str, Any] | None = None


async def run_stages(contexts: Sequence[SearchContext]) -> Outcome:
    """Run all stages of a search; return its hits, read."""
    request = contexts[0].request
    feedback = None
    if isinstance(request, AcrossRequest):
        contexts = drop_incompatible_rules(contexts)
    if request.asks_for_feedback:
        context, feedback = await with_feedback(contexts[0])
        contexts = [context]
    contexts = [await with_curation_terms(one) for one in contexts]
    check_field_types(contexts)
    if request.unit == "document":
        return await _retrieve_documents(contexts, feedback)
    contexts = [_without_pins(one, "by_unit") for one in contexts]
    return Outcome(contexts, await retrieve_parts(contexts[0], request.unit))


async def _retrieve_documents(contexts: Sequence[SearchContext], feedback: Mapping[str, Any] | None) -> Outcome:
    """Retrieve and read the documents of the page."""
    request, reranking, pins = contexts[0].request, None, None
    if contexts[0].curated is not None:
        if request.sort or request.browses:
            contexts = [_without_pins(one, "sorted") for one in contexts]
        context, pins = await with_pins(contexts[0])
        contexts = [context, *contexts[1:]]
    if request.rerank is not None:
        retrieved, reranking = await retrieve_reranked(contexts[0], request.rerank, retrieve)
    else:
        retrieved = await retrieve(contexts)
    if pins is not None:
        retrieved = pins.placed(contexts[0], retrieved)
    return Outcome(contexts, replace(retrieved, hits=await read_hits(contexts, retrieved)), reranking, feedback)


def _without_pins(context: SearchContext, reason: str) -> SearchContext:
    curated = context.curated
    return context if curated is None else replace(context, curated=curated.without_pins(reason))


async def respond(outcome: Outcome) -> Response:
    """Shape the response of a search."""
    contexts, retrieved = outcome.contexts, outcome.retrieved
    first = contexts[0]
    request = first.request
    hits = await _shape_hits(contexts, retrieved.hits)
    if isinstance(request, AcrossRequest):
        encoders = {one.generation.index: one.generation.encoder.fingerprint for one in contexts}
        response: Response = {
            "indexes": list(request.indexes), "mode": first.mode, "query": request.query, "encoders": encoders,
            "hits": hits,
        }  # fmt: skip
    else:
        response = {
            "index": first.generation.index, "mode": first.mode, "query": request.query,
            "encoder": first.generation.encoder.fingerprint, "hits": hits,
        }  # fmt: skip
        if request.unit != "document":
            response["unit"] = request.unit
    response |= retrieved.counts
    response |= await did_you_mean(contexts, lexical_empty=retrieved.lexical_empty)
    if outcome.reranking is not None:
        response["rerank"] = outcome.reranking
    if request.explain:
        response["pieces"] = _by_index(contexts, {one.generation.index: shape_query_pieces(one) for one in contexts})
    curated: dict[str, CuratedQuery] = {
        one.generation.index: one.curated for one in contexts if one.curated is not None
    }
    if curated and first.reveals_others:  # (rules name documents and filters of others)
        response["curation"] = _by_index(contexts, {index: one.shown() for index, one in curated.items()})
    if outcome.feedback is not None:
        response["feedback"] = outcome.feedback
    first.watch.lap("shape")
    response["timings_ms"] = first.watch.finish(first.mode)
    return response


def _by_index(contexts: Sequence[SearchContext], by_index: Mapping[str, Any]) -> Any:
    """Return a member by index for a search of several indexes, and alone for a search of one."""
    return by_index if isinstance(contexts[0].request, AcrossRequest) else by_index[contexts[0].generation.index]


async def _shape_hits(contexts: Sequence[SearchContext], found: Sequence[Hit]) -> list[dict[str, Any]]:
    """Shape the hits of the response; documents that are gone are left out."""
    request = contexts[0].request
    by_name = {one.generation.physical: one for one in contexts}
    there = [(by_name[one.physical], one, one.source) for one in found if one.source is not None]
    if isinstance(request, AcrossRequest):
        hits = [{"index": of.generation.index} | shape_hit(of, one, source) for of, one, source in there]
    else:
        hits = [shape_hit(of, one, source) for of, one, source in there]
    if request.highlight and not request.browses:
        for context in contexts:
            own = [at for at, (of, _, _) in enumerate(there) if of is context]
            await highlight(context, [there[at][1:] for at in own], [hits[at] for at in own])
    return hits
