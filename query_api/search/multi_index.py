"""Check a search of several indexes: the members that it takes, and declarations that the indexes must share.

Each index builds its lists with its own query table and fields. Indexes whose lists are the same are one search, with
the word statistics of all of them; the lists of the others are merged before they are fused (docs/decisions/0166).

Merge the lists of several indexes: which indexes are one search, and how the lists of the others become one.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

import orjson

from query_api.schemas.search_request import SearchRequest
from query_api.schemas.search_response import AcrossRequest
from query_api.search.context import SearchContext
from query_api.search.query_builder import list_body
from query_api.search.validation import check_request
from services.errors import InvalidInput
from services.index_spec import FieldType, IndexSpec, ScoreBy
from services.query.fusion import D
from services.settings import Settings

# A hit as OpenSearch returns it.
EngineHit = Mapping[str, Any]


def join_alike(contexts: Sequence[SearchContext], mode: str, size: int) -> Sequence[SearchContext]:
    """Join searches that send the same list for vectors of the same encoder: each result searches all their indexes."""
    if len(contexts) == 1:
        return contexts
    groups: dict[tuple[str, bytes], list[SearchContext]] = {}
    for one in contexts:
        vectors = "" if mode == "lexical" else one.generation.encoder.fingerprint
        groups.setdefault((vectors, orjson.dumps(list_body(one, mode, size, False))), []).append(one)
    return [replace(some[0], targets=tuple(one.generation.physical for one in some)) for some in groups.values()]


def has_several_encoders(searches: Sequence[SearchContext]) -> bool:
    """Whether sparse scores of the searches do not compare as they are."""
    return len({one.generation.encoder.fingerprint for one in searches}) > 1


def query_weight(context: SearchContext) -> float:
    """Return the divisor of scores where encoders differ.

    A score then is the mean weight that a document gives to the pieces of the query. Scaling each list to [0, 1] would
    make the best hit of every index equally good.
    """
    return sum(context.query.weights) or 1.0


@dataclass(frozen=True, slots=True)
class Merged(Generic[D]):
    """The list of one mode over all indexes, best first.

    `scores` as OpenSearch gave them, `scaled` on one scale. `full`: the list was cut at its depth.
    """

    scores: Mapping[D, float]
    scaled: Mapping[D, float]
    full: bool


def merge_lists(
    lists: Sequence[tuple[SearchContext, Sequence[EngineHit]]], mode: str, depth: int, key: Callable[[EngineHit], D]
) -> Merged[D]:
    """Return the best `depth` hits of one mode's lists. Scores of one encoder, and of BM25, compare as they are."""
    scores = {key(hit): float(hit["_score"]) for _, hits in lists for hit in hits}
    full = len(scores) > depth or any(len(hits) == depth for _, hits in lists)
    if not lists[0][0].targets:  # one index, whose list the engine has ordered
        return Merged(scores, scores, full)
    scaled = scores
    if mode == "sparse" and has_several_encoders([one for one, _ in lists]):
        scaled = {key(hit): scores[key(hit)] / query_weight(one) for one, hits in lists for hit in hits}
    best = dict(sorted(scaled.items(), key=lambda pair: (-pair[1], pair[0]))[:depth])
    return Merged({one: scores[one] for one in best}, best, full)


def engine_order(hits: Mapping[D, EngineHit], scaled: Mapping[D, float]) -> list[D]:
    """Return the keys of sorted hits of several searches in the order in which the engine puts equal values.

    That order is by score, or the latest first where nothing is scored; then the order of writing.
    """

    def tie(one: D) -> tuple[float, int, Hashable]:
        *_, last, number = hits[one]["sort"]
        return -scaled[one] if scaled else -last, number, one

    return sorted(hits, key=tie)


# The members that a search of several indexes takes. A new member of searches is refused until it is named here.
SUPPORTED_MEMBERS = {
    "indexes", "query", "mode", "size", "offset", "cursor", "weights", "candidates", "fusion", "prune", "two_phase",
    "context", "score_by", "passage", "highlight", "explain", "fields", "filter", "curation", "sort", "facets", "among",
    "did_you_mean", "learn",
}  # fmt: skip
_REASON = "several_indexes"


def check_across(request: AcrossRequest, settings: Settings) -> None:
    """Raise InvalidInput for a request that is refused before any index is looked up.

    Codes: `too_many_indexes`, `repeated_index`, `not_across_indexes`, and those of `limits.checked`.
    """
    check_request(request, settings)
    if len(request.indexes) > settings.max_indexes:
        raise InvalidInput("too_many_indexes", f"One search may be of {settings.max_indexes} indexes at most.")
    if len(set(request.indexes)) < len(request.indexes):
        raise InvalidInput("repeated_index", "`indexes` names an index twice.")
    if request.browses:
        raise InvalidInput("not_across_indexes", "Several indexes are searched with words; `query` is empty.")
    for name in sorted(request.model_fields_set - SUPPORTED_MEMBERS):
        if getattr(request, name) != type(request).model_fields[name].get_default(call_default_factory=True):
            raise InvalidInput("not_across_indexes", f"`{name}` is for a search of one index.")


def common_score_by(request: SearchRequest, specs: Sequence[IndexSpec]) -> ScoreBy:
    """Return the kind of sparse scores for all indexes: scores of windows and of whole documents do not compare.

    Raises InvalidInput (`not_scored_by`) when the indexes share no kind.
    """
    if request.score_by is not None:
        return request.score_by
    for by in specs[0].scored_by:
        if request.mode == "lexical" or all(by in spec.scored_by for spec in specs):
            return by
    raise InvalidInput(
        "not_scored_by",
        "Some of the indexes score by window and the others by document only: declare `windows` as both for one of "
        "these (sparsewell reindex --windows both).",
    )


def drop_incompatible_rules(contexts: Sequence[SearchContext]) -> list[SearchContext]:
    """Return the contexts with only those curation rules that hold for several indexes.

    A pin is a place in one index's ranking. A boost on a field that indexes declare as different types is left out: a
    search of a point in time asks every index, and an index whose dates are compared with a number refuses all of it.
    """
    mixed = _mixed_fields(contexts)

    def without(one: SearchContext) -> SearchContext:
        if one.curated is None:
            return one
        return replace(one, curated=one.curated.without_pins(_REASON).without_boosts_on(mixed, _REASON))

    return [without(one) for one in contexts]


def check_field_types(contexts: Sequence[SearchContext]) -> None:
    """Raise InvalidInput (`bad_sort`, `bad_facet`) for a field that two indexes declare as different types.

    The values of such a field have no common order, and are not the same values.
    """
    first = contexts[0]
    for code, where, kinds in (("bad_sort", "sort", _sort_types), ("bad_facet", "facets", _facet_types)):
        for other in contexts[1:]:
            here = kinds(first)
            for field, kind in kinds(other).items():
                if here[field] != kind:
                    raise InvalidInput(
                        code,
                        f"{where}: `{field}` is declared as {here[field]} in the index {first.generation.index!r} and "
                        f"as {kind} in {other.generation.index!r}; several indexes need it declared alike.",
                        where=where,
                    )


def _mixed_fields(contexts: Sequence[SearchContext]) -> set[str]:
    kinds: dict[str, FieldType] = {}
    mixed = set()
    for one in contexts:
        for field, kind in one.generation.spec.fields.items():
            if kinds.setdefault(field, kind) != kind:
                mixed.add(field)
    return mixed


def _sort_types(context: SearchContext) -> dict[str, FieldType]:
    return {by.field: by.kind for by in context.selection.sort if by.kind is not None}


def _facet_types(context: SearchContext) -> dict[str, FieldType]:
    return {facet.field: facet.kind for facet in context.selection.facets or ()}
