"""The bodies of the lists that OpenSearch searches.

All lists by score are built here, for the API and for the reindex gate: sparse, lexical with the parts of talk, in one
or two phases, filtered, sorted, boosted and explained. Two phases serve only lists without a filter: under a filter of
one in 1,000 of 60,000 documents they made a search 1.8 times as slow (docs/decisions/0151).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from query_api.schemas.search_request import SearchRequest, TwoPhaseSearch
from query_api.search.context import SearchContext
from query_api.search.min_score import cut_sparse, required_words
from query_api.search.sorting import build_sort
from query_api.search.validation import is_scored
from services.encoders.query_table import QueryVector
from services.opensearch.analysis import blank_stop_words
from services.opensearch.queries import (
    NOT_DELETED,
    Clause,
    LexicalField,
    NestedKind,
    SearchPlan,
    add_filter,
    add_rescore,
    best_nested_score_query,
    build_docvalue_fields,
    build_search_body,
    lexical_query,
    nested_words_field,
    replace_scores,
    sparse_query,
)
from services.opensearch.stored_document import EARLIER_WINDOWS
from services.query.expansion import split_query

HYBRID = ("sparse", "lexical")
# The stored fields with place, time and speaker of a passage of talk; other documents lack them.
TALK_FIELDS = ("chapters", "segments", "url")
# The longest query, in words, that also scores chapters and passages of talk: their clauses repeat each word, and
# OpenSearch accepts 1,024 clauses.
MAX_TALK_WORDS = 200
# OpenSearch's index.max_rescore_window.
_MAX_RESCORE_WINDOW = 10_000
_EMPTY_QUERY = QueryVector((), (), 0)


def list_plan(context: SearchContext, mode: str, search: dict[str, Any]) -> SearchPlan:
    """Address a body to one index, or to several that are searched alike: BM25 then counts words over all of them."""
    return SearchPlan(context.target, search, pooled=bool(context.targets) and mode == "lexical")


def list_body(
    context: SearchContext,
    mode: str,
    size: int,
    source: Sequence[str] | bool,
    clauses: Sequence[Clause] | None = None,
) -> dict[str, Any]:
    """Build the body of one list by score. `clauses`: of another filter than the request's."""
    clauses = context.selection.clauses if clauses is None else clauses
    excluded = excluded_ids(context)
    if mode == "sparse":
        phases = split_phases(context, size)
        words = words_query(context, mode) if not phases.tail.ids else sparse_query(phases.head, context.score_by)
        query = add_filter(words, clauses, excluded)
        search = build_search_body(query, size, source, context.timeout)
        if phases.tail.ids and context.score_by == "window":
            search = replace_scores(search, sparse_query(context.query, "window"), phases.window)
        elif phases.tail.ids:
            search = add_rescore(search, phases.tail, phases.window)
    else:
        search = build_search_body(
            add_filter(words_query(context, mode), clauses, excluded), size, source, context.timeout
        )
    return with_boosts(context, search)


def candidates_plan(
    context: SearchContext, mode: str, size: int, clauses: Sequence[Clause] | None = None
) -> SearchPlan:
    """Build a list of candidates: ids and scores, and the values by which hits are sorted and counted."""
    search = list_body(context, mode, size, False, clauses)
    if context.selection.columns:
        search["docvalue_fields"] = build_docvalue_fields(context.selection.columns)
    return list_plan(context, mode, search)


def sorted_body(context: SearchContext, mode: str, size: int, source: Sequence[str] | bool) -> dict[str, Any]:
    """Build the body of one list in the request's order, in one phase: OpenSearch does not rescore a sorted list."""
    selection, scored = context.selection, is_scored(context.request)
    query = add_filter(words_query(context, mode), selection.clauses, excluded_ids(context))
    search = build_search_body(query, size, source, context.timeout)
    search = with_boosts(context, search) if scored else search
    return search | {"sort": build_sort(selection.sort, scored=scored)}


def explained_body(context: SearchContext, wanted: Clause, size: int, source: Sequence[str]) -> dict[str, Any]:
    """Build the body that reads `size` documents with OpenSearch's explanation of their lexical scores.

    The documents are found by id, and the words only rescore them, in one request with their sources. A filter beside
    the words would add a clause to a query that may already have all 1,024, and a shard without any of the documents
    would not contribute its word statistics.
    """
    search = build_search_body({"bool": {"filter": [wanted]}}, size, source, context.timeout)
    return with_explanation(
        context, "lexical", with_boosts(context, replace_scores(search, lexical_clause(context), size))
    )


def with_boosts(context: SearchContext, search: dict[str, Any], *, named: bool = False) -> dict[str, Any]:
    """Return a body of scored hits with the curation boosts. `named`: each hit names its boosts, as explanations do."""
    if context.curated is None:
        return search
    return context.curated.boost_query(search, explained=named or context.request.explain)


def with_explanation(context: SearchContext, mode: str, search: dict[str, Any]) -> dict[str, Any]:
    """Return a lexical body that asks for explanations, if the request needs them.

    Only hits that are shown are explained, not candidates: explaining costs far more than scoring
    (docs/decisions/0170).
    """
    if mode == "lexical" and context.request.needs_explanation:
        search["explain"] = True
    return search


def words_query(context: SearchContext, mode: str) -> Clause:
    """Return the query of all documents that match the words; in the mode `browse`, of all documents."""
    match mode:
        case "sparse":
            query, vector = sparse_query(context.query, context.score_by), context.query
            return cut_sparse(query, vector, context.table.manifest, context.request.min_score)
        case "lexical":
            required = required_words(searched_words(context), context.request.min_score)
            return add_filter(lexical_clause(context), required)
        case "hybrid":
            return {"bool": {"should": [words_query(context, each) for each in HYBRID]}}
    return NOT_DELETED


def lexical_clause(context: SearchContext) -> Clause:
    """Return the clause that scores documents of the lexical list by BM25."""
    words, talk_clauses = field_query(context, "lexical"), list(_talk_clauses(context))
    return {"bool": {"should": [words, *talk_clauses]}} if talk_clauses else words


def _talk_clauses(context: SearchContext) -> Iterator[Clause]:
    """Yield the clauses that add chapter titles, the best chapter and the best passage, as the index declares."""
    spec = context.generation.spec
    talk = spec.talk
    if talk is None or len(context.request.query.split()) > MAX_TALK_WORDS:
        return
    if talk.titles_in_lexical:
        yield {"bool": {"should": [field_query(context, "chapter_titles")], "boost": talk.titles_in_lexical}}
    factors: dict[NestedKind, float] = {"chapter": talk.chapter_in_lexical}
    if "window" in spec.scored_by:
        factors["passage"] = talk.passage_in_lexical
    for kind, factor in factors.items():
        if factor:
            yield best_nested_score_query(field_query(context, nested_words_field(kind)), kind, factor)


def field_query(context: SearchContext, field: LexicalField) -> Clause:
    """Return the clause that scores the words of one field. Question words have no part in it (English)."""
    words, context_words, curated = searched_words(context), context.context_words, context.curated
    return (
        lexical_query(words, context_words, field)
        if curated is None
        else curated.lexical_query(words, context_words, field)
    )


def searched_words(context: SearchContext) -> str:
    """Return the words of the query that the lexical list searches for."""
    words = context.request.query
    return blank_stop_words(words) if context.generation.spec.language == "english" else words


def excluded_ids(context: SearchContext) -> Sequence[str]:
    """Return the ids of documents that no list may name."""
    if context.curated is None:
        return context.excluded_ids
    return [*context.excluded_ids, *context.curated.excluded_ids(fused=context.request.is_ranked_by_api)]


@dataclass(frozen=True, slots=True)
class Phases:
    """The two phases of a sparse list.

    `head` finds documents. `tail` is added to the scores of the best `window` of each shard; an empty tail means one
    phase.
    """

    head: QueryVector
    tail: QueryVector = _EMPTY_QUERY
    window: int = 0


def split_phases(context: SearchContext, size: int) -> Phases:
    """Split the query of a list of `size` hits into phases. A query of heavy pieces alone has one phase.

    A list that is continued by position has one phase: OpenSearch cannot continue after a hit of a rescored list. A
    filtered list has one phase too: heavy pieces find too few of its documents, and the second request made the search
    1.8 times as slow (a filter of one in 1,000 of 60,000 documents, docs/decisions/0151).
    """
    two_phase, settings, page = context.request.two_phase, context.settings, context.page
    if two_phase is False or context.request.filter is not None or context.request.min_score is not None:
        return Phases(context.query)
    if page is not None and page.by_position:
        return Phases(context.query)
    parameters = two_phase if isinstance(two_phase, TwoPhaseSearch) else TwoPhaseSearch.model_validate({})
    head, tail = split_query(context.query, parameters.threshold or settings.two_phase_threshold)
    # A fused list is the same for every page of the ranking.
    reach = size if page is None or context.request.is_ranked_by_api else page.begin + size + 1
    return Phases(head, tail, min(max(parameters.window or settings.two_phase_window, reach), _MAX_RESCORE_WINDOW))


def too_few(plan: Mapping[str, Any], hits: Sequence[object]) -> bool:
    """Return whether a two-phase list may lack documents that only light pieces find.

    The list is then sent again in one phase. Heavy pieces that find so few documents have short postings, so the extra
    request costs little.
    """
    return "rescore" in plan and len(hits) < plan["size"]


def in_one_phase(context: SearchContext) -> SearchContext:
    """Return the same search without a second phase."""
    return replace(context, request=context.request.model_copy(update={"two_phase": False}))


def needed_source(request: SearchRequest) -> list[str]:
    """Return the stored fields that the response needs of each hit, and no more.

    Texts and vectors are the largest part of OpenSearch's answer.
    """
    needed: set[str] = {"state", *request.fields}
    if request.passage or request.explain or request.unit != "document":
        needed |= {"title", "text", "windows", *TALK_FIELDS}
    if request.explain:
        needed.add(EARLIER_WINDOWS)
    return sorted(needed)


def modes_of(context: SearchContext) -> tuple[str, ...]:
    """Return the modes of the lists that candidates come from."""
    return HYBRID if context.mode == "hybrid" else (context.mode,)


def depth_of(context: SearchContext) -> int:
    """Return the number of candidates of each list, which is the same on every page."""
    return context.page.depth if context.page is not None else max(context.request.candidates, context.request.size)
