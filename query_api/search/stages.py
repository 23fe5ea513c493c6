"""The stages of a search in order: build the context, expand the query, retrieve, rerank, place pins, read, respond.

Each stage takes one context per index; a search of one index is a search of several with one context. The reindex gate
(`cli/relevance/reindex_gate.py`) runs the same stages as the API.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from query_api.index_cache import CurationCache
from query_api.ingest.item_blocks import LoopTurns
from query_api.schemas.search_request import SearchRequest
from query_api.search.context import Hit, RetrievedHits, SearchContext
from query_api.search.counting import count_total
from query_api.search.curation import CuratedQuery, CurationTerms, Origins, curate_query, rules_of
from query_api.search.executor import Executor, Stopwatch, complete_hits
from query_api.search.expansion import with_conversation, with_feedback
from query_api.search.highlight import highlight
from query_api.search.hits import shape_hit, shape_query_pieces
from query_api.search.min_score import check_min_score
from query_api.search.multi_index import check_field_types, drop_incompatible_rules
from query_api.search.nested_hits import retrieve_nested_hits
from query_api.search.page_state import PageState
from query_api.search.query_builder import HYBRID, lexical_clause, needed_source, with_boosts
from query_api.search.rerank import retrieve_reranked
from query_api.search.retrieval import read_hits, retrieve
from query_api.search.validation import parse_selection
from query_api.spelling import did_you_mean
from services.access.principals import EVERYBODY, Principal
from services.curation.effects import curate_query_vector, insert_pinned, pinned_positions
from services.curation.matching import CompiledRules
from services.encoders.dense_query_table import DenseQueryEncoder
from services.encoders.query_table import QueryTable, QueryVector
from services.errors import NotFound
from services.index_spec import Generation, ScoreBy
from services.model_client import ModelClient
from services.opensearch.queries import NOT_DELETED, SearchPlan, build_search_body, sparse_query
from services.opensearch.stored_document import stored_size
from services.query.expansion import prune_query
from services.settings import Settings

# The JSON body of a response.
Response = dict[str, Any]


async def build_context(  # noqa: PLR0913 (each is a part of the context)
    generation: Generation,
    table: QueryTable,
    request: SearchRequest,
    settings: Settings,
    executor: Executor,
    stopwatch: Stopwatch,
    score_by: ScoreBy,
    curations: CurationCache,
    *,
    page: PageState | None = None,
    proposed: CompiledRules | None = None,
    principal: Principal = EVERYBODY,
    model: ModelClient | None = None,
    dense: DenseQueryEncoder | None = None,
) -> SearchContext:
    """Validate the request against the generation's declaration, encode its query and return the context.

    `proposed`: see `rules_of`. Raises InvalidInput (the codes of `parse_selection` and `check_min_score`,
    `query_too_long`) and the errors of `rules_of`.
    """
    selection = parse_selection(request, generation.spec, settings)
    check_min_score(request, table.manifest)
    rules = await rules_of(curations, generation, request, page, proposed)
    query, curated, origins = _encode_query(generation, table, request, settings, rules)
    # The context is built once, with its query: `replace` would copy all of it again in every search.
    context = SearchContext(
        generation, table, request, settings, executor, stopwatch, selection, score_by, query,
        page=page, principal=principal, model=model, dense=dense, origins=origins, curated=curated,
        targets=(generation.physical,) if request.is_multi_index else (),
    )  # fmt: skip
    return context if request.context is None else with_conversation(context, request.context)


def _encode_query(
    generation: Generation, table: QueryTable, request: SearchRequest, settings: Settings, rules: CompiledRules | None
) -> tuple[QueryVector, CuratedQuery | None, Origins | None]:
    """Return the pruned vector of the request's words, the effect of the rules on it, and the origins of its weights.

    A new `SearchContext` takes them as `query`, `curated` and `origins`. The query table gives the weights; no model
    runs. Raises InvalidInput (`query_too_long`).
    """
    share = settings.prune if request.prune is None else request.prune
    vector = table.encode(request.query, settings.max_query_pieces)
    if rules is None:
        return prune_query(vector, share), None, None
    curated = curate_query(rules, generation, request, settings)
    if curated.matched.spans:
        blend, matched = curate_query_vector(vector, curated.matched, table, settings.max_query_pieces)
        vector, curated = blend.vector, replace(curated, matched=matched, origins=dict(blend.origins))
    vector = prune_query(vector, share)
    return vector, curated, curated.origins_of(vector)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of all stages. `retrieved`: the page without sources. `hits`: its hits with their sources.

    `reranking` and `feedback`: members of the response, None unless requested.
    """

    contexts: Sequence[SearchContext]
    hits: Sequence[Hit]
    retrieved: RetrievedHits
    reranking: Mapping[str, Any] | None = None
    feedback: Mapping[str, Any] | None = None


async def run_stages(contexts: Sequence[SearchContext]) -> SearchResult:
    """Run all stages of a search; return its hits with their sources."""
    request = contexts[0].request
    feedback = None
    if request.is_multi_index:
        contexts = drop_incompatible_rules(contexts)
    if request.uses_feedback:
        context, feedback = await with_feedback(contexts[0])
        contexts = [context]
    contexts = [await _with_curation_terms(each) for each in contexts]
    check_field_types(contexts)
    if request.unit == "document":
        return await _retrieve_documents(contexts, feedback)
    contexts = [_without_pins(each, "by_unit") for each in contexts]
    retrieved = await retrieve_nested_hits(contexts[0], request.unit)
    return SearchResult(contexts, retrieved.hits, retrieved)


async def _retrieve_documents(contexts: Sequence[SearchContext], feedback: Mapping[str, Any] | None) -> SearchResult:
    """Retrieve, rerank and read the documents of the page, with pinned documents in their places."""
    request, reranking, pins = contexts[0].request, None, None
    if contexts[0].curated is not None:
        if request.sort or request.browses:
            contexts = [_without_pins(each, "sorted") for each in contexts]
        context, pins = await _with_pins(contexts[0])
        contexts = [context, *contexts[1:]]
    if request.rerank is not None:
        retrieved, reranking = await retrieve_reranked(contexts[0], request.rerank, retrieve)
    else:
        retrieved = await retrieve(contexts)
    if pins is not None:
        retrieved = pins.placed(contexts[0], retrieved)
    return SearchResult(contexts, await read_hits(contexts, retrieved), retrieved, reranking, feedback)


def _without_pins(context: SearchContext, reason: str) -> SearchContext:
    """Return the context without pins, each reported as skipped for the reason."""
    curated = context.curated
    return context if curated is None else replace(context, curated=curated.without_pins(reason))


async def _with_curation_terms(context: SearchContext) -> SearchContext:
    """Return the context with the analyser's terms of the user's words, which only explanations need."""
    curated, request = context.curated, context.request
    if curated is None or not curated.matched.spans or not request.explain or request.mode == "sparse":
        return context
    weighed = [span.text for span in curated.matched.spans if span.phrase or span.factor != 1]
    distinct = list(dict.fromkeys([request.query, *weighed]))
    try:
        terms_by_word = await context.executor.terms(context.generation.physical, "lexical", distinct)
    except NotFound:
        # The generation of the point in time was removed: explain the contributions without their origins.
        return context
    context.stopwatch.lap("opensearch")

    def terms_of(*texts: str) -> frozenset[str]:
        return frozenset(term.text for text in texts for term in terms_by_word.get(text, ()))

    terms = CurationTerms(terms_of(request.query), terms_of(*weighed))
    return replace(context, curated=replace(curated, terms=terms))


@dataclass(frozen=True, slots=True)
class _Pins:
    """Pinned documents by their place in the whole ranking, and the number of hits before the page.

    A pinned document keeps its place on whichever page it falls; the other hits follow each other around it.
    """

    by_place: dict[int, Hit]
    begin: int

    def placed(self, context: SearchContext, retrieved: RetrievedHits) -> RetrievedHits:
        """Return the retrieved hits with the page's pins among them. A ranking ends only after its last pin."""
        page, wanted = retrieved.page, self.by_place
        if page is not None:
            wanted = dict(zip(pinned_positions(list(wanted), page.ranked), wanted.values(), strict=True))
        pins_ahead = {place - self.begin: hit for place, hit in wanted.items() if place > self.begin}
        hits = insert_pinned(list(retrieved.hits), pins_ahead, context.request.size)
        if context.request.mode == "hybrid":
            scores = retrieved.pinned_scores
            hits = [hit._replace(score=scores.get(hit.id, 0.0)) if hit.pinned else hit for hit in hits]
        if page is not None:
            placed = sum(hit.pinned for hit in hits)
            page = replace(page, begin=page.begin + placed, end=page.end if placed >= len(pins_ahead) else None)
        return replace(retrieved, hits=hits, page=page)


async def _with_pins(context: SearchContext) -> tuple[SearchContext, _Pins | None]:
    """Read the pinned documents; return the context with room for them on the page. None: nothing is pinned.

    Pinned documents are read by id under the conditions of every hit. A document that was deleted, or that the request
    excludes, takes no place.
    """
    curated, page = context.curated, context.page
    if curated is None or not curated.matched.pins:
        return context, None
    pins = curated.matched.pins
    size, begin = context.request.size, 0 if page is None else page.begin
    pinned = await _read_pinned(context, list(pins))
    absent = [
        document for document, pin in pins.items() if document not in pinned and begin < pin.place <= begin + size
    ]
    by_place = {pins[document].place: hit for document, hit in pinned.items()}
    if page is not None:
        page = replace(page, pins=sum(place <= begin for place in by_place), last_pin=max(by_place, default=0))
    on_page = sum(begin < place <= begin + size for place in by_place)
    context = replace(context, curated=curated.with_missing_pins(absent), pinned=on_page, page=page)
    return context, _Pins(dict(sorted(by_place.items())), begin)


async def _read_pinned(context: SearchContext, ids: list[str]) -> dict[str, Hit]:
    """Return the pinned documents that exist, by id, each with its score in every list that it matches."""
    mode = context.request.mode
    modes = HYBRID if mode == "hybrid" else (mode,)
    plans = [
        SearchPlan(context.generation.physical, _pinned_body(context, each, ids, first=each == modes[0]))
        for each in modes
    ]
    pinned: dict[str, Hit] = {}
    for list_mode, answer in zip(modes, await context.executor.lists(plans), strict=True):
        for hit in complete_hits(answer, context.stopwatch):
            document = pinned.get(hit["_id"]) or Hit(hit["_id"], hit["_index"], hit["_score"], {}, pinned=True)
            scores = {**document.scores, list_mode: hit["_score"]} if hit["_score"] > 0 else document.scores
            source, boosts = hit.get("_source", document.source), hit.get("matched_queries", ())
            pinned[document.id] = document._replace(source=source, boosts=boosts, scores=scores)
    context.stopwatch.lap("opensearch")
    return pinned


def _pinned_body(context: SearchContext, mode: str, ids: Sequence[str], *, first: bool) -> dict[str, Any]:
    """Build the body that scores the pinned documents for one list. `first`: the list whose hits bring the sources."""
    by_words = sparse_query(context.query, context.score_by) if mode == "sparse" else lexical_clause(context)
    query = {
        "bool": {
            "should": [by_words],
            "filter": [{"ids": {"values": ids}}, NOT_DELETED, *context.selection.clauses],
            "must_not": [{"ids": {"values": list(context.excluded_ids)}}],
        }
    }
    source = needed_source(context.request) if first and not context.request.is_fetched_separately else False
    return with_boosts(context, build_search_body(query, len(ids), source, context.timeout))


async def respond(result: SearchResult) -> Response:
    """Shape the response of a search."""
    contexts, retrieved = result.contexts, result.retrieved
    first = contexts[0]
    request = first.request
    hits = await _shape_hits(contexts, result.hits)
    if request.is_multi_index:
        encoders = {context.generation.index: context.generation.encoder.fingerprint for context in contexts}
        response: Response = {
            "indexes": list(encoders), "mode": first.mode, "query": request.query, "encoders": encoders,
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
    if request.total:
        response |= await count_total(contexts)
    if first.mode != "sparse":
        response |= await did_you_mean(contexts, lexical_empty=retrieved.lexical_empty)
    if result.reranking is not None:
        response["rerank"] = result.reranking
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
    if result.feedback is not None:
        response["feedback"] = result.feedback
    first.stopwatch.lap("shape")
    response["timings_ms"] = first.stopwatch.finish(first.mode)
    return response


def _by_index(contexts: Sequence[SearchContext], by_index: Mapping[str, Any]) -> Any:
    """Return a member by index for a search of several indexes, and alone for a search of one."""
    return by_index if contexts[0].request.is_multi_index else by_index[contexts[0].generation.index]


async def _shape_hits(contexts: Sequence[SearchContext], hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """Shape the hits of the response. Documents that were deleted since they matched are left out."""
    request = contexts[0].request
    by_name = {context.generation.physical: context for context in contexts}
    existing = [(by_name[hit.physical], hit, hit.source) for hit in hits if hit.source is not None]
    shaped: list[dict[str, Any]] = []
    turns = LoopTurns()
    for context, hit, source in existing:
        named = {"index": context.generation.index} if request.is_multi_index else {}
        shaped.append(named | shape_hit(context, hit, source))
        # The best passage of 1,200 windows takes 10 ms, an explanation of them 50 ms.
        await turns.count(stored_size(source))
    if request.highlight and not request.browses:
        for context in contexts:
            positions = [n for n, (hit_context, _, _) in enumerate(existing) if hit_context is context]
            await highlight(context, [existing[n][1:] for n in positions], [shaped[n] for n in positions])
    return shaped
