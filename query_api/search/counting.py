"""What is asked of OpenSearch to count facets beside the hits of a search, and what is read out of the answers.

Among all that matches, one search without hits and scores counts in the engine. Among candidates, the lists that hits
are taken of bring the values along, and they are counted here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from query_api.search.asked import Asked
from query_api.search.bodies import candidates_plan, depth_of, left_out, modes_of, plan, words_query
from query_api.search.engine import Answer, Key
from query_api.search.facet_counts import aggregation, read_tally, shown_counts, tally
from query_api.search.facets import Counted
from query_api.search.selection import Selection
from services.filters.tree import Filter, without
from services.opensearch.field_values import Values, read_values
from services.opensearch.filter_clauses import Clause, filter_clauses
from services.opensearch.queries import Plan, body, filtered

Maker = Callable[[Asked], Plan]

_ALL = "_all"  # no field is called so


@dataclass(frozen=True, slots=True)
class Group:
    """Facets that count the same documents: those that these clauses leave."""

    clauses: tuple[Clause, ...]
    facets: tuple[Counted, ...]


def groups(selection: Selection) -> list[Group]:
    """The facets by what they count; first those under the whole filter, which may be none."""
    by_filter: dict[Filter | None, list[Counted]] = {selection.filter: []}
    for facet in selection.facets or ():
        by_filter.setdefault(_filter_of(facet, selection.filter), []).append(facet)
    return [Group(tuple(filter_clauses(tree)), tuple(facets)) for tree, facets in by_filter.items()]


def count_among_matches(query: Clause, selection: Selection, timeout: float, *, partly: bool = False) -> dict[str, Any]:
    """The body of a search that counts facets over all that matches `query` and the filter; `partly` as in
    `aggregation`.

    What all groups demand narrows the search; what only some demand stands before their counts.
    """
    some = groups(selection)
    shared = [one for one in some[0].clauses if all(one in group.clauses for group in some)]
    counts: dict[str, Any] = {}
    for group in some:
        own = [one for one in group.clauses if one not in shared]
        inner = {facet.field: aggregation(facet, partly=partly) for facet in group.facets}
        if not own:
            counts |= inner
            continue
        if group is some[0]:
            inner[_ALL] = {"filter": {"match_all": {}}}
        counts |= {name: {"filter": {"bool": {"filter": own}}, "aggs": {name: one}} for name, one in inner.items()}
    return body(filtered(query, shared), 0, False, timeout) | {"track_total_hits": True, "aggs": counts}


def read_among_matches(answers: Sequence[Answer], selection: Selection, most: int) -> dict[str, Any]:
    """`facets` and `counted` of an answer, out of what was counted in one index or in several.

    Raises InvalidInput (`facet_too_fine`).
    """
    # a count that stood behind clauses of its own is one level deeper
    each = [{name: one.get(name, one) for name, one in found.get("aggregations", {}).items()} for found in answers]
    facets = {
        facet.field: shown_counts(facet, [read_tally(facet, counts[facet.field]) for counts in each], most)
        for facet in selection.facets or ()
    }
    documents = sum(
        counts[_ALL]["doc_count"] if _ALL in counts else found["hits"]["total"]["value"]
        for counts, found in zip(each, answers, strict=True)
    )
    return {"facets": facets, "counted": {"documents": documents, "among": "matches"}}


def read_among_candidates(
    found: Sequence[tuple[Group, Mapping[Key, Values]]], selection: Selection, most: int
) -> dict[str, Any]:
    """The same of candidates: each group with the values of its documents, the whole filter's first."""
    counts = {
        facet.field: shown_counts(facet, [tally(facet, documents.values())], most)
        for group, documents in found
        for facet in group.facets
    }
    facets = {facet.field: counts[facet.field] for facet in selection.facets or ()}
    return {"facets": facets, "counted": {"documents": len(found[0][1]), "among": "candidates"}}


def _filter_of(facet: Counted, tree: Filter | None) -> Filter | None:
    return without(tree, facet.field) if facet.ignore_own_filter else tree


def counting(asked: Asked, *, at_hand: bool = False) -> list[Maker]:
    """What is sent beside the hits to count facets; `at_hand`: the hits themselves are the candidates."""
    chosen = asked.selection
    if chosen.facets is None:
        return []
    if asked.request.chosen_among == "matches":
        return [counted_matches]
    return [
        partial(candidates_plan, mode=mode, size=depth_of(asked), clauses=group.clauses)
        for group in groups(chosen)[at_hand:]
        for mode in modes_of(asked)
    ]


def counts(asked: Asked, answers: Sequence[Answer], at_hand: Sequence[Answer] = ()) -> dict[str, Any]:
    """`facets` and `counted` of the answer, out of the answers to what `counting` made."""
    chosen, most = asked.selection, asked.parts.settings.max_facet_values
    if chosen.facets is None:
        return {}
    if asked.request.chosen_among == "matches":
        return read_among_matches(answers, chosen, most)
    lists = iter([*at_hand, *answers])
    documents = []
    for group in groups(chosen):
        some = [next(lists)["hits"]["hits"] for _ in modes_of(asked)]
        values = {(hit["_index"], hit["_id"]): read_values(hit, chosen.columns) for hits in some for hit in hits}
        documents.append((group, values))
    return read_among_candidates(documents, chosen, most)


def counted_matches(asked: Asked, *, partly: bool = False) -> Plan:
    """A search that counts among all that matches."""
    query = filtered(words_query(asked, asked.mode), (), left_out(asked))
    return plan(asked, asked.mode, count_among_matches(query, asked.selection, asked.timeout, partly=partly))
