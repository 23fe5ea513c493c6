"""What a request says of documents beside its words: which may be found, in what order, what is counted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from query_api.search.facets import Counted, checked_facets
from query_api.search.request import SearchRequest
from query_api.search.sorting import By, checked_sort
from query_api.search.units_form import checked_unit
from services.errors import InvalidInput
from services.filters.reading import FilterLimits, read_filter
from services.filters.tree import Filter
from services.index_spec import FieldType, IndexSpec
from services.opensearch.filter_clauses import Clause, filter_clauses
from services.settings import Settings


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of a request that was held against the declaration of the index.

    `clauses` say the filter. `facets` is None when nothing is counted. `columns`: the fields whose values are read
    beside a list of candidates, to be sorted or counted by.
    """

    filter: Filter | None = None
    clauses: tuple[Clause, ...] = ()
    sort: tuple[By, ...] = ()
    facets: tuple[Counted, ...] | None = None
    columns: Mapping[str, FieldType] = field(default_factory=dict)

    def only_filtered(self) -> "Selection":
        """The same documents, neither counted nor sorted."""
        return Selection(self.filter, self.clauses)


EVERYTHING = Selection()


def selection(request: SearchRequest, spec: IndexSpec, settings: Settings) -> Selection:
    """Reads a request against an index.

    Raises InvalidInput: what `read_filter`, `checked_sort` and `checked_facets` raise, `undeclared_metadata` for a
    field to return, `not_scored_by`, and `not_by_unit`.
    """
    checked_unit(request, spec)
    if request.score_by is not None and request.score_by not in spec.scored_by:
        wanted = "nested" if request.score_by == "window" else "merged"
        raise InvalidInput(
            "not_scored_by",
            f"The index has no vectors to score by {request.score_by} (its `windows` are {spec.windows}): "
            f"sparsewell reindex --windows both (or {wanted}) copies them from what is stored.",
        )
    for name in request.fields:
        _check_returned(name, spec)
    if request.filter is None and request.facets is None and not request.sort:
        return EVERYTHING
    tree = None if request.filter is None else filter_of(request.filter, spec, settings)
    scored = is_scored(request)
    sort = checked_sort(request.sort, spec.fields, scored=scored)
    facets = None if request.facets is None else checked_facets(request.facets, spec.fields, settings)
    columns: dict[str, FieldType] = {}
    if request.chosen_among == "candidates":
        columns = {by.field: by.kind for by in sort if by.kind is not None}
        columns |= {facet.field: facet.kind for facet in facets or ()}
    return Selection(tree, tuple(filter_clauses(tree)), sort, facets, columns)


def filter_of(value: Any, spec: IndexSpec, settings: Settings) -> Filter:
    """The filter that a request says. Raises InvalidInput as `read_filter` does."""
    return read_filter(value, spec.fields, limits_of(settings))


def limits_of(settings: Settings) -> FilterLimits:
    """How large a filter may be here."""
    return FilterLimits(settings.max_filter_depth, settings.max_filter_conditions, settings.max_filter_values)


def is_scored(request: SearchRequest) -> bool:
    """Whether hits have scores. Those of two lists are of one kind once they are fused, and only candidates are."""
    return not request.browses and not (request.sort and request.mode == "hybrid" and request.chosen_among == "matches")


def _check_returned(name: str, spec: IndexSpec) -> None:
    single = name.removeprefix("metadata.")
    if single != name and single not in spec.fields:
        known = ", ".join(sorted(spec.fields)) or "none"
        raise InvalidInput(
            "undeclared_metadata", f"fields: the index declares no metadata field {single!r} (declared: {known})."
        )
