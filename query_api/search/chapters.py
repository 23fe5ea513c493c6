"""Retrieve chapters of talk, or passages: several hits may be of one document.

A list is a search for documents by their best chapter or passage, with the best of each document. Lists are fused as
those of documents are. Then the documents of the hits are read, and their lexical scores explained on request.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from query_api.schemas.search_request import MAX_PER_DOCUMENT
from query_api.search.context import Hit, Retrieved, SearchContext
from query_api.search.executor import send_lists
from query_api.search.passages import has_part
from query_api.search.query_builder import depth_of, excluded_ids, field_query, modes_of, needed_source, with_boosts
from query_api.search.retrieval import read_sources, scaled_shares
from services.opensearch.queries import (
    PartKind,
    SearchPlan,
    add_filter,
    best_parts_query,
    build_search_body,
    part_words_field,
    read_best_parts,
    sparse_part_query,
)
from services.query.fusion import fuse_lists, fusion_shares

# The id of a document, and the number of the chapter or passage in it.
PartKey = tuple[str, int]


async def retrieve_parts(context: SearchContext, unit: PartKind) -> Retrieved:
    """Return the chapters or passages of the page, read and explained."""
    retrieved = await _rank(context, unit)
    hits = await read_sources(context, retrieved.hits, needed_source(context.request))
    hits = [one if _part_exists(unit, one) else one._replace(source=None) for one in hits]
    if context.request.asks_why and any("lexical" in one.scores for one in hits):
        hits = await _explain(context, unit, hits)
    return Retrieved(hits, retrieved.page, lexical_empty=retrieved.lexical_empty, read=True)


def _part_exists(unit: PartKind, hit: Hit) -> bool:
    return hit.source is not None and has_part(unit, hit.number or 0, hit.source)


async def _rank(context: SearchContext, unit: PartKind) -> Retrieved:
    request, page, modes = context.request, context.page, modes_of(context)
    # one hit more than is shown tells whether a page follows
    depth = depth_of(context) if len(modes) > 1 else request.size + (0 if page is None else page.begin + 1)
    answers = await send_lists(
        context.engine, [_part_plan(context, mode, unit, depth) for mode in modes], context.watch
    )
    hits = {mode: answer["hits"]["hits"] for mode, answer in zip(modes, answers, strict=True)}
    lists = {mode: _scores(context, unit, of_mode, depth) for mode, of_mode in hits.items()}
    if len(modes) > 1:
        ranking = _limit_per_document(
            request.per_document, fuse_lists(lists, request.weights.model_dump(), request.chosen_fusion())
        )
    else:
        ranking = list(lists[modes[0]].items())
    shown: Sequence[tuple[PartKey, float]] = ranking
    if page is not None:
        full = len(modes) > 1 and any(len(scores) == depth for scores in lists.values())
        shown, page = page.of_ranking(ranking, request.size, full=full)
    shown = shown[: request.size]
    why: Mapping[PartKey, Mapping[str, tuple[float, float]]] = {}
    if request.explain and len(modes) > 1:
        why = fusion_shares(lists, request.weights.model_dump(), request.chosen_fusion(), [key for key, _ in shown])
    marks = {hit["_id"]: hit.get("matched_queries", ()) for of_mode in hits.values() for hit in of_mode}
    context.watch.lap("fuse")
    found = [
        Hit(
            key[0],
            context.generation.physical,
            score,
            {mode: scores[key] for mode, scores in lists.items() if key in scores},
            fusion=why.get(key),
            number=key[1],
            boosts=marks[key[0]],
        )
        for key, score in shown
    ]
    return Retrieved(found, page, lexical_empty=hits.get("lexical") == [])


def _part_plan(context: SearchContext, mode: str, unit: PartKind, depth: int) -> SearchPlan:
    most = min(context.request.per_document or MAX_PER_DOCUMENT, depth)
    words = best_parts_query(_part_query(context, mode, unit), unit, most)
    query = add_filter(words, context.selection.clauses, excluded_ids(context))
    # (the factor of a document is that of its chapters and passages: the marks are always needed)
    return SearchPlan(
        context.target, with_boosts(context, build_search_body(query, depth, False, context.timeout), named=True)
    )


def _part_query(context: SearchContext, mode: str, unit: PartKind) -> dict[str, Any]:
    return sparse_part_query(context.query, unit) if mode == "sparse" else field_query(context, part_words_field(unit))


def _scores(
    context: SearchContext, unit: PartKind, hits: Sequence[Mapping[str, Any]], depth: int
) -> dict[PartKey, float]:
    """Return the best `depth` chapters or passages of all, best first, equal ones by document and number."""
    scores = {}
    for hit in hits:
        factor = 1.0 if context.curated is None else context.curated.factor(hit.get("matched_queries", ()))
        for number, one in read_best_parts(hit, unit):
            scores[hit["_id"], number] = float(one["_score"]) * factor
    return dict(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:depth])


def _limit_per_document(most: int | None, ranking: Sequence[tuple[PartKey, float]]) -> list[tuple[PartKey, float]]:
    """Keep `most` hits of each document: two lists may have named different ones."""
    if most is None:
        return list(ranking)
    shown: Counter[str] = Counter()
    kept = []
    for key, score in ranking:
        shown[key[0]] += 1
        if shown[key[0]] <= most:
            kept.append((key, score))
    return kept


async def _explain(context: SearchContext, unit: PartKind, hits: Sequence[Hit]) -> list[Hit]:
    """Return the hits with the contributions of words to their lexical scores."""
    named = list({one.id: 0 for one in hits if "lexical" in one.scores})
    most = min(context.request.per_document or MAX_PER_DOCUMENT, depth_of(context) + 1)
    words = best_parts_query(_part_query(context, "lexical", unit), unit, most, explained=True)
    query = {"bool": {"must": [words], "filter": [{"ids": {"values": named}}]}}
    plan = SearchPlan(context.target, build_search_body(query, len(named), False, context.timeout))
    (answer,) = await send_lists(context.engine, [plan], context.watch)
    found = {
        (hit["_id"], number): part for hit in answer["hits"]["hits"] for number, part in read_best_parts(hit, unit)
    }

    def with_shares(one: Hit) -> Hit:
        part = found.get((one.id, one.number or 0))
        if part is None or "lexical" not in one.scores:
            return one
        return one._replace(shares=scaled_shares(context, one, part))

    return [with_shares(one) for one in hits]
