"""Curation rules in one search: which version applies, their effect on the query, and the documents that they pin.

A pinned document keeps its place in the whole ranking; `Pins` puts it on the
page on which that place falls.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from query_api.index_cache import CurationCache
from query_api.schemas.search_request import SearchRequest
from query_api.search.context import CuratedQuery, CurationTerms, Hit, RetrievedHits, SearchContext
from query_api.search.executor import complete_hits
from query_api.search.page_state import PageState
from query_api.search.query_builder import HYBRID, lexical_clause, needed_source, with_boosts
from query_api.search.validation import is_scored, limits_of
from services.curation.effects import (
    BoostFactor,
    compile_boosts,
    describe_filter,
    insert_pinned,
    pinned_positions,
)
from services.curation.matching import CompiledRules
from services.curation.rules import Rules
from services.errors import NotFound
from services.filters.parsing import FilterLimits
from services.index_spec import Generation
from services.opensearch.queries import NOT_DELETED, SearchPlan, build_search_body, sparse_query
from services.settings import Settings


async def rules_of(
    curations: CurationCache,
    generation: Generation,
    request: SearchRequest,
    page: PageState | None = None,
    proposed: CompiledRules | None = None,
) -> CompiledRules | None:
    """Return the rules of a search: proposed rules, else those of the first page, else the index's newest rules.

    Raises BackendUnavailable (`curation_unavailable`, `curation_unreadable`), NotFound (`cursor_expired`).
    """
    if not request.curation:
        return None
    rules = proposed or curations.of(generation)
    current = 0 if rules is None else rules.version
    version = current if page is None else page.rules.get(generation.index, current)
    return rules if version == current else await curations.earlier(generation, version)


def curate_query(
    rules: CompiledRules, generation: Generation, request: SearchRequest, settings: Settings
) -> CuratedQuery:
    """Return the effect of the rules on a request."""
    curated = CuratedQuery(rules.matched(request.query, settings.max_query_pieces))
    return (
        _with_boosts(curated, rules.rules, generation, request, limits_of(settings)) if is_scored(request) else curated
    )


def _with_boosts(
    curated: CuratedQuery, rules: Rules, generation: Generation, request: SearchRequest, limits: FilterLimits
) -> CuratedQuery:
    """Add boosts and field weights, which apply to any words.

    Rules that name a field that the generation lacks are reported as skipped.
    """
    # `matched` belongs to this search alone, so it may be changed.
    matched = curated.matched
    boosts = list(compile_boosts(rules, generation.spec.fields, limits)) if rules.boosts else []
    for number, boost in enumerate(boosts):
        if isinstance(boost, BoostFactor):
            matched.applied.append({"kind": "boost", "rule": number, "matched": boost.name})
        else:
            matched.skip("boost", number, describe_filter(rules.boosts[number].filter), "unfit")
    curated = replace(curated, boosts=[boost for boost in boosts if isinstance(boost, BoostFactor)])
    if rules.fields.title == 1 or request.mode == "sparse":
        return curated
    if request.unit != "document":
        matched.skip("field", 0, "title", "by_unit")
    elif generation.titles:
        matched.applied.append({"kind": "field", "rule": 0, "matched": "title"})
        return replace(curated, title=rules.fields.title)
    else:
        matched.skip("field", 0, "title", "unfit")
    return curated


async def with_curation_terms(context: SearchContext) -> SearchContext:
    """Return the context with the analyser's terms of the user's words, which only explanations need."""
    curated, request = context.curated, context.request
    if curated is None or not curated.matched.spans or not request.explain or request.mode == "sparse":
        return context
    weighed = [span.text for span in curated.matched.spans if span.phrase or span.factor != 1]
    distinct = list(dict.fromkeys([request.query, *weighed]))
    try:
        terms_by_word = await context.engine.terms(context.generation.physical, "lexical", distinct)
    except NotFound:
        # The generation of the point in time was removed: explain the contributions without their origins.
        return context
    context.stopwatch.lap("opensearch")

    def terms_of(*texts: str) -> frozenset[str]:
        return frozenset(term.text for text in texts for term in terms_by_word.get(text, ()))

    terms = CurationTerms(terms_of(request.query), terms_of(*weighed))
    return replace(context, curated=replace(curated, terms=terms))


@dataclass(frozen=True, slots=True)
class Pins:
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


async def with_pins(context: SearchContext) -> tuple[SearchContext, Pins | None]:
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
    return context, Pins(dict(sorted(by_place.items())), begin)


async def _read_pinned(context: SearchContext, ids: list[str]) -> dict[str, Hit]:
    """Return the pinned documents that exist, by id, each with its score in every list that it matches."""
    mode = context.request.mode
    modes = HYBRID if mode == "hybrid" else (mode,)
    plans = [
        SearchPlan(context.generation.physical, _pinned_body(context, each, ids, first=each == modes[0]))
        for each in modes
    ]
    pinned: dict[str, Hit] = {}
    for list_mode, answer in zip(modes, await context.engine.lists(plans), strict=True):
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
