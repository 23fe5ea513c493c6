"""Which rules hold for a search: those of its index, those of the first page, those that somebody tries, or none."""

from query_api.parts import Parts
from query_api.search.curated import Curated
from query_api.search.part import Part
from query_api.search.request import SearchRequest
from services.curation.matching import Compiled
from services.index_spec import Generation


async def curated(
    parts: Parts, generation: Generation, request: SearchRequest, part: Part | None, proposed: Compiled | None
) -> Curated | None:
    """What the rules make of a request; None where there are none, or none are wanted.

    Raises BackendUnavailable (`curation_unavailable`, `curation_unreadable`), NotFound (`cursor_expired`).
    """
    if not request.curation:
        return None
    rules = proposed or parts.curations.of(generation)
    if part is not None:
        version = part.rules.setdefault(generation.index, 0 if rules is None else rules.version)
        if rules is None or rules.version != version:
            rules = await parts.curations.earlier(generation, version)
    return None if rules is None else Curated(rules.matched(request.query, parts.settings.max_query_pieces))
