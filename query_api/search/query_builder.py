"""Build the bodies of the lists that OpenSearch is sent. All lists by score are built here, the reindex gate's too."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from query_api.schemas.search_request import SearchRequest, TwoPhaseSearch
from query_api.search.context import SearchContext
from query_api.search.sorting import build_sort
from query_api.search.validation import is_scored
from services.encoders.query_table import QueryVector
from services.opensearch.queries import (
    NOT_DELETED,
    Clause,
    KeywordField,
    PartKind,
    SearchPlan,
    add_filter,
    add_rescore,
    best_part_score_query,
    build_docvalue_fields,
    build_search_body,
    lexical_query,
    part_words_field,
    replace_scores,
    sparse_query,
)
from services.query.expansion import split_query

HYBRID = ("sparse", "lexical")
# The fields that say where, when and by whom a passage of talk is said; other documents lack them.
TALK_FIELDS = ("chapters", "segments", "url")
# A query of more words searches the whole talk only: the clauses of chapters and passages repeat each word, and
# OpenSearch takes 1,024 clauses.
MAX_TALK_WORDS = 200
# index.max_rescore_window
_MAX_RESCORE_WINDOW = 10_000
_EMPTY_QUERY = QueryVector((), (), 0)


@dataclass(frozen=True, slots=True)
class Phases:
    """The two phases of a sparse list.

    `head` finds documents. `tail` is added to the scores of the best `window` of each shard; empty: one phase.
    """

    head: QueryVector
    tail: QueryVector = _EMPTY_QUERY
    window: int = 0


def split_phases(context: SearchContext, size: int) -> Phases:
    """Split the query of a list of `size` hits into phases. A query of heavy pieces alone has one phase.

    A list that is continued by position has one phase: OpenSearch cannot continue after a hit of a rescored list. So
    has a list under a filter: heavy pieces find too few of the documents that it leaves, and the second request made it
    1.8 times as slow (a filter of one in 1,000 of 60,000 documents, docs/decisions/0151).
    """
    wanted, settings, page = context.request.two_phase, context.settings, context.page
    if wanted is False or context.request.filter is not None or (page is not None and page.by_position):
        return Phases(context.query)
    given = wanted if isinstance(wanted, TwoPhaseSearch) else TwoPhaseSearch.model_validate({})
    head, tail = split_query(context.query, given.threshold or settings.two_phase_threshold)
    # (a fused list is the same for every page of the ranking)
    reach = size if page is None or context.request.is_ranked_here else page.begin + size + 1
    return Phases(head, tail, min(max(given.window or settings.two_phase_window, reach), _MAX_RESCORE_WINDOW))


def too_few(plan: Mapping[str, Any], hits: Sequence[object]) -> bool:
    """Whether documents that only light pieces find are missing: then the list is asked for again in one phase.

    Heavy pieces that find so few have short postings, so they cost little.
    """
    return "rescore" in plan and len(hits) < plan["size"]


def in_one_phase(context: SearchContext) -> SearchContext:
    """Return the same search without a second phase."""
    return replace(context, request=context.request.model_copy(update={"two_phase": False}))


def needed_source(request: SearchRequest) -> list[str]:
    """Return the fields to read of each hit, and no more: texts and vectors are the largest part of a response."""
    needed: set[str] = {"state", *request.fields}
    if request.passage or request.explain or request.unit != "document":
        needed |= {"title", "text", "windows", *TALK_FIELDS}
    return sorted(needed)


def modes_of(context: SearchContext) -> tuple[str, ...]:
    """Return the lists that candidates come from."""
    return HYBRID if context.mode == "hybrid" else (context.mode,)


def depth_of(context: SearchContext) -> int:
    """Return the number of candidates of each list, which is the same on every page."""
    return context.page.depth if context.page is not None else max(context.request.candidates, context.request.size)


def list_plan(context: SearchContext, mode: str, search: dict[str, Any]) -> SearchPlan:
    """Address a body to one index, or to several that are searched alike: BM25 then counts words in all of them."""
    return SearchPlan(context.target, search, pooled=bool(context.targets) and mode == "lexical")


def words_query(context: SearchContext, mode: str) -> Clause:
    """Return the query of all documents that match the words; in the mode `browse`, of all documents."""
    match mode:
        case "sparse":
            return sparse_query(context.query, context.score_by)
        case "lexical":
            return lexical_clause(context)
        case "hybrid":
            return {"bool": {"should": [words_query(context, each) for each in HYBRID]}}
    return NOT_DELETED


def lexical_clause(context: SearchContext) -> Clause:
    """Return the clause that scores documents of the lexical list (keyword search by BM25)."""
    words, also = field_query(context, "lexical"), list(_talk_clauses(context))
    return {"bool": {"should": [words, *also]}} if also else words


def _talk_clauses(context: SearchContext) -> Iterator[Clause]:
    """Yield what chapter titles, the best chapter and the best passage add, as the index declares."""
    spec = context.generation.spec
    talk = spec.talk
    if talk is None or len(context.request.query.split()) > MAX_TALK_WORDS:
        return
    if talk.titles_in_keywords:
        yield {"bool": {"should": [field_query(context, "chapter_titles")], "boost": talk.titles_in_keywords}}
    factors: dict[PartKind, float] = {"chapter": talk.chapter_in_keywords}
    if "window" in spec.scored_by:
        factors["passage"] = talk.passage_in_keywords
    for part, factor in factors.items():
        if factor:
            yield best_part_score_query(field_query(context, part_words_field(part)), part, factor)


def field_query(context: SearchContext, field: KeywordField) -> Clause:
    """Return the clause that scores by the words of one field."""
    words, also, curated = context.request.query, context.carried, context.curated
    return lexical_query(words, also, field) if curated is None else curated.lexical(words, also, field)


def excluded_ids(context: SearchContext) -> Sequence[str]:
    """Return the ids of documents that no list may name."""
    if context.curated is None:
        return context.left_out
    return [*context.left_out, *context.curated.left_out(fused=context.request.is_ranked_here)]


def list_body(
    context: SearchContext,
    mode: str,
    size: int,
    source: Sequence[str] | bool,
    clauses: Sequence[Clause] | None = None,
) -> dict[str, Any]:
    """Build the body of one list by score. `clauses`: those of another filter than the request's."""
    clauses, hidden = context.selection.clauses if clauses is None else clauses, excluded_ids(context)
    if mode == "sparse":
        by = split_phases(context, size)
        query = add_filter(sparse_query(by.head, context.score_by), clauses, hidden)
        search = build_search_body(query, size, source, context.timeout)
        if by.tail.ids and context.score_by == "window":
            search = replace_scores(search, sparse_query(context.query, "window"), by.window)
        elif by.tail.ids:
            search = add_rescore(search, by.tail, by.window)
    else:
        search = build_search_body(
            add_filter(words_query(context, mode), clauses, hidden), size, source, context.timeout
        )
    return with_boosts(context, search)


def with_boosts(context: SearchContext, search: dict[str, Any], *, named: bool = False) -> dict[str, Any]:
    """Return a body of scored hits with the curation boosts. `named`: each hit names its boosts, as explanations do."""
    if context.curated is None:
        return search
    return context.curated.boosted(search, explained=named or context.request.explain)


def with_explanation(context: SearchContext, mode: str, search: dict[str, Any]) -> dict[str, Any]:
    """Return a lexical body with the engine's explanations, if the request needs them.

    Only shown hits are explained, not candidates: explaining costs far more than scoring (docs/decisions/0170).
    """
    if mode == "lexical" and context.request.asks_why:
        search["explain"] = True
    return search


def sorted_body(context: SearchContext, mode: str, size: int, source: Sequence[str] | bool) -> dict[str, Any]:
    """Build the body of one list in the order of the request, in one phase: OpenSearch does not rescore such a list."""
    chosen, scored = context.selection, is_scored(context.request)
    query = add_filter(words_query(context, mode), chosen.clauses, excluded_ids(context))
    search = build_search_body(query, size, source, context.timeout)
    search = with_boosts(context, search) if scored else search
    return search | {"sort": build_sort(chosen.sort, scored=scored)}


def explained_body(context: SearchContext, wanted: Clause, size: int, source: Sequence[str]) -> dict[str, Any]:
    """Build the body that reads `size` documents with the engine's explanation of their lexical scores.

    They are found by id, and the words only score them again, in one request with their sources. A filter beside the
    words would be one more clause than OpenSearch takes (1,024 words are as many as it does), and a shard without any
    of the documents would not be asked for its statistics of the words.
    """
    search = build_search_body({"bool": {"filter": [wanted]}}, size, source, context.timeout)
    return with_explanation(
        context, "lexical", with_boosts(context, replace_scores(search, lexical_clause(context), size))
    )


def candidates_plan(
    context: SearchContext, mode: str, size: int, clauses: Sequence[Clause] | None = None
) -> SearchPlan:
    """Build a list of candidates: ids and scores, and the values that hits are sorted and counted by."""
    search = list_body(context, mode, size, False, clauses)
    if context.selection.columns:
        search["docvalue_fields"] = build_docvalue_fields(context.selection.columns)
    return list_plan(context, mode, search)
