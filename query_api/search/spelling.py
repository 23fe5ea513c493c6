"""Suggest words of the index for a query whose lexical list is empty.

Other searches do not pay for it, and the response never fails for it: if anything goes wrong or takes too long, the
response comes without a suggestion. The query itself is neither changed nor searched for again.
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
from services.opensearch.suggestions import spelling_field
from services.query.suggest import Correction, apply_corrections, find_corrections
from services.telemetry.metrics import SEARCH_FALLBACKS


async def did_you_mean(contexts: Sequence[SearchContext], *, lexical_empty: bool) -> dict[str, Any]:
    """Return the `did_you_mean` member of a response, if there is one, for a search of one index or several.

    Every suggested word is in documents that the search may find, under its filter.
    """
    first = contexts[0]
    request = first.request
    if not (lexical_empty and request.did_you_mean and request.is_first):
        return {}
    # (the words that an index lacks tell of all its documents)
    known = [one for one in contexts if one.generation.suggests and one.reveals_others]
    if not known:
        return {}
    words: list[Correction] = []
    try:
        async with asyncio.timeout((first.timeout - first.watch.passed) / 2):
            words = await _find_corrections(known, request.query)
    except (SparsewellError, TimeoutError) as error:
        SEARCH_FALLBACKS.labels("spelling", error.code if isinstance(error, SparsewellError) else "timeout").inc()
    first.watch.lap("opensearch")
    if not words:
        return {}
    said = {"query": apply_corrections(request.query, words), "words": [asdict(word) for word in words]}
    return {"did_you_mean": said}


async def _find_corrections(contexts: Sequence[SearchContext], query: str) -> list[Correction]:
    first = contexts[0]
    fields = [spelling_field(one.generation.spec) for one in contexts]
    physical = [one.generation.physical for one in contexts]
    named = zip(physical, fields, strict=True)
    near = [SearchPlan(index, similar_terms_body(field, query, first.timeout)) for index, field in named]
    answers = await first.engine.lists(near)
    for answer in answers:
        complete_hits(answer, first.watch)
    unknown = merge_unknown_words(read_similar_terms(answer, query) for answer in answers)
    if not unknown:
        return []
    terms = list(dict.fromkeys(term for word in unknown for term in (word.term, *word.near)))
    plans = [
        SearchPlan(index, term_counts_body(field, terms, one.selection.clauses, excluded_ids(one), first.timeout))
        for one, index, field in zip(contexts, physical, fields, strict=True)
    ]
    documents: Counter[str] = Counter()
    for answer in await first.engine.lists(plans):
        complete_hits(answer, first.watch)
        documents.update(read_term_counts(answer, terms))
    return find_corrections(query, unknown, documents)
