"""Retrieval: send the lists of a search, rank their hits, and read the hits that are shown.

One path serves one index and several. A ranking is either a list in the engine's own order, which pages can continue,
or it is made here from candidates: fused, merged from indexes that are searched apart, or sorted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any

from query_api.search.context import Hit, Retrieved, SearchContext
from query_api.search.counting import (
    ListRequest,
    candidate_count_requests,
    group_facets,
    match_count_requests,
    read_among_candidates,
    read_counts,
    send_requests,
)
from query_api.search.executor import Documents, Key, send_lists
from query_api.search.hits import keyword_shares
from query_api.search.multi_index import (
    EngineHit,
    Merged,
    engine_order,
    has_several_encoders,
    join_alike,
    merge_lists,
    query_weight,
)
from query_api.search.page_state import PageState
from query_api.search.query_builder import (
    candidates_plan,
    depth_of,
    explained_body,
    list_body,
    list_plan,
    modes_of,
    needed_source,
    sorted_body,
    with_explanation,
)
from query_api.search.sorting import sort_documents
from query_api.search.validation import is_scored
from services.opensearch.queries import Clause, FieldValues, SearchPlan, build_docvalue_fields, read_field_values
from services.query.fusion import D, fuse_lists, fusion_shares

# The keys of hits in a search of one index, and of several.
_id: Callable[[EngineHit], str] = itemgetter("_id")
_physical_and_id: Callable[[EngineHit], Key] = itemgetter("_index", "_id")


async def retrieve(contexts: Sequence[SearchContext]) -> Retrieved:
    """Return the hits of the page from the indexes of the contexts, one context each, which ask the same."""
    first = contexts[0]
    if first.request.is_ranked_here:
        return await (
            _rank_candidates(contexts, _id) if len(contexts) == 1 else _rank_candidates(contexts, _physical_and_id)
        )
    searches = join_alike(contexts, first.mode, first.request.size)
    if len(searches) == 1:
        return await _engine_list(searches[0])
    if first.request.sort:
        return await _merge_sorted_lists(contexts)
    return await _rank_candidates(contexts, _physical_and_id)


async def _engine_list(context: SearchContext) -> Retrieved:
    """Return the hits of one list of the engine, read unless they are candidates of which only some are shown."""
    mode, page, later = context.mode, context.page, context.request.is_read_later
    counting = match_count_requests([context]) or candidate_count_requests(context)
    answer, *counted = await send_requests([(context, _engine_plan), *counting])
    hits: Sequence[EngineHit] = answer["hits"]["hits"]
    empty = mode == "lexical" and not hits
    if page is not None:
        hits, page = page.of_list(answer["hits"], context.room)
    found = [
        Hit(
            hit["_id"],
            hit["_index"],
            hit["_score"] or 0.0,
            {} if hit["_score"] is None else {mode: hit["_score"]},
            hit.get("_source"),
            keyword_shares(hit["_explanation"]) if "_explanation" in hit else {},
            boosts=hit.get("matched_queries", ()),
        )
        for hit in hits
    ]
    return Retrieved(found, page, read_counts(context, counted), empty, read=not later)


def _engine_plan(context: SearchContext) -> SearchPlan:
    size, later = context.room, context.request.is_read_later
    source = False if later else needed_source(context.request)
    if context.selection.sort or context.request.browses:
        search = sorted_body(context, context.mode, size, source)
    else:
        search = list_body(context, context.mode, size, source)
    if not later:
        search = with_explanation(context, context.mode, search)
    if context.page is not None:
        search = context.page.narrow(search, size)
    return list_plan(context, context.mode, search)


@dataclass(frozen=True, slots=True)
class _CandidateList:
    """The hits of one list of candidates. `group`: number of the facets' group whose filter holds, 0: the request's."""

    group: int
    mode: str
    context: SearchContext
    hits: Sequence[EngineHit]


async def _rank_candidates(contexts: Sequence[SearchContext], key: Callable[[EngineHit], D]) -> Retrieved:
    """Rank candidates here: fuse the lists of both modes, or merge those of one mode, and sort if the request does.

    `key` names a document: by its id, or where several indexes are searched by index and id.
    """
    contexts = [_page_by_number(one) for one in contexts]
    first = contexts[0]
    listed, counts = await _send_candidate_lists(contexts)
    lists = _merge(first, listed, key)
    ranking = _fuse(first, lists)
    pinned: dict[str, float] = {}
    if first.curated is not None and (pins := first.curated.matched.pins):
        pinned = {str(name): score for name, score in ranking if name in pins}
        ranking = [pair for pair in ranking if pair[0] not in pins]
    if first.selection.sort:
        ranking = sort_documents(ranking, first.selection.sort, _field_values(listed, lists, key))
    if first.selection.facets is not None and not counts:
        counts = _candidate_counts(first, listed, key)
    boosts = {key(hit): hit["matched_queries"] for one in listed for hit in one.hits if "matched_queries" in hit}
    hits, page = _cut_page(first, ranking, lists, boosts)
    empty = "lexical" in lists and not lists["lexical"].scores
    return Retrieved(hits, page, counts, empty, pinned_scores=pinned)


async def _send_candidate_lists(contexts: Sequence[SearchContext]) -> tuple[list[_CandidateList], Mapping[str, Any]]:
    """Send the lists of candidates; return also the counts among all matches, if the request counts these."""
    first = contexts[0]
    depth, facets = depth_of(first), first.selection.facets
    counting = match_count_requests(contexts)
    # the lists of the whole filter, and those of facets that ignore a part of it
    filters = range(1 if counting or facets is None else len(group_facets(first.selection)))
    wanted = [(n, mode, one) for n in filters for mode in modes_of(first) for one in join_alike(contexts, mode, depth)]
    answers = await send_requests([*(_candidate_request(one, mode, depth, n) for n, mode, one in wanted), *counting])
    listed = [_CandidateList(*each, answer["hits"]["hits"]) for each, answer in zip(wanted, answers, strict=False)]
    return listed, read_counts(first, answers[len(wanted) :]) if counting else {}


def _merge(
    context: SearchContext, listed: Sequence[_CandidateList], key: Callable[[EngineHit], D], group: int = 0
) -> dict[str, Merged[D]]:
    """Return the list of each mode over all indexes."""
    merged: dict[str, Merged[D]] = {}
    for mode in modes_of(context):
        lists = [(one.context, one.hits) for one in listed if one.mode == mode and one.group == group]
        merged[mode] = merge_lists(lists, mode, depth_of(context), key)
    return merged


def _field_values(
    listed: Sequence[_CandidateList], lists: Mapping[str, Merged[D]], key: Callable[[EngineHit], D], group: int = 0
) -> dict[D, FieldValues]:
    """Return the metadata values of candidates, which hits are sorted and counted by."""
    values: dict[D, FieldValues] = {}
    for one in listed:
        for hit in one.hits if one.group == group else ():
            name = key(hit)
            if name in lists[one.mode].scores:
                values[name] = read_field_values(hit, one.context.selection.columns)
    return values


def _candidate_counts(
    context: SearchContext, listed: Sequence[_CandidateList], key: Callable[[EngineHit], D]
) -> dict[str, Any]:
    counted = []
    for number, group in enumerate(group_facets(context.selection)):
        lists = _merge(context, listed, key, number)
        counted.append((group, _field_values(listed, lists, key, number)))
    return read_among_candidates(counted, context.selection, context.settings.max_facet_values)


def _page_by_number(context: SearchContext) -> SearchContext:
    """Return the context for a ranking that is made here, which has no position in the engine's order."""
    page = context.page
    return context if page is None or not page.by_position else replace(context, page=replace(page, by_position=False))


def _candidate_request(context: SearchContext, mode: str, depth: int, group: int) -> ListRequest:
    """Request one list; `group`: number of the facets' group whose filter holds, 0 for the request's own filter."""
    clauses = group_facets(context.selection)[group].clauses if group else None
    return context, partial(candidates_plan, mode=mode, size=depth, clauses=clauses)


def _fuse(context: SearchContext, lists: Mapping[str, Merged[D]]) -> list[tuple[D, float]]:
    """Return the ranking of all lists. The weights of a hybrid search are applied here."""
    if len(lists) == 1:
        (only,) = lists.values()
        return list(only.scaled.items())
    scaled = {mode: one.scaled for mode, one in lists.items()}
    return fuse_lists(scaled, context.request.weights.model_dump(), context.request.chosen_fusion())


async def _merge_sorted_lists(contexts: Sequence[SearchContext]) -> Retrieved:
    """Merge the sorted lists of indexes that are searched apart, as deep as candidates are."""
    contexts = [_page_by_number(one) for one in contexts]
    first = contexts[0]
    mode, depth, scored = first.mode, depth_of(first), is_scored(first.request)
    columns = {by.field: by.kind for by in first.selection.sort if by.kind is not None}
    searches = join_alike(contexts, mode, depth)

    def sorted_plan(context: SearchContext) -> SearchPlan:
        search = sorted_body(context, mode, depth, False) | {"docvalue_fields": build_docvalue_fields(columns)}
        return list_plan(context, mode, search)

    answers = await send_requests([*((one, sorted_plan) for one in searches), *match_count_requests(contexts)])
    listed = list(zip(searches, (answer["hits"]["hits"] for answer in answers), strict=False))
    found = {_physical_and_id(hit): hit for _, hits in listed for hit in hits}
    scores = {key: float(hit["_score"]) for key, hit in found.items()} if scored else {}
    scaled = scores
    if scored and mode == "sparse" and has_several_encoders(searches):
        scaled = {key: scores[key] / query_weight(one) for one, hits in listed for key in map(_physical_and_id, hits)}
    ranking = [(key, scaled.get(key, 0.0)) for key in engine_order(found, scaled)]
    ranking = sort_documents(
        ranking, first.selection.sort, {key: read_field_values(hit, columns) for key, hit in found.items()}
    )
    boosts = {key: hit["matched_queries"] for key, hit in found.items() if "matched_queries" in hit}
    merged = Merged(scores, scores, any(len(hits) == depth for _, hits in listed))
    hits, page = _cut_page(first, ranking, {mode: merged}, boosts)
    counts = read_counts(first, answers[len(searches) :]) if len(answers) > len(searches) else {}
    return Retrieved(hits, page, counts, mode == "lexical" and not found)


def _cut_page(
    context: SearchContext,
    ranking: Sequence[tuple[D, float]],
    lists: Mapping[str, Merged[D]],
    boosts: Mapping[D, Sequence[str]],
) -> tuple[list[Hit], PageState | None]:
    """Cut the page out of a whole ranking; return its hits, not read yet, and the next state of the page."""
    page = context.page
    if page is not None:
        ranking, page = page.of_ranking(ranking, context.room, full=any(one.full for one in lists.values()))
    ranking = ranking[: context.room]
    fusion: Mapping[D, Mapping[str, tuple[float, float]]] = {}
    if context.request.explain and len(lists) > 1:
        weights, method = context.request.weights.model_dump(), context.request.chosen_fusion()
        fusion = fusion_shares(
            {mode: one.scaled for mode, one in lists.items()}, weights, method, [key for key, _ in ranking]
        )
    hits = []
    for key, score in ranking:
        physical, document = (context.generation.physical, key) if isinstance(key, str) else key
        own = {mode: one.scores[key] for mode, one in lists.items() if key in one.scores}
        hits.append(Hit(document, physical, score, own, fusion=fusion.get(key), boosts=boosts.get(key, ())))
    context.watch.lap("fuse")
    return hits, page


async def read_hits(contexts: Sequence[SearchContext], retrieved: Retrieved) -> Sequence[Hit]:
    """Read the hits of a page that are not read yet; explain those of the lexical list, if the request asks why.

    Hits that came with sources and explanations are complete, but for pinned documents that need an explanation: when
    they were looked up, it was not known which of them fall on this page.
    """
    hits, request = retrieved.hits, contexts[0].request
    if not retrieved.read:
        return await _read(contexts, hits)
    if not request.asks_why or not any(one.pinned for one in hits):
        return hits
    lacking = [one for one in hits if one.pinned and "lexical" in one.scores]
    read = {one.id: one for one in await _read(contexts, lacking)}
    return [read.get(one.id, one) if one.pinned else one for one in hits]


async def _read(contexts: Sequence[SearchContext], hits: Sequence[Hit]) -> list[Hit]:
    request = contexts[0].request
    source = needed_source(request)
    if request.asks_why and any("lexical" in one.scores for one in hits):
        return await _read_explained(join_alike(contexts, "lexical", request.size), hits, source)
    return await read_sources(contexts[0], hits, source)


async def read_sources(context: SearchContext, hits: Sequence[Hit], source: Sequence[str]) -> list[Hit]:
    """Read fields of hits. `source` of a document that is gone is None."""
    if not hits:
        return []
    # (several passages of a document are read once)
    keys = list(dict.fromkeys(one.key for one in hits))
    return await _fill(context, hits, source, await context.engine.documents(keys, source))


async def _read_explained(searches: Sequence[SearchContext], hits: Sequence[Hit], source: Sequence[str]) -> list[Hit]:
    """Read sources and explanations in one request. `searches`: those whose lexical lists named the hits."""
    plans = []
    # (rules boost indexes that are searched alike in the same way)
    search_of: dict[str, SearchContext] = {}
    for one in searches:
        names = one.targets or (one.generation.physical,)
        search_of |= dict.fromkeys(names, one)
        wanted = {name: ids for name in names if (ids := [hit.id for hit in hits if hit.physical == name])}
        if wanted:
            search = explained_body(one, _ids_clause(wanted), sum(map(len, wanted.values())), source)
            plans.append(list_plan(one, "lexical", search))
    first = searches[0]
    answers = await send_lists(first.engine, plans, first.watch)
    found = {_physical_and_id(hit): hit for answer in answers for hit in answer["hits"]["hits"]}

    def explained_hit(one: Hit) -> Hit:
        if one.key not in found or "lexical" not in one.scores:
            return one
        return one._replace(shares=scaled_shares(search_of[one.physical], one, found[one.key]))

    sources = {key: hit["_source"] for key, hit in found.items()}
    return await _fill(first, [explained_hit(one) for one in hits], source, sources)


def _ids_clause(wanted: Mapping[str, Sequence[str]]) -> Clause:
    """Return the clause of documents by index and id. An id may be in several indexes and be shown of one only."""
    if len(wanted) == 1:
        (ids,) = wanted.values()
        return {"ids": {"values": ids}}
    each = [
        {"bool": {"filter": [{"term": {"_index": name}}, {"ids": {"values": ids}}]}} for name, ids in wanted.items()
    ]
    return {"bool": {"should": each}}


def scaled_shares(context: SearchContext, hit: Hit, explained: EngineHit) -> dict[tuple[str, str], float]:
    """Return the contributions to the hit's lexical score, without boosts, from an explanation.

    A document that was written meanwhile changes the weights of words and boosts a little, and another copy of the
    shard counts differently: contributions are scaled, so that they add up to the score that is shown.
    """
    score = hit.scores["lexical"]
    if context.curated is not None:
        score = context.curated.unboosted(score, hit.boosts)
    shares = keyword_shares(explained["_explanation"])
    now = sum(shares.values())
    return {term: share * (score / now) for term, share in shares.items()} if now else {}


async def _fill(context: SearchContext, hits: Sequence[Hit], source: Sequence[str], read: Documents) -> list[Hit]:
    """Return the hits with their sources.

    Another copy of a shard may not show yet what the searched copy found: missing documents are read in real time, or
    a hit would be lost silently.
    """
    if missing := [key for key in dict.fromkeys(one.key for one in hits) if key not in read]:
        read = read | await context.engine.documents(missing, source, realtime=True)
    context.watch.lap("opensearch")
    return [one._replace(source=_unless_deleted(read.get(one.key))) for one in hits]


def _unless_deleted(source: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the source, None for a document that was deleted between the two requests."""
    return None if source is None or source.get("state") == "deleted" else source
