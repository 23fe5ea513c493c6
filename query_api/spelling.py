"""Spelling: suggest words of the index for a query whose lexical list is empty.

A correction proposes the closest term of the index for a query word that the index lacks (optimal string alignment
distance). Other searches do not pay for it, and it never fails a response: after an error or half of the remaining
time, the response has no suggestion. The query itself is neither changed nor searched again.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from query_api.search.context import SearchContext
from query_api.search.executor import complete_hits
from query_api.search.query_builder import excluded_ids
from services.errors import SparsewellError
from services.opensearch.analysis import (
    UnknownWord,
    merge_unknown_words,
    read_similar_terms,
    read_term_counts,
    similar_terms_body,
    term_counts_body,
)
from services.opensearch.queries import SearchPlan
from services.telemetry.metrics import SEARCH_FALLBACKS

# Words of at least this length may differ by two edits, shorter ones by one.
_TWO_EDITS_CHARACTERS: Final = 6


@dataclass(frozen=True, slots=True)
class Correction:
    """A stretch of the query, characters `start` to `end` (exclusive), and its suggested replacement."""

    typed: str
    suggested: str
    start: int
    end: int


async def did_you_mean(contexts: Sequence[SearchContext]) -> dict[str, Any]:
    """Return the `did_you_mean` member of a response, if there is one, for a search whose lexical list is empty.

    Every suggested word occurs in documents that the search may find under its filter.
    """
    first = contexts[0]
    request = first.request
    if not (request.did_you_mean and request.is_first):
        return {}
    # A suggestion tells that no document of the index has a word, so document-level security allows no suggestion.
    searched = [context for context in contexts if context.generation.suggests and context.is_unrestricted]
    if not searched:
        return {}
    corrections: list[Correction] = []
    try:
        async with asyncio.timeout((first.timeout - first.stopwatch.passed) / 2):
            corrections = await _look_up_corrections(searched, request.query)
    except (SparsewellError, TimeoutError) as error:
        SEARCH_FALLBACKS.labels("spelling", error.code if isinstance(error, SparsewellError) else "timeout").inc()
    first.stopwatch.lap("opensearch")
    if not corrections:
        return {}
    member = {"query": apply_corrections(request.query, corrections), "words": [asdict(word) for word in corrections]}
    return {"did_you_mean": member}


async def _look_up_corrections(contexts: Sequence[SearchContext], query: str) -> list[Correction]:
    """Look up terms similar to unknown words, and the number of documents that have each."""
    first = contexts[0]
    fields = [context.generation.spec.spelling_field for context in contexts]
    physical = [context.generation.physical for context in contexts]
    names_and_fields = zip(physical, fields, strict=True)
    similar = [SearchPlan(index, similar_terms_body(field, query, first.timeout)) for index, field in names_and_fields]
    answers = await first.executor.lists(similar)
    for answer in answers:
        complete_hits(answer, first.stopwatch)
    unknown = merge_unknown_words(read_similar_terms(answer, query) for answer in answers)
    if not unknown:
        return []
    terms = list(dict.fromkeys(term for word in unknown for term in (word.term, *word.similar_terms)))
    plans = [
        SearchPlan(
            index, term_counts_body(field, terms, context.selection.clauses, excluded_ids(context), first.timeout)
        )
        for context, index, field in zip(contexts, physical, fields, strict=True)
    ]
    documents: Counter[str] = Counter()
    for answer in await first.executor.lists(plans):
        complete_hits(answer, first.stopwatch)
        documents.update(read_term_counts(answer, terms))
    return find_corrections(query, unknown, documents)


def find_corrections(query: str, unknown: Iterable[UnknownWord], documents: Mapping[str, int]) -> list[Correction]:
    """Return the closest term for each misspelt word that has one; at equal distance the term of most documents.

    `documents` maps a term to the number of visible documents that hold it. A word that occurs is not corrected.
    """
    corrections = []
    for word in unknown:
        if documents.get(word.term):
            continue
        max_edits = 2 if len(word.term) >= _TWO_EDITS_CHARACTERS else 1
        candidates = [
            (edit_distance(word.term, term), -documents[term], term)
            for term in word.similar_terms
            if documents.get(term)
        ]
        best = min(candidates, default=None)
        if best is not None and best[0] <= max_edits:
            corrections.append(Correction(query[word.start : word.end], best[2], word.start, word.end))
    return corrections


def apply_corrections(query: str, corrections: Sequence[Correction]) -> str:
    """Return the query with the corrections in place."""
    parts, at = [], 0
    for correction in corrections:
        parts += [query[at : correction.start], correction.suggested]
        at = correction.end
    return "".join([*parts, query[at:]])


def edit_distance(first: str, second: str) -> int:
    """Count the letters deleted, inserted, substituted or swapped with a neighbour (optimal string alignment)."""
    previous: list[int] = []
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, 1):
        before_previous, previous, row = previous, row, [i]
        for j, other in enumerate(second, 1):
            distance = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == second[j - 2] and first[i - 2] == other:
                distance = min(distance, before_previous[j - 2] + 1)
            row.append(distance)
    return row[-1]
