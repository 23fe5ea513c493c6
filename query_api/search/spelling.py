"""What may have been meant by a query of which the keyword list found nothing: words of the index that are near.

Asked only then, so it costs no other search anything, and never instead of an answer: whatever goes wrong here, or
takes too long, the answer comes without a suggestion. The query itself is not changed, nor searched for again.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from query_api.search.asked import Asked
from query_api.search.bodies import left_out
from query_api.search.engine import whole
from services.errors import SparsewellError
from services.opensearch.queries import Plan
from services.opensearch.spelling import documents_body, merged, near_body, read_documents, read_near
from services.opensearch.suggestions import spelling_field
from services.spelling import Correction, corrected, corrections
from services.telemetry.metrics import SEARCH_FALLBACKS


async def did_you_mean(each: Sequence[Asked]) -> dict[str, Any]:
    """What an answer says of it, nothing where nothing comes to mind, of a search of one index or several.

    Every word that is suggested is in documents that the search may find, under its filter.
    """
    asked = each[0]
    request = asked.request
    # (which words an index lacks tells of all its documents)
    known = [one for one in each if one.generation.suggests and one.parts.who.filter is None]
    if not (asked.unmatched and request.did_you_mean and request.is_first and known):
        return {}
    words: list[Correction] = []
    try:
        async with asyncio.timeout((asked.timeout - asked.watch.passed) / 2):
            words = await _words(known, request.query)
    except (SparsewellError, TimeoutError) as error:
        SEARCH_FALLBACKS.labels("spelling", error.code if isinstance(error, SparsewellError) else "timeout").inc()
    asked.watch.lap("opensearch")
    if not words:
        return {}
    said = {"query": corrected(request.query, words), "words": [asdict(word) for word in words]}
    return {"did_you_mean": said}


async def _words(each: Sequence[Asked], query: str) -> list[Correction]:
    asked = each[0]
    fields = [spelling_field(one.generation.spec) for one in each]
    physical = [one.generation.physical for one in each]
    plans = [Plan(index, near_body(field, query, asked.timeout)) for index, field in zip(physical, fields, strict=True)]
    answers = await asked.engine.lists(plans)
    for answer in answers:
        whole(answer, asked.watch)
    unknown = merged(read_near(answer, query) for answer in answers)
    if not unknown:
        return []
    terms = list(dict.fromkeys(term for word in unknown for term in (word.term, *word.near)))
    plans = [
        Plan(index, documents_body(field, terms, one.selection.clauses, left_out(one), asked.timeout))
        for one, index, field in zip(each, physical, fields, strict=True)
    ]
    documents: Counter[str] = Counter()
    for answer in await asked.engine.lists(plans):
        whole(answer, asked.watch)
        documents.update(read_documents(answer, terms))
    return corrections(query, unknown, documents)
