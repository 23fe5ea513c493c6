"""What a request says beside its words: which documents may be found at all."""

from dataclasses import dataclass

from query_api.search.request import SearchRequest
from services.errors import InvalidInput
from services.filters.reading import FilterLimits, read_filter
from services.filters.tree import Filter
from services.index_spec import IndexSpec
from services.opensearch.filter_clauses import Clause, filter_clauses
from services.settings import Settings


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of a request that was held against the declaration of the index. `clauses` say the filter."""

    filter: Filter | None = None
    clauses: tuple[Clause, ...] = ()


EVERYTHING = Selection()


def selection(request: SearchRequest, spec: IndexSpec, settings: Settings) -> Selection:
    """Reads a request against an index.

    Raises InvalidInput: what `read_filter` raises, `undeclared_metadata` for a field to return, and `not_scored_by`.
    """
    if request.score_by is not None and request.score_by not in spec.scored_by:
        wanted = "nested" if request.score_by == "window" else "merged"
        raise InvalidInput(
            "not_scored_by",
            f"The index has no vectors to score by {request.score_by} (its `windows` are {spec.windows}): "
            f"sparsewell reindex --windows both (or {wanted}) copies them from what is stored.",
        )
    for name in request.fields:
        field = name.removeprefix("metadata.")
        if field != name and field not in spec.fields:
            known = ", ".join(sorted(spec.fields)) or "none"
            raise InvalidInput(
                "undeclared_metadata", f"fields: the index declares no metadata field {field!r} (declared: {known})."
            )
    if request.filter is None:
        return EVERYTHING
    limits = FilterLimits(settings.max_filter_depth, settings.max_filter_conditions, settings.max_filter_values)
    tree = read_filter(request.filter, spec.fields, limits)
    return Selection(tree, tuple(filter_clauses(tree)))
