"""Which rules hold for a search: those of its index, those of the first page, those that somebody tries, or none."""

from query_api.parts import Parts
from query_api.search.curated import Curated
from query_api.search.part import Part
from query_api.search.request import SearchRequest
from query_api.search.selection import is_scored, limits_of
from services.curation.boosts import Factor, factors, filter_name
from services.curation.matching import Compiled
from services.curation.rules import Rules
from services.filters.reading import FilterLimits
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
    if rules is None:
        return None
    made = Curated(rules.matched(request.query, parts.settings.max_query_pieces))
    if is_scored(request):
        _weigh(made, rules.rules, generation, request, limits_of(parts.settings))
    return made


def _weigh(made: Curated, rules: Rules, generation: Generation, request: SearchRequest, limits: FilterLimits) -> None:
    """Adds what rules say of documents and of fields, whatever the words are. An earlier generation, or a later one,
    may lack what they are about.
    """
    fitted = list(factors(rules, generation.spec.fields, limits)) if rules.boosts else []
    made.boosts = [one for one in fitted if isinstance(one, Factor)]
    for number, one in enumerate(fitted):
        if isinstance(one, Factor):
            made.matched.applied.append({"kind": "boost", "rule": number, "matched": one.name})
        else:
            made.matched.skip("boost", number, filter_name(rules.boosts[number].filter), "unfit")
    if rules.fields.title == 1 or request.mode == "sparse":
        return
    if request.unit != "document":
        made.matched.skip("field", 0, "title", "by_unit")
    elif generation.titles:
        made.title = rules.fields.title
        made.matched.applied.append({"kind": "field", "rule": 0, "matched": "title"})
    else:
        made.matched.skip("field", 0, "title", "unfit")
