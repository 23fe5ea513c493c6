"""Completes what somebody types, by the titles of an index: one request to OpenSearch, under a search's deadline."""

from collections.abc import Sequence
from typing import Any

from query_api.parts import Parts
from query_api.search.engine import whole
from query_api.search.limits import checked_size
from query_api.search.pipeline import in_time
from query_api.search.selection import filter_of
from query_api.search.short_form import read_short
from query_api.search.stopwatch import Stopwatch
from query_api.suggest_form import SuggestAddress
from services.index_spec import Generation
from services.opensearch.filter_clauses import Clause, filter_clauses
from services.opensearch.suggestions import titles_plan
from services.typed import cleaned, typed_parts

Suggestions = list[dict[str, Any]]


async def suggest(parts: Parts, index: str, asked: SuggestAddress) -> dict[str, Any]:
    """Answers a request.

    Raises InvalidInput (`query_too_long`, `size_too_large`, what `read_filter` raises), NotFound (`index_not_found`)
    and BackendUnavailable, as a search does.
    """
    typed = cleaned(asked.q)
    checked_size(asked.size, parts.settings)
    condition = read_short(asked.filter, (), ()).get("filter")

    async def of(near: bool) -> dict[str, Any]:
        generation = await parts.generation(index, near=near)
        clauses = [] if condition is None else filter_clauses(filter_of(condition, generation.spec, parts.settings))
        found: Suggestions = []
        if typed and generation.suggests:
            found = await _titles(parts, generation, typed, asked, clauses)
        return {"index": index, "q": asked.q, "suggestions": found, "titles": generation.suggests}

    return await in_time(parts, [index], of)


async def _titles(
    parts: Parts, generation: Generation, typed: str, asked: SuggestAddress, clauses: Sequence[Clause]
) -> Suggestions:
    """Titles of documents that a search for what was typed may show, and a search for the title itself too."""
    rules, most = parts.curations.of(generation), parts.settings.max_query_pieces
    hidden = () if rules is None else sorted(rules.matched(typed, most).hidden)
    size = asked.size if rules is None else 2 * asked.size
    plan = titles_plan(
        generation.physical, typed, size, clauses, hidden, parts.settings.search_timeout, fuzzy=asked.fuzzy
    )
    (answer,) = await parts.engine.lists([plan])
    found: Suggestions = []
    for hit in whole(answer, Stopwatch()):
        title = hit["_source"]["title"]
        if rules is None or hit["_id"] not in rules.matched(title, most).hidden:
            found.append(_shown(title, "title", typed, hit["_id"]))
    return found[: asked.size]


def _shown(text: str, kind: str, typed: str, document: str | None = None) -> dict[str, Any]:
    parts = [part._asdict() for part in typed_parts(text, typed)]
    return {"text": text, "kind": kind, "id": document, "typed": parts}
