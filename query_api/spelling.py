"""Spelling: suggest words of the index for a query whose lexical list is empty.

Other searches do not pay for it, and it never fails a response: after an error or half of the remaining time, the
response has no suggestion. The query itself is neither changed nor searched again.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from query_api.search.context import SearchContext
from query_api.search.executor import complete_hits
from query_api.search.query_builder import excluded_ids
from services.errors import SparsewellError
from services.opensearch.analysis import (
    merge_unknown_words,
    read_similar_terms,
    read_term_counts,
    similar_terms_body,
    term_counts_body,
)
from services.opensearch.queries import SearchPlan
from services.query.suggest import Correction, apply_corrections, find_corrections
from services.telemetry.metrics import SEARCH_FALLBACKS


async def did_you_mean(contexts: Sequence[SearchContext]) -> dict[str, Any]:
    """Return the `did_you_mean` member of a response, if there is one, for a search whose lexical list is empty.

    Every suggested word occurs in documents that the search may find under its filter.
    """
    first = contexts[0]
    request = first.request
    if not (request.did_you_mean and request.is_first):
        return {}
    # A word that the index lacks tells about all its documents: document-level security allows no suggestion.
    searched = [context for context in contexts if context.generation.suggests and context.is_unrestricted]
    if not searched:
        return {}
    corrections: list[Correction] = []
    try:
        async with asyncio.timeout((first.timeout - first.stopwatch.passed) / 2):
            corrections = await _find_corrections(searched, request.query)
    except (SparsewellError, TimeoutError) as error:
        SEARCH_FALLBACKS.labels("spelling", error.code if isinstance(error, SparsewellError) else "timeout").inc()
    first.stopwatch.lap("opensearch")
    if not corrections:
        return {}
    member = {"query": apply_corrections(request.query, corrections), "words": [asdict(word) for word in corrections]}
    return {"did_you_mean": member}


async def _find_corrections(contexts: Sequence[SearchContext], query: str) -> list[Correction]:
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
