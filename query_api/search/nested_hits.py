"""Nested hits: search for chapters of talk or for passages. Several hits may be of one document.

A list is a search for documents by their best chapter or passage, with the best of each document as inner hits. The
lists of both modes are fused as lists of documents are. Then the documents of the hits are read, and their lexical
scores are explained on request.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from query_api.schemas.search_request import MAX_PER_DOCUMENT
from query_api.search.context import Hit, RetrievedHits, SearchContext
from query_api.search.executor import send_lists
from query_api.search.multi_index import MergedList
from query_api.search.passages import has_nested_hit
from query_api.search.query_builder import depth_of, excluded_ids, field_query, modes_of, needed_source, with_boosts
from query_api.search.retrieval import cut_page, fuse, read_sources, scaled_shares
from services.opensearch.queries import (
    NestedKind,
    SearchPlan,
    add_filter,
    best_nested_query,
    build_search_body,
    nested_words_field,
    read_best_nested,
    sparse_nested_query,
)

# The id of a document, and the number of the chapter or passage within it.
NestedKey = tuple[str, int]


async def retrieve_nested_hits(context: SearchContext, unit: NestedKind) -> RetrievedHits:
    """Return the chapters or passages of the page, with sources and explanations."""
    retrieved = await _rank(context, unit)
    hits = await read_sources(context, retrieved.hits, needed_source(context.request))
    hits = [hit if _nested_hit_exists(unit, hit) else hit._replace(source=None) for hit in hits]
    if context.request.needs_explanation and any("lexical" in hit.scores for hit in hits):
        hits = await _explain(context, unit, hits)
    return RetrievedHits(hits, retrieved.page, lexical_empty=retrieved.lexical_empty, read=True)


def _nested_hit_exists(unit: NestedKind, hit: Hit) -> bool:
    return hit.source is not None and has_nested_hit(unit, hit.number or 0, hit.source)


async def _rank(context: SearchContext, unit: NestedKind) -> RetrievedHits:
    """Rank the chapters or passages of all lists and cut the page out of the ranking."""
    request, page, modes = context.request, context.page, modes_of(context)
    # One hit more than the page shows whether another page follows.
    depth = depth_of(context) if len(modes) > 1 else request.size + (0 if page is None else page.begin + 1)
    answers = await send_lists(
        context.executor, [_nested_plan(context, mode, unit, depth) for mode in modes], context.stopwatch
    )
    hits_by_mode = {mode: answer["hits"]["hits"] for mode, answer in zip(modes, answers, strict=True)}
    lists = {}
    for mode, hits in hits_by_mode.items():
        scores = _scores(context, unit, hits, depth)
        lists[mode] = MergedList(scores, scores, len(modes) > 1 and len(scores) == depth)
    ranking = _limit_per_document(request.per_document, fuse(context, lists))
    marks = {hit["_id"]: hit.get("matched_queries", ()) for hits in hits_by_mode.values() for hit in hits}
    boosts = {key: marks[key[0]] for key, _ in ranking}
    physical = context.generation.physical
    page_hits, page = cut_page(context, ranking, lists, boosts, lambda key: (physical, *key))
    return RetrievedHits(page_hits, page, lexical_empty=hits_by_mode.get("lexical") == [])


def _nested_plan(context: SearchContext, mode: str, unit: NestedKind, depth: int) -> SearchPlan:
    """Build the list of the best chapters or passages of each document."""
    per_document = min(context.request.per_document or MAX_PER_DOCUMENT, depth)
    words = best_nested_query(_nested_query(context, mode, unit), unit, per_document)
    query = add_filter(words, context.selection.clauses, excluded_ids(context))
    # The boosts of a document apply to its chapters and passages, so hits always name their boosts.
    return SearchPlan(
        context.target, with_boosts(context, build_search_body(query, depth, False, context.timeout), named=True)
    )


def _nested_query(context: SearchContext, mode: str, unit: NestedKind) -> dict[str, Any]:
    return (
        sparse_nested_query(context.query, unit) if mode == "sparse" else field_query(context, nested_words_field(unit))
    )


def _scores(
    context: SearchContext, unit: NestedKind, hits: Sequence[Mapping[str, Any]], depth: int
) -> dict[NestedKey, float]:
    """Return the best `depth` chapters or passages of all documents, best first; ties by document and number."""
    scores = {}
    for hit in hits:
        factor = 1.0 if context.curated is None else context.curated.boost_factor(hit.get("matched_queries", ()))
        for number, nested_hit in read_best_nested(hit, unit):
            scores[hit["_id"], number] = float(nested_hit["_score"]) * factor
    return dict(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:depth])


def _limit_per_document(limit: int | None, ranking: Sequence[tuple[NestedKey, float]]) -> list[tuple[NestedKey, float]]:
    """Keep the best `limit` hits of each document: two lists may name different ones."""
    if limit is None:
        return list(ranking)
    counts: Counter[str] = Counter()
    kept = []
    for key, score in ranking:
        counts[key[0]] += 1
        if counts[key[0]] <= limit:
            kept.append((key, score))
    return kept


async def _explain(context: SearchContext, unit: NestedKind, hits: Sequence[Hit]) -> list[Hit]:
    """Return the hits with the contributions of words to their lexical scores."""
    documents = list(dict.fromkeys(hit.id for hit in hits if "lexical" in hit.scores))
    per_document = min(context.request.per_document or MAX_PER_DOCUMENT, depth_of(context) + 1)
    words = best_nested_query(_nested_query(context, "lexical", unit), unit, per_document, explained=True)
    query = {"bool": {"must": [words], "filter": [{"ids": {"values": documents}}]}}
    plan = SearchPlan(context.target, build_search_body(query, len(documents), False, context.timeout))
    (answer,) = await send_lists(context.executor, [plan], context.stopwatch)
    nested_hits = {
        (hit["_id"], number): nested_hit
        for hit in answer["hits"]["hits"]
        for number, nested_hit in read_best_nested(hit, unit)
    }

    def with_shares(hit: Hit) -> Hit:
        nested_hit = nested_hits.get((hit.id, hit.number or 0))
        if nested_hit is None or "lexical" not in hit.scores:
            return hit
        return hit._replace(shares=scaled_shares(context, hit, nested_hit))

    return [with_shares(hit) for hit in hits]
