"""Count facets beside the hits of a search: the requests to OpenSearch and the counts in its answers.

Among all matches, one search without hits and scores counts in the engine. Among candidates, the lists that hits are
taken from bring the values along, and they are counted here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from query_api.search.context import SearchContext
from query_api.search.executor import ListAnswer, send_lists
from query_api.search.facets import CheckedFacet, build_aggregation, facet_counts, read_tally, tally_documents
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

# A list to ask for: the search, and the builder of its body.
ListRequest = tuple[SearchContext, Callable[[SearchContext], SearchPlan]]

_ALL_MATCHES = "_all"  # no field has this name


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


def count_among_matches(query: Clause, selection: Selection, timeout: float, *, partly: bool = False) -> dict[str, Any]:
    """Build the body that counts facets over all matches of `query` and the filter; `partly` as in `aggregation`.

    Clauses of all groups narrow the search; clauses of some groups narrow the counts of these.
    """
    some = group_facets(selection)
    shared = [one for one in some[0].clauses if all(one in group.clauses for group in some)]
    counts: dict[str, Any] = {}
    for group in some:
        own = [one for one in group.clauses if one not in shared]
        inner = {facet.field: build_aggregation(facet, partly=partly) for facet in group.facets}
        if not own:
            counts |= inner
            continue
        if group is some[0]:
            inner[_ALL_MATCHES] = {"filter": {"match_all": {}}}
        counts |= {name: {"filter": {"bool": {"filter": own}}, "aggs": {name: one}} for name, one in inner.items()}
    return build_search_body(add_filter(query, shared), 0, False, timeout) | {"track_total_hits": True, "aggs": counts}


def read_among_matches(answers: Sequence[ListAnswer], selection: Selection, most: int) -> dict[str, Any]:
    """Return `facets` and `counted` of a response from the counts of one index or of several.

    Raises InvalidInput (`facet_too_fine`).
    """
    # a count behind clauses of its own is one level deeper
    each = [{name: one.get(name, one) for name, one in found.get("aggregations", {}).items()} for found in answers]
    facets = {
        facet.field: facet_counts(facet, [read_tally(facet, counts[facet.field]) for counts in each], most)
        for facet in selection.facets or ()
    }
    documents = sum(
        counts[_ALL_MATCHES]["doc_count"] if _ALL_MATCHES in counts else found["hits"]["total"]["value"]
        for counts, found in zip(each, answers, strict=True)
    )
    return {"facets": facets, "counted": {"documents": documents, "among": "matches"}}


def read_among_candidates(
    found: Sequence[tuple[FacetGroup, Mapping[Any, FieldValues]]], selection: Selection, most: int
) -> dict[str, Any]:
    """Return the same for candidates: each group with the values of its documents, the whole filter's first."""
    counts = {
        facet.field: facet_counts(facet, [tally_documents(facet, documents.values())], most)
        for group, documents in found
        for facet in group.facets
    }
    facets = {facet.field: counts[facet.field] for facet in selection.facets or ()}
    return {"facets": facets, "counted": {"documents": len(found[0][1]), "among": "candidates"}}


def _facet_filter(facet: CheckedFacet, tree: Filter | None) -> Filter | None:
    return remove_field(tree, facet.field) if facet.ignore_own_filter else tree


async def send_requests(requests: Sequence[ListRequest]) -> list[ListAnswer]:
    """Send lists together; send those of two phases that found too few documents again, in one phase."""
    first = requests[0][0]
    plans = [build(one) for one, build in requests]
    found = await send_lists(first.engine, plans, first.watch)
    if short := [at for at, answer in enumerate(found) if too_few(plans[at].body, answer["hits"]["hits"])]:
        again = [requests[at][1](in_one_phase(requests[at][0])) for at in short]
        for at, answer in zip(short, await send_lists(first.engine, again, first.watch), strict=True):
            found[at] = answer
    return found


def match_count_requests(contexts: Sequence[SearchContext]) -> list[ListRequest]:
    """Return the requests that count facets among all matches; none where no facet is counted among them."""
    first = contexts[0]
    if first.selection.facets is None or first.request.chosen_among != "matches":
        return []
    searches = join_alike(contexts, first.mode, 0)
    return [(one, partial(_match_count_plan, partly=len(searches) > 1)) for one in searches]


def candidate_count_requests(context: SearchContext) -> list[ListRequest]:
    """Return the requests for the candidates that facets count; none where no facet is counted among candidates."""
    if context.selection.facets is None or context.request.chosen_among == "matches":
        return []
    depth = depth_of(context)
    return [
        (context, partial(candidates_plan, mode=mode, size=depth, clauses=group.clauses))
        for group in group_facets(context.selection)
        for mode in modes_of(context)
    ]


def read_counts(context: SearchContext, answers: Sequence[ListAnswer]) -> dict[str, Any]:
    """Return `facets` and `counted` of a response from answers to `match_counts` or `candidate_counts`."""
    chosen, most = context.selection, context.settings.max_facet_values
    if chosen.facets is None:
        return {}
    if context.request.chosen_among == "matches":
        return read_among_matches(answers, chosen, most)
    lists = iter(answers)
    documents = []
    for group in group_facets(chosen):
        some = [next(lists)["hits"]["hits"] for _ in modes_of(context)]
        values = {(hit["_index"], hit["_id"]): read_field_values(hit, chosen.columns) for hits in some for hit in hits}
        documents.append((group, values))
    return read_among_candidates(documents, chosen, most)


def _match_count_plan(context: SearchContext, *, partly: bool = False) -> SearchPlan:
    query = add_filter(words_query(context, context.mode), (), excluded_ids(context))
    counting = count_among_matches(query, context.selection, context.timeout, partly=partly)
    return list_plan(context, context.mode, counting)
