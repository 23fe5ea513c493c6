"""Curation rules in one search: which rules hold, which terms they explain, and which documents they pin to a place."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from query_api.curation_cache import CurationCache
from query_api.schemas.search_request import SearchRequest
from query_api.search.context import CuratedQuery, CurationTerms, Hit, Retrieved, SearchContext
from query_api.search.executor import complete_hits
from query_api.search.page_state import PageState
from query_api.search.query_builder import HYBRID, lexical_clause, needed_source, with_boosts
from query_api.search.validation import is_scored, limits_of
from services.curation.effects import BoostFactor, compile_boosts, describe_filter, insert_pinned, pinned_positions
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
    """Return the rules of a search: those proposed, those of the first page, or the index's newest ones.

    Raises BackendUnavailable (`curation_unavailable`, `curation_unreadable`), NotFound (`cursor_expired`).
    """
    if not request.curation:
        return None
    rules = proposed or curations.of(generation)
    now = 0 if rules is None else rules.version
    version = now if page is None else page.rules.get(generation.index, now)
    return rules if version == now else await curations.earlier(generation, version)


def curate_query(
    rules: CompiledRules, generation: Generation, request: SearchRequest, settings: Settings
) -> CuratedQuery:
    """Return what the rules make of a request."""
    made = CuratedQuery(rules.matched(request.query, settings.max_query_pieces))
    return _with_boosts(made, rules.rules, generation, request, limits_of(settings)) if is_scored(request) else made


def _with_boosts(
    made: CuratedQuery, rules: Rules, generation: Generation, request: SearchRequest, limits: FilterLimits
) -> CuratedQuery:
    """Add the boosts and field weights, which hold for any words. A generation may lack the fields that they name."""
    matched = made.matched  # (made for this search a moment ago)
    fitted = list(compile_boosts(rules, generation.spec.fields, limits)) if rules.boosts else []
    for number, one in enumerate(fitted):
        if isinstance(one, BoostFactor):
            matched.applied.append({"kind": "boost", "rule": number, "matched": one.name})
        else:
            matched.skip("boost", number, describe_filter(rules.boosts[number].filter), "unfit")
    made = replace(made, boosts=[one for one in fitted if isinstance(one, BoostFactor)])
    if rules.fields.title == 1 or request.mode == "sparse":
        return made
    if request.unit != "document":
        matched.skip("field", 0, "title", "by_unit")
    elif generation.titles:
        matched.applied.append({"kind": "field", "rule": 0, "matched": "title"})
        return replace(made, title=rules.fields.title)
    else:
        matched.skip("field", 0, "title", "unfit")
    return made


async def with_curation_terms(context: SearchContext) -> SearchContext:
    """Return the context with the analyser's terms of the user's words, which only explanations need."""
    curated, request = context.curated, context.request
    if curated is None or not curated.matched.spans or not request.explain or request.mode == "sparse":
        return context
    weighed = [span.text for span in curated.matched.spans if span.phrase or span.factor != 1]
    distinct = list(dict.fromkeys([request.query, *weighed]))
    try:
        found = await context.engine.terms(context.generation.physical, "lexical", distinct)
    except NotFound:
        # The generation of a point in time was dropped: contributions are explained without their origins.
        return context
    context.watch.lap("opensearch")

    def terms_of(*texts: str) -> frozenset[str]:
        return frozenset(term.text for text in texts for term in found.get(text, ()))

    terms = CurationTerms(terms_of(request.query), terms_of(*weighed))
    return replace(context, curated=replace(curated, terms=terms))


@dataclass(frozen=True, slots=True)
class Pins:
    """Pinned documents by their place in the whole ranking, and the number of hits before the page.

    A pinned document keeps its place on whatever page it falls; all other hits follow each other around it.
    """

    by_place: dict[int, Hit]
    begin: int

    def placed(self, context: SearchContext, retrieved: Retrieved) -> Retrieved:
        """Put the pins of the page among the retrieved hits. A ranking ends when its last pin was shown too."""
        page, wanted = retrieved.page, self.by_place
        if page is not None:
            wanted = dict(zip(pinned_positions(list(wanted), page.ranked), wanted.values(), strict=True))
        coming = {place - self.begin: one for place, one in wanted.items() if place > self.begin}
        hits = insert_pinned(list(retrieved.hits), coming, context.request.size)
        if context.request.mode == "hybrid":
            scores = retrieved.pinned_scores
            hits = [one._replace(score=scores.get(one.id, 0.0)) if one.pinned else one for one in hits]
        if page is not None:
            shown = sum(one.pinned for one in hits)
            page = replace(page, begin=page.begin + shown, end=page.end if shown >= len(coming) else None)
        return replace(retrieved, hits=hits, page=page)


async def with_pins(context: SearchContext) -> tuple[SearchContext, Pins | None]:
    """Read the pinned documents; return the context with room for them on the page. None: nothing is pinned.

    They are read by id, under the conditions of every hit: a document that was deleted, or that the request excludes,
    is not shown and takes no place.
    """
    curated, page = context.curated, context.page
    if curated is None or not curated.matched.pins:
        return context, None
    pins = curated.matched.pins
    size, begin = context.request.size, 0 if page is None else page.begin
    found = await _read_pinned(context, list(pins))
    absent = [one for one, pin in pins.items() if one not in found and begin < pin.place <= begin + size]
    by_place = {pins[one].place: each for one, each in found.items()}
    if page is not None:
        page = replace(page, pins=sum(place <= begin for place in by_place), last_pin=max(by_place, default=0))
    on_page = sum(begin < place <= begin + size for place in by_place)
    context = replace(context, curated=curated.missing(absent), pinned=on_page, page=page)
    return context, Pins(dict(sorted(by_place.items())), begin)


async def _read_pinned(context: SearchContext, ids: list[str]) -> dict[str, Hit]:
    """Return the documents that are there, by id, each with its own score in every list that matches it."""
    mode = context.request.mode
    modes = HYBRID if mode == "hybrid" else (mode,)
    plans = [
        SearchPlan(context.generation.physical, _pinned_body(context, one, ids, first=one == modes[0])) for one in modes
    ]
    found: dict[str, Hit] = {}
    for name, answer in zip(modes, await context.engine.lists(plans), strict=True):
        for hit in complete_hits(answer, context.watch):
            one = found.get(hit["_id"]) or Hit(hit["_id"], hit["_index"], hit["_score"], {}, pinned=True)
            scores = {**one.scores, name: hit["_score"]} if hit["_score"] > 0 else one.scores
            source, boosts = hit.get("_source", one.source), hit.get("matched_queries", ())
            found[one.id] = one._replace(source=source, boosts=boosts, scores=scores)
    context.watch.lap("opensearch")
    return found


def _pinned_body(context: SearchContext, mode: str, ids: Sequence[str], *, first: bool) -> dict[str, Any]:
    by_words = sparse_query(context.query, context.score_by) if mode == "sparse" else lexical_clause(context)
    query = {
        "bool": {
            "should": [by_words],
            "filter": [{"ids": {"values": ids}}, NOT_DELETED, *context.selection.clauses],
            "must_not": [{"ids": {"values": list(context.left_out)}}],
        }
    }
    source = needed_source(context.request) if first and not context.request.is_read_later else False
    return with_boosts(context, build_search_body(query, len(ids), source, context.timeout))
