"""The stages of a search in order: expand the query, retrieve, rerank, place pins, read, respond.

Each stage takes one context per index; a search of one index is a search of several with one context. The reindex gate
(`cli/relevance/reindex_gate.py`) runs the same stages as the API.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from query_api.schemas.search_request import SearchRequest
from query_api.schemas.search_response import AcrossRequest
from query_api.search.chapters import retrieve_parts
from query_api.search.context import CuratedQuery, Hit, RetrievedHits, SearchContext
from query_api.search.curation import curate_query, with_curation_terms, with_pins
from query_api.search.expansion import with_conversation, with_feedback
from query_api.search.highlight import highlight
from query_api.search.hits import shape_hit, shape_query_pieces
from query_api.search.multi_index import check_field_types, drop_incompatible_rules
from query_api.search.rerank import retrieve_reranked
from query_api.search.retrieval import read_hits, retrieve
from query_api.search.spelling import did_you_mean
from services.curation.effects import curate_query_vector
from services.curation.matching import CompiledRules
from services.encoders.query_table import QueryTable, QueryVector
from services.query.expansion import prune_query
from services.settings import Settings

# The JSON body of a response.
Response = dict[str, Any]


def with_query(context: SearchContext, rules: CompiledRules | None = None) -> SearchContext:
    """Return the context with its query vector: the words, the curation rules and earlier turns of a conversation.

    Raises InvalidInput (`query_too_long`).
    """
    request, settings = context.request, context.settings
    curated = None if rules is None else curate_query(rules, context.generation, request, settings)
    vector, curated = _query_vector(request, context.table, settings, curated)
    origins = None if curated is None else curated.origins_of(vector)
    context = replace(context, query=vector, curated=curated, origins=origins)
    return context if request.context is None else with_conversation(context, request.context)


def _query_vector(
    request: SearchRequest, table: QueryTable, settings: Settings, curated: CuratedQuery | None = None
) -> tuple[QueryVector, CuratedQuery | None]:
    """Return the pruned vector of the request's words, and the curation rules with their origins.

    The query table gives the weights; no model runs. Raises InvalidInput (`query_too_long`).
    """
    share = settings.prune if request.prune is None else request.prune
    vector = table.encode(request.query, settings.max_query_pieces)
    if curated is not None and curated.matched.spans:
        blend = curate_query_vector(vector, curated.matched, table, settings.max_query_pieces)
        vector, curated = blend.vector, replace(curated, origins=dict(blend.origins))
    return prune_query(vector, share), curated


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of all stages. `reranking` and `feedback`: members of the response, None unless requested."""

    contexts: Sequence[SearchContext]
    retrieved: RetrievedHits
    reranking: Mapping[str, Any] | None = None
    feedback: Mapping[str, Any] | None = None


async def run_stages(contexts: Sequence[SearchContext]) -> SearchResult:
    """Run all stages of a search; return its hits with their sources."""
    request = contexts[0].request
    feedback = None
    if isinstance(request, AcrossRequest):
        contexts = drop_incompatible_rules(contexts)
    if request.uses_feedback:
        context, feedback = await with_feedback(contexts[0])
        contexts = [context]
    contexts = [await with_curation_terms(each) for each in contexts]
    check_field_types(contexts)
    if request.unit == "document":
        return await _retrieve_documents(contexts, feedback)
    contexts = [_without_pins(each, "by_unit") for each in contexts]
    return SearchResult(contexts, await retrieve_parts(contexts[0], request.unit))


async def _retrieve_documents(contexts: Sequence[SearchContext], feedback: Mapping[str, Any] | None) -> SearchResult:
    """Retrieve, rerank and read the documents of the page, with pinned documents in their places."""
    request, reranking, pins = contexts[0].request, None, None
    if contexts[0].curated is not None:
        if request.sort or request.browses:
            contexts = [_without_pins(each, "sorted") for each in contexts]
        context, pins = await with_pins(contexts[0])
        contexts = [context, *contexts[1:]]
    if request.rerank is not None:
        retrieved, reranking = await retrieve_reranked(contexts[0], request.rerank, retrieve)
    else:
        retrieved = await retrieve(contexts)
    if pins is not None:
        retrieved = pins.placed(contexts[0], retrieved)
    return SearchResult(contexts, replace(retrieved, hits=await read_hits(contexts, retrieved)), reranking, feedback)


def _without_pins(context: SearchContext, reason: str) -> SearchContext:
    """Return the context without pins, each reported as skipped for the reason."""
    curated = context.curated
    return context if curated is None else replace(context, curated=curated.without_pins(reason))


async def respond(outcome: SearchResult) -> Response:
    """Shape the response of a search."""
    contexts, retrieved = outcome.contexts, outcome.retrieved
    first = contexts[0]
    request = first.request
    hits = await _shape_hits(contexts, retrieved.hits)
    if isinstance(request, AcrossRequest):
        encoders = {context.generation.index: context.generation.encoder.fingerprint for context in contexts}
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
    if retrieved.lexical_empty:
        response |= await did_you_mean(contexts)
    if outcome.reranking is not None:
        response["rerank"] = outcome.reranking
    if request.explain:
        response["pieces"] = _by_index(
            contexts, {context.generation.index: shape_query_pieces(context) for context in contexts}
        )
    rules_by_index: dict[str, CuratedQuery] = {
        context.generation.index: context.curated for context in contexts if context.curated is not None
    }
    # Rules name documents and filters that document-level security may hide from the caller.
    if rules_by_index and first.is_unrestricted:
        response["curation"] = _by_index(
            contexts, {index: rules.to_response() for index, rules in rules_by_index.items()}
        )
    if outcome.feedback is not None:
        response["feedback"] = outcome.feedback
    first.stopwatch.lap("shape")
    response["timings_ms"] = first.stopwatch.finish(first.mode)
    return response


def _by_index(contexts: Sequence[SearchContext], by_index: Mapping[str, Any]) -> Any:
    """Return a member by index for a search of several indexes, and alone for a search of one."""
    return by_index if isinstance(contexts[0].request, AcrossRequest) else by_index[contexts[0].generation.index]


async def _shape_hits(contexts: Sequence[SearchContext], hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """Shape the hits of the response. Documents that were deleted since they matched are left out."""
    request = contexts[0].request
    by_name = {context.generation.physical: context for context in contexts}
    existing = [(by_name[hit.physical], hit, hit.source) for hit in hits if hit.source is not None]
    if isinstance(request, AcrossRequest):
        shaped = [
            {"index": context.generation.index} | shape_hit(context, hit, source) for context, hit, source in existing
        ]
    else:
        shaped = [shape_hit(context, hit, source) for context, hit, source in existing]
    if request.highlight and not request.browses:
        for context in contexts:
            positions = [n for n, (hit_context, _, _) in enumerate(existing) if hit_context is context]
            await highlight(context, [existing[n][1:] for n in positions], [shaped[n] for n in positions])
    return shaped
