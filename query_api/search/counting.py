"""Requests that count facets beside the hits of a search, and the counts in their answers.

Among all matches, one search without hits and scores counts in OpenSearch's aggregations. Among candidates, the lists
bring the values along, and the API counts them. `facets` has the counts of one facet.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from query_api.search.context import SearchContext
from query_api.search.executor import ListAnswer, send_lists
from query_api.search.facets import CheckedFacet, build_aggregation, count_facet, facet_counts, read_facet_counts
from query_api.search.multi_index import join_alike
from query_api.search.query_builder import (
    candidates_plan,
    depth_of,
    excluded_ids,
    in_one_phase,
    list_plan,
    modes_of,
    too_few,
    words_query,
)
from query_api.search.validation import Selection
from services.filters.tree import Filter, remove_field
from services.opensearch.queries import (
    Clause,
    FieldValues,
    SearchPlan,
    add_filter,
    build_filter_clauses,
    build_search_body,
    read_field_values,
)

# The request for one list: the search, and the builder of its body.
ListRequest = tuple[SearchContext, Callable[[SearchContext], SearchPlan]]
# Counting all matches of frequent words takes as long as scoring them.
MAX_TOTAL: Final = 10_000
# Aggregation that counts all matches under the whole filter; no field has this name.
_ALL_MATCHES = "_all"


@dataclass(frozen=True, slots=True)
class FacetGroup:
    """Facets that count the same documents: all documents that match these clauses."""

    clauses: tuple[Clause, ...]
    facets: tuple[CheckedFacet, ...]


def group_facets(selection: Selection) -> list[FacetGroup]:
    """Group facets by the documents that they count. The first group, which may be empty, is under the whole filter."""
    by_filter: dict[Filter | None, list[CheckedFacet]] = {selection.filter: []}
    for facet in selection.facets or ():
        by_filter.setdefault(_facet_filter(facet, selection.filter), []).append(facet)
    return [FacetGroup(tuple(build_filter_clauses(tree)), tuple(facets)) for tree, facets in by_filter.items()]


def _facet_filter(facet: CheckedFacet, tree: Filter | None) -> Filter | None:
    return remove_field(tree, facet.field) if facet.ignore_own_filter else tree


def match_count_requests(contexts: Sequence[SearchContext]) -> list[ListRequest]:
    """Return the requests that count facets among all matches; none where facets count candidates or nothing."""
    first = contexts[0]
    if first.selection.facets is None or first.request.chosen_among != "matches":
        return []
    searches = join_alike(contexts, first.mode, 0)
    return [(search, partial(_match_count_plan, partly=len(searches) > 1)) for search in searches]


def _match_count_plan(context: SearchContext, *, partly: bool = False) -> SearchPlan:
    query = add_filter(words_query(context, context.mode), (), excluded_ids(context))
    counting = count_among_matches(query, context.selection, context.timeout, partly=partly)
    return list_plan(context, context.mode, counting)


def count_among_matches(query: Clause, selection: Selection, timeout: float, *, partly: bool = False) -> dict[str, Any]:
    """Build the body that counts facets over all matches of `query` and the filter; `partly` as in `build_aggregation`.

    Clauses that all groups share narrow the search; clauses of single groups narrow the counts of those groups.
    """
    all_groups = group_facets(selection)
    shared = [clause for clause in all_groups[0].clauses if all(clause in group.clauses for group in all_groups)]
    counts: dict[str, Any] = {}
    for group in all_groups:
        group_clauses = [clause for clause in group.clauses if clause not in shared]
        aggregations = {facet.field: build_aggregation(facet, partly=partly) for facet in group.facets}
        if not group_clauses:
            counts |= aggregations
            continue
        if group is all_groups[0]:
            aggregations[_ALL_MATCHES] = {"filter": {"match_all": {}}}
        counts |= {
            name: {"filter": {"bool": {"filter": group_clauses}}, "aggs": {name: aggregation}}
            for name, aggregation in aggregations.items()
        }
    return build_search_body(add_filter(query, shared), 0, False, timeout) | {"track_total_hits": True, "aggs": counts}


def candidate_count_requests(context: SearchContext) -> list[ListRequest]:
    """Return the requests for the candidates that facets count; none where facets count matches or nothing."""
    if context.selection.facets is None or context.request.chosen_among == "matches":
        return []
    depth = depth_of(context)
    return [
        (context, partial(candidates_plan, mode=mode, size=depth, clauses=group.clauses))
        for group in group_facets(context.selection)
        for mode in modes_of(context)
    ]


async def count_total(contexts: Sequence[SearchContext]) -> dict[str, Any]:
    """Count the documents that match, under the filter and above `min_score`; return the member `total`.

    Counting ends at 10,000 in each search of indexes that are searched alike.
    """
    first = contexts[0]

    def plan(context: SearchContext) -> SearchPlan:
        query = add_filter(words_query(context, context.mode), context.selection.clauses, excluded_ids(context))
        body = build_search_body(query, 0, False, context.timeout) | {"track_total_hits": MAX_TOTAL}
        return list_plan(context, context.mode, body)

    plans = [plan(search) for search in join_alike(contexts, first.mode, 0)]
    totals = [answer["hits"]["total"] for answer in await send_lists(first.executor, plans, first.stopwatch)]
    exact = all(total["relation"] == "eq" for total in totals)
    return {"total": {"value": sum(total["value"] for total in totals), "relation": "eq" if exact else "gte"}}


async def send_requests(requests: Sequence[ListRequest]) -> list[ListAnswer]:
    """Send lists together. Two-phase lists with too few documents are sent again in one phase."""
    first = requests[0][0]
    plans = [build(context) for context, build in requests]
    answers = await send_lists(first.executor, plans, first.stopwatch)
    if incomplete := [n for n, answer in enumerate(answers) if too_few(plans[n].body, answer["hits"]["hits"])]:
        one_phase = [requests[n][1](in_one_phase(requests[n][0])) for n in incomplete]
        for n, answer in zip(incomplete, await send_lists(first.executor, one_phase, first.stopwatch), strict=True):
            answers[n] = answer
    return answers


def read_counts(context: SearchContext, answers: Sequence[ListAnswer]) -> dict[str, Any]:
    """Return `facets` and `counted` of a response from the answers to either kind of count requests."""
    selection, max_values = context.selection, context.settings.max_facet_values
    if selection.facets is None:
        return {}
    if context.request.chosen_among == "matches":
        return read_among_matches(answers, selection, max_values)
    lists = iter(answers)
    documents = []
    for group in group_facets(selection):
        hit_lists = [next(lists)["hits"]["hits"] for _ in modes_of(context)]
        values = {
            (hit["_index"], hit["_id"]): read_field_values(hit, selection.columns) for hits in hit_lists for hit in hits
        }
        documents.append((group, values))
    return read_among_candidates(documents, selection, max_values)


def read_among_matches(answers: Sequence[ListAnswer], selection: Selection, max_values: int) -> dict[str, Any]:
    """Return `facets` and `counted` of a response from the counts of one index or of several.

    Raises InvalidInput (`facet_too_fine`).
    """
    # A count behind clauses of its group is one level deeper.
    counts_by_answer = [
        {name: count.get(name, count) for name, count in answer.get("aggregations", {}).items()} for answer in answers
    ]
    facets = {
        facet.field: facet_counts(
            facet, [read_facet_counts(facet, counts[facet.field]) for counts in counts_by_answer], max_values
        )
        for facet in selection.facets or ()
    }
    documents = sum(
        counts[_ALL_MATCHES]["doc_count"] if _ALL_MATCHES in counts else answer["hits"]["total"]["value"]
        for counts, answer in zip(counts_by_answer, answers, strict=True)
    )
    return {"facets": facets, "counted": {"documents": documents, "among": "matches"}}


def read_among_candidates(
    groups: Sequence[tuple[FacetGroup, Mapping[Any, FieldValues]]], selection: Selection, max_values: int
) -> dict[str, Any]:
    """Return `facets` and `counted` from the candidates of each group; the first group is under the whole filter."""
    counts = {
        facet.field: facet_counts(facet, [count_facet(facet, documents.values())], max_values)
        for group, documents in groups
        for facet in group.facets
    }
    facets = {facet.field: counts[facet.field] for facet in selection.facets or ()}
    return {"facets": facets, "counted": {"documents": len(groups[0][1]), "among": "candidates"}}
