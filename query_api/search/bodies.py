"""The bodies of the lists that OpenSearch is asked for."""

from collections.abc import Iterator, Sequence
from typing import Any

from query_api.search.asked import Asked
from query_api.search.phases import phases
from query_api.search.request import SearchRequest
from query_api.search.selection import is_scored
from query_api.search.sorting import engine_sort
from services.opensearch.field_values import value_columns
from services.opensearch.filter_clauses import ALIVE, Clause
from services.opensearch.part_queries import Part, best_part, words_field
from services.opensearch.queries import (
    KeywordField,
    Plan,
    body,
    filtered,
    lexical_query,
    rescored,
    scored_anew,
    sparse_query,
)

HYBRID = ("sparse", "lexical")
# What tells of a passage where and by whom it is said; other documents have nothing of it.
OF_TALK = ("chapters", "segments", "url")
# Words of a query from which on a talk is found by its words as a whole alone: each counts as often as it is asked for,
# and OpenSearch takes 1,024.
MOST_WORDS = 200


def needed_source(request: SearchRequest) -> list[str]:
    """What must be read of each hit, and no more: texts and vectors are the largest part of an answer."""
    needed: set[str] = {"state", *request.fields}
    if request.passage or request.explain or request.unit != "document":
        needed |= {"title", "text", "windows", *OF_TALK}
    return sorted(needed)


def modes_of(asked: Asked) -> tuple[str, ...]:
    """The lists that candidates are taken of."""
    return HYBRID if asked.mode == "hybrid" else (asked.mode,)


def depth_of(asked: Asked) -> int:
    """How many hits of each list are candidates: as many on every page as on the first."""
    return asked.part.depth if asked.part is not None else max(asked.request.candidates, asked.request.size)


def plan(asked: Asked, mode: str, search: dict[str, Any]) -> Plan:
    """One list of one index, or of several that are searched alike: BM25 then counts words in all of them."""
    return Plan(asked.target, search, pooled=bool(asked.across) and mode == "lexical")


def words_query(asked: Asked, mode: str) -> Clause:
    """All documents that match the words of a search; in the mode `browse` all there are."""
    match mode:
        case "sparse":
            return sparse_query(asked.query, asked.score_by)
        case "lexical":
            return keyword_query(asked)
        case "hybrid":
            return {"bool": {"should": [words_query(asked, each) for each in HYBRID]}}
    return ALIVE


def keyword_query(asked: Asked) -> Clause:
    """What scores the documents of the keyword list."""
    words, also = words_in(asked, "lexical"), list(_of_talk(asked))
    return {"bool": {"should": [words, *also]}} if also else words


def _of_talk(asked: Asked) -> Iterator[Clause]:
    """What the titles of chapters, the best chapter and the best passage add, as the index declares."""
    spec = asked.generation.spec
    talk = spec.talk
    if talk is None or len(asked.request.query.split()) > MOST_WORDS:
        return
    if talk.titles_in_keywords:
        yield {"bool": {"should": [words_in(asked, "chapter_titles")], "boost": talk.titles_in_keywords}}
    factors: dict[Part, float] = {"chapter": talk.chapter_in_keywords}
    if "window" in spec.scored_by:
        factors["passage"] = talk.passage_in_keywords
    for part, factor in factors.items():
        if factor:
            yield best_part(words_in(asked, words_field(part)), part, factor)


def words_in(asked: Asked, field: KeywordField) -> Clause:
    """What scores by the words of one field."""
    words, also = asked.request.query, asked.carried
    return lexical_query(words, also, field) if asked.curated is None else asked.curated.lexical(words, also, field)


def left_out(asked: Asked) -> Sequence[str]:
    """Ids of documents that no list may name."""
    if asked.curated is None:
        return asked.left_out
    return [*asked.left_out, *asked.curated.left_out(fused=asked.request.is_ranked_here)]


def list_body(
    asked: Asked, mode: str, size: int, source: Sequence[str] | bool, clauses: Sequence[Clause] | None = None
) -> dict[str, Any]:
    """The body of one list by score. Every such list of every search is made here, so what holds for all of them
    stands here. `clauses`: of another filter than the request's.
    """
    clauses, hidden = asked.selection.clauses if clauses is None else clauses, left_out(asked)
    if mode == "sparse":
        by = phases(asked, size)
        search = body(filtered(sparse_query(by.head, asked.score_by), clauses, hidden), size, source, asked.timeout)
        if by.tail.ids and asked.score_by == "window":
            search = scored_anew(search, sparse_query(asked.query, "window"), by.window)
        elif by.tail.ids:
            search = rescored(search, by.tail, by.window)
    else:
        search = body(filtered(words_query(asked, mode), clauses, hidden), size, source, asked.timeout)
    return boosted(asked, search)


def boosted(asked: Asked, search: dict[str, Any], *, named: bool = False) -> dict[str, Any]:
    """A body whose hits are scored, with the factors that the rules of the index give to documents. `named`: hits say
    which they have, as they do for those who ask why.
    """
    if asked.curated is None:
        return search
    return asked.curated.boosted(search, explained=named or asked.request.explain)


def explained(asked: Asked, mode: str, search: dict[str, Any]) -> dict[str, Any]:
    """With the engine's explanation of keyword scores, where somebody asks why: of hits that are shown, no candidates.
    Explaining costs far more than scoring (docs/decisions/0170).
    """
    if mode == "lexical" and asked.request.asks_why:
        search["explain"] = True
    return search


def sorted_body(asked: Asked, mode: str, size: int, source: Sequence[str] | bool) -> dict[str, Any]:
    """The body of one list in the order that is asked for, whole, in one phase: OpenSearch does not rescore what is
    sorted by fields.
    """
    chosen, scored = asked.selection, is_scored(asked.request)
    query = filtered(words_query(asked, mode), chosen.clauses, left_out(asked))
    search = body(query, size, source, asked.timeout)
    search = boosted(asked, search) if scored else search
    return search | {"sort": engine_sort(chosen.sort, scored=scored)}


def explained_body(asked: Asked, wanted: Clause, size: int, source: Sequence[str]) -> dict[str, Any]:
    """The body that reads so many `wanted` documents with the engine's explanation of their keyword scores.

    They are found by id and the words only score them again, in one request with their sources: a filter beside the
    words would be one condition more than OpenSearch takes (1,024 words are as many as it does), and a shard that has
    none of the documents would not be asked for its statistics of the words.
    """
    search = body({"bool": {"filter": [wanted]}}, size, source, asked.timeout)
    return explained(asked, "lexical", boosted(asked, scored_anew(search, keyword_query(asked), size)))


def candidates_plan(asked: Asked, mode: str, size: int, clauses: Sequence[Clause] | None = None) -> Plan:
    """A list of which nothing is shown as it is: ids and scores, and the values that are sorted and counted by."""
    search = list_body(asked, mode, size, False, clauses)
    if asked.selection.columns:
        search["docvalue_fields"] = value_columns(asked.selection.columns)
    return plan(asked, mode, search)
