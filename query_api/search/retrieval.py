"""Retrieval: send the lists of a search, rank their hits and read the hits of the page.

One path serves one index and several. A ranking is either one list in OpenSearch's own order, which pages continue by
position, or it is made in the API from candidates: fused, merged from indexes that are searched apart, or sorted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any

from query_api.search.context import Hit, RetrievedHits, SearchContext
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
from query_api.search.hits import lexical_shares
from query_api.search.multi_index import (
    MergedList,
    OpenSearchHit,
    has_several_encoders,
    join_alike,
    merge_lists,
    opensearch_order,
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
from services.query.fusion import K, fuse_lists, fusion_shares

# A hit's index name, the id of its document, and the number of its chapter or passage.
Address = tuple[str, str, int | None]
# The keys of hits: by id in a search of one index, by index and id in a search of several.
_id: Callable[[OpenSearchHit], str] = itemgetter("_id")
_physical_and_id: Callable[[OpenSearchHit], Key] = itemgetter("_index", "_id")


def _key_address(key: Key) -> Address:
    return *key, None


async def retrieve(contexts: Sequence[SearchContext]) -> RetrievedHits:
    """Return the hits of the page. `contexts`: one for each index, with the same request."""
    first = contexts[0]
    if first.request.is_ranked_by_api:
        if len(contexts) > 1:
            return await _rank_candidates(contexts, _physical_and_id, _key_address)
        physical = first.generation.physical
        return await _rank_candidates(contexts, _id, lambda document: (physical, document, None))
    searches = join_alike(contexts, first.mode, first.request.size)
    if len(searches) == 1:
        return await _opensearch_list(searches[0])
    if first.request.sort:
        return await _merge_sorted_lists(contexts)
    return await _rank_candidates(contexts, _physical_and_id, _key_address)


async def _opensearch_list(context: SearchContext) -> RetrievedHits:
    """Return the hits of one list in OpenSearch's order, with sources unless they are candidates for a later stage."""
    mode, page, fetched_separately = context.mode, context.page, context.request.is_fetched_separately
    counting = match_count_requests([context]) or candidate_count_requests(context)
    answer, *counted = await send_requests([(context, _opensearch_plan), *counting])
    hits: Sequence[OpenSearchHit] = answer["hits"]["hits"]
    lexical_empty = mode == "lexical" and not hits
    if page is not None:
        hits, page = page.of_list(answer["hits"], context.list_size)
    page_hits = [
        Hit(
            hit["_id"],
            hit["_index"],
            hit["_score"] or 0.0,
            {} if hit["_score"] is None else {mode: hit["_score"]},
            hit.get("_source"),
            lexical_shares(hit["_explanation"]) if "_explanation" in hit else {},
            boosts=hit.get("matched_queries", ()),
        )
        for hit in hits
    ]
    return RetrievedHits(page_hits, page, read_counts(context, counted), lexical_empty, read=not fetched_separately)


def _opensearch_plan(context: SearchContext) -> SearchPlan:
    """Build the list of a search that OpenSearch ranks, limited to the page."""
    size, fetched_separately = context.list_size, context.request.is_fetched_separately
    source = False if fetched_separately else needed_source(context.request)
    if context.selection.sort or context.request.browses:
        search = sorted_body(context, context.mode, size, source)
    else:
        search = list_body(context, context.mode, size, source)
    if not fetched_separately:
        search = with_explanation(context, context.mode, search)
    if context.page is not None:
        search = context.page.narrow(search, size)
    return list_plan(context, context.mode, search)


@dataclass(frozen=True, slots=True)
class _CandidateList:
    """The hits of one list of candidates. `group`: the facet group whose filter applies; 0: the request's filter."""

    group: int
    mode: str
    context: SearchContext
    hits: Sequence[OpenSearchHit]


async def _rank_candidates(
    contexts: Sequence[SearchContext], key: Callable[[OpenSearchHit], K], address: Callable[[K], Address]
) -> RetrievedHits:
    """Rank candidates: fuse the lists of both modes, or merge the lists of one, then sort if the request asks for it.

    `key` names a document: by its id, or by index and id where several indexes are searched. `address` resolves it.
    """
    contexts = [_page_by_number(each) for each in contexts]
    first = contexts[0]
    candidates, counts = await _send_candidate_lists(contexts)
    lists = _merge(first, candidates, key)
    ranking = fuse(first, lists)
    pinned: dict[str, float] = {}
    if first.curated is not None and (pins := first.curated.matched.pins):
        pinned = {str(name): score for name, score in ranking if name in pins}
        ranking = [pair for pair in ranking if pair[0] not in pins]
    if first.selection.sort:
        ranking = sort_documents(ranking, first.selection.sort, _field_values(candidates, lists, key))
    if first.selection.facets is not None and not counts:
        counts = _candidate_counts(first, candidates, key)
    boosts: dict[K, Sequence[str]] = {}
    if any(context.curated is not None for context in contexts):
        marked = (hit for each in candidates for hit in each.hits if "matched_queries" in hit)
        boosts = {key(hit): hit["matched_queries"] for hit in marked}
    hits, page = cut_page(first, ranking, lists, boosts, address)
    lexical_empty = "lexical" in lists and not lists["lexical"].scores
    return RetrievedHits(hits, page, counts, lexical_empty, pinned_scores=pinned)


def _page_by_number(context: SearchContext) -> SearchContext:
    """Return the context with a page by number: a ranking made in the API has no position in OpenSearch's order."""
    page = context.page
    return context if page is None or not page.by_position else replace(context, page=replace(page, by_position=False))


async def _send_candidate_lists(contexts: Sequence[SearchContext]) -> tuple[list[_CandidateList], Mapping[str, Any]]:
    """Send the lists of candidates; also return the counts among all matches, if facets count all matches."""
    first = contexts[0]
    depth, facets = depth_of(first), first.selection.facets
    counting = match_count_requests(contexts)
    # The lists under the whole filter, and the lists of facets that ignore their own part of it.
    filters = range(1 if counting or facets is None else len(group_facets(first.selection)))
    wanted = [
        (n, mode, search) for n in filters for mode in modes_of(first) for search in join_alike(contexts, mode, depth)
    ]
    answers = await send_requests(
        [*(_candidate_request(search, mode, depth, n) for n, mode, search in wanted), *counting]
    )
    candidates = [_CandidateList(*each, answer["hits"]["hits"]) for each, answer in zip(wanted, answers, strict=False)]
    return candidates, read_counts(first, answers[len(wanted) :]) if counting else {}


def _candidate_request(context: SearchContext, mode: str, depth: int, group: int) -> ListRequest:
    """Build the request of one list. `group`: the facet group whose filter applies; 0: the request's own filter."""
    clauses = group_facets(context.selection)[group].clauses if group else None
    return context, partial(candidates_plan, mode=mode, size=depth, clauses=clauses)


def _merge(
    context: SearchContext, candidates: Sequence[_CandidateList], key: Callable[[OpenSearchHit], K], group: int = 0
) -> dict[str, MergedList[K]]:
    """Return the list of each mode over all indexes."""
    merged: dict[str, MergedList[K]] = {}
    for mode in modes_of(context):
        lists = [(each.context, each.hits) for each in candidates if each.mode == mode and each.group == group]
        merged[mode] = merge_lists(lists, mode, depth_of(context), key)
    return merged


def fuse(context: SearchContext, lists: Mapping[str, MergedList[K]]) -> list[tuple[K, float]]:
    """Return the ranking of all lists. The weights of a hybrid search apply here."""
    if len(lists) == 1:
        (only,) = lists.values()
        return list(only.scaled.items())
    scaled = {mode: merged.scaled for mode, merged in lists.items()}
    return fuse_lists(scaled, dict(context.request.weights), context.request.chosen_fusion())


def _field_values(
    candidates: Sequence[_CandidateList],
    lists: Mapping[str, MergedList[K]],
    key: Callable[[OpenSearchHit], K],
    group: int = 0,
) -> dict[K, FieldValues]:
    """Return the metadata values of candidates, by which hits are sorted and counted."""
    values: dict[K, FieldValues] = {}
    for each in candidates:
        for hit in each.hits if each.group == group else ():
            name = key(hit)
            if name in lists[each.mode].scores:
                values[name] = read_field_values(hit, each.context.selection.columns)
    return values


def _candidate_counts(
    context: SearchContext, candidates: Sequence[_CandidateList], key: Callable[[OpenSearchHit], K]
) -> dict[str, Any]:
    """Count facets among the candidates."""
    counted = []
    for number, group in enumerate(group_facets(context.selection)):
        lists = _merge(context, candidates, key, number)
        counted.append((group, _field_values(candidates, lists, key, number)))
    return read_among_candidates(counted, context.selection, context.settings.max_facet_values)


def cut_page(
    context: SearchContext,
    ranking: Sequence[tuple[K, float]],
    lists: Mapping[str, MergedList[K]],
    boosts: Mapping[K, Sequence[str]],
    address: Callable[[K], Address],
) -> tuple[list[Hit], PageState | None]:
    """Cut the page out of a whole ranking; return its hits, without sources, and the next state of the page.

    `address` resolves the key of a hit.
    """
    page = context.page
    if page is not None:
        ranking, page = page.of_ranking(ranking, context.list_size, full=any(merged.full for merged in lists.values()))
    ranking = ranking[: context.list_size]
    fusion: Mapping[K, Mapping[str, tuple[float, float]]] = {}
    if context.request.explain and len(lists) > 1:
        weights, method = dict(context.request.weights), context.request.chosen_fusion()
        fusion = fusion_shares(
            {mode: merged.scaled for mode, merged in lists.items()}, weights, method, [key for key, _ in ranking]
        )
    hits = []
    for key, score in ranking:
        physical, document, number = address(key)
        scores = {mode: merged.scores[key] for mode, merged in lists.items() if key in merged.scores}
        hits.append(
            Hit(document, physical, score, scores, fusion=fusion.get(key), number=number, boosts=boosts.get(key, ()))
        )
    context.stopwatch.lap("fuse")
    return hits, page


async def _merge_sorted_lists(contexts: Sequence[SearchContext]) -> RetrievedHits:
    """Merge the sorted lists of indexes that are searched apart, to the depth of candidates."""
    contexts = [_page_by_number(each) for each in contexts]
    first = contexts[0]
    mode, depth, scored = first.mode, depth_of(first), is_scored(first.request)
    columns = {key.field: key.kind for key in first.selection.sort if key.kind is not None}
    searches = join_alike(contexts, mode, depth)

    def sorted_plan(context: SearchContext) -> SearchPlan:
        search = sorted_body(context, mode, depth, False) | {"docvalue_fields": build_docvalue_fields(columns)}
        return list_plan(context, mode, search)

    answers = await send_requests([*((search, sorted_plan) for search in searches), *match_count_requests(contexts)])
    lists = list(zip(searches, (answer["hits"]["hits"] for answer in answers), strict=False))
    hits_by_key = {_physical_and_id(hit): hit for _, hits in lists for hit in hits}
    scores = {key: float(hit["_score"]) for key, hit in hits_by_key.items()} if scored else {}
    scaled = scores
    if scored and mode == "sparse" and has_several_encoders(searches):
        scaled = {
            key: scores[key] / query_weight(search) for search, hits in lists for key in map(_physical_and_id, hits)
        }
    ranking = [(key, scaled.get(key, 0.0)) for key in opensearch_order(hits_by_key, scaled)]
    ranking = sort_documents(
        ranking, first.selection.sort, {key: read_field_values(hit, columns) for key, hit in hits_by_key.items()}
    )
    boosts = {key: hit["matched_queries"] for key, hit in hits_by_key.items() if "matched_queries" in hit}
    merged = MergedList(scores, scores, any(len(hits) == depth for _, hits in lists))
    hits, page = cut_page(first, ranking, {mode: merged}, boosts, _key_address)
    counts = read_counts(first, answers[len(searches) :]) if len(answers) > len(searches) else {}
    return RetrievedHits(hits, page, counts, mode == "lexical" and not hits_by_key)


async def read_hits(contexts: Sequence[SearchContext], retrieved: RetrievedHits) -> Sequence[Hit]:
    """Read the sources of the page's hits; explain lexical hits if the request asks why they matched.

    Hits that already have sources and explanations are complete. Pinned documents are not: they were looked up before
    their page was known.
    """
    hits, request = retrieved.hits, contexts[0].request
    if not retrieved.read:
        return await _read(contexts, hits)
    if not request.needs_explanation or not any(hit.pinned for hit in hits):
        return hits
    unexplained = [hit for hit in hits if hit.pinned and "lexical" in hit.scores]
    read = {hit.id: hit for hit in await _read(contexts, unexplained)}
    return [read.get(hit.id, hit) if hit.pinned else hit for hit in hits]


async def _read(contexts: Sequence[SearchContext], hits: Sequence[Hit]) -> list[Hit]:
    request = contexts[0].request
    source = needed_source(request)
    if request.needs_explanation and any("lexical" in hit.scores for hit in hits):
        return await _read_explained(join_alike(contexts, "lexical", request.size), hits, source)
    return await read_sources(contexts[0], hits, source)


async def read_sources(context: SearchContext, hits: Sequence[Hit], source: Sequence[str]) -> list[Hit]:
    """Read fields of hits. The `source` of a document that is gone is None."""
    if not hits:
        return []
    # Several passages of one document need its source once.
    keys = list(dict.fromkeys(hit.key for hit in hits))
    return await _fill(context, hits, source, await context.executor.documents(keys, source))


async def _read_explained(searches: Sequence[SearchContext], hits: Sequence[Hit], source: Sequence[str]) -> list[Hit]:
    """Read sources and explanations in one request. `searches`: the searches whose lexical lists hold the hits."""
    plans = []
    # Indexes that are searched alike have the same boosts, so a single context explains all of them.
    search_of: dict[str, SearchContext] = {}
    for search in searches:
        names = search.targets or (search.generation.physical,)
        search_of |= dict.fromkeys(names, search)
        wanted = {name: ids for name in names if (ids := [hit.id for hit in hits if hit.physical == name])}
        if wanted:
            body = explained_body(search, _ids_clause(wanted), sum(map(len, wanted.values())), source)
            plans.append(list_plan(search, "lexical", body))
    first = searches[0]
    answers = await send_lists(first.executor, plans, first.stopwatch)
    hits_by_key = {_physical_and_id(hit): hit for answer in answers for hit in answer["hits"]["hits"]}

    def explained_hit(hit: Hit) -> Hit:
        if hit.key not in hits_by_key or "lexical" not in hit.scores:
            return hit
        return hit._replace(shares=scaled_shares(search_of[hit.physical], hit, hits_by_key[hit.key]))

    sources = {key: hit["_source"] for key, hit in hits_by_key.items()}
    return await _fill(first, [explained_hit(hit) for hit in hits], source, sources)


def _ids_clause(wanted: Mapping[str, Sequence[str]]) -> Clause:
    """Return the clause of documents by index and id: several indexes may have the same id."""
    if len(wanted) == 1:
        (ids,) = wanted.values()
        return {"ids": {"values": ids}}
    each = [
        {"bool": {"filter": [{"term": {"_index": name}}, {"ids": {"values": ids}}]}} for name, ids in wanted.items()
    ]
    return {"bool": {"should": each}}


def scaled_shares(context: SearchContext, hit: Hit, explained: OpenSearchHit) -> dict[tuple[str, str], float]:
    """Return the contributions to the hit's lexical score, without boosts, from an explanation.

    The explanation may differ a little from the score: a document written since then changes the weights of words, and
    another copy of the shard has other statistics. So contributions are scaled to add up to the score that is shown.
    """
    score = hit.scores["lexical"]
    if context.curated is not None:
        score = context.curated.remove_boosts(score, hit.boosts)
    shares = lexical_shares(explained["_explanation"])
    total = sum(shares.values())
    return {term: share * (score / total) for term, share in shares.items()} if total else {}


async def _fill(context: SearchContext, hits: Sequence[Hit], source: Sequence[str], read: Documents) -> list[Hit]:
    """Return the hits with their sources.

    Another copy of the shard may not yet have a document that the search found. Missing documents are read again in
    real time; otherwise a hit would be lost silently.
    """
    if missing := [key for key in dict.fromkeys(hit.key for hit in hits) if key not in read]:
        read = read | await context.executor.documents(missing, source, realtime=True)
    context.stopwatch.lap("opensearch")
    return [hit.with_source(_unless_deleted(read.get(hit.key))) for hit in hits]


def _unless_deleted(source: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the source; None for a document that was deleted between the two requests."""
    return None if source is None or source.get("state") == "deleted" else source
