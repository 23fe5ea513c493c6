"""Search of several indexes: which requests it takes, which indexes are one search, and how their lists merge.

Each index builds its lists with its own query table and fields. Indexes whose lists are equal become one search with
common word statistics; the lists of the others are merged before fusion (docs/decisions/0166). Sparse scores of
different encoders are divided by the weight of their query: min-max scaling of each list would make the best hit of
every index equally good.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Generic

import orjson

from query_api.schemas.search_request import MultiIndexRequest, SearchRequest
from query_api.search.context import SearchContext
from query_api.search.query_builder import list_body
from query_api.search.validation import check_request
from services.errors import InvalidInput
from services.index_spec import FieldType, IndexSpec, ScoreBy
from services.query.fusion import K
from services.settings import Settings

# A hit as OpenSearch returns it.
OpenSearchHit = Mapping[str, Any]
_score: Callable[[OpenSearchHit], float] = itemgetter("_score")
# The members that a search of several indexes supports. A new member is refused until it is named here.
SUPPORTED_MEMBERS = {
    "indexes", "query", "mode", "size", "offset", "cursor", "weights", "candidates", "fusion", "prune", "two_phase",
    "context", "score_by", "passage", "highlight", "explain", "fields", "filter", "curation", "sort", "facets", "among",
    "did_you_mean", "learn", "min_score", "total",
}  # fmt: skip
# Why rules are skipped in a search of several indexes.
_REASON = "several_indexes"


def check_multi_index(request: MultiIndexRequest, settings: Settings) -> None:
    """Raise InvalidInput for a request that is refused before any index is looked up.

    Codes: `too_many_indexes`, `repeated_index`, `not_across_indexes`, and those of `validation.check_request`.
    """
    check_request(request, settings)
    if len(request.indexes) > settings.max_indexes:
        raise InvalidInput("too_many_indexes", f"A search may name {settings.max_indexes} indexes at most.")
    if len(set(request.indexes)) < len(request.indexes):
        raise InvalidInput("repeated_index", "`indexes` names an index twice.")
    if request.browses:
        raise InvalidInput("not_across_indexes", "A search of several indexes needs words; `query` is empty.")
    for name in sorted(request.model_fields_set - SUPPORTED_MEMBERS):
        if getattr(request, name) != type(request).model_fields[name].get_default(call_default_factory=True):
            raise InvalidInput("not_across_indexes", f"`{name}` is for a search of one index.")


def common_score_by(request: SearchRequest, specs: Sequence[IndexSpec]) -> ScoreBy:
    """Return the kind of sparse scores for all indexes: scores of windows and of whole documents do not compare.

    Raises InvalidInput (`not_scored_by`) when the indexes share no kind.
    """
    if request.score_by is not None:
        return request.score_by
    for kind in specs[0].scored_by:
        if request.mode == "lexical" or all(kind in spec.scored_by for spec in specs):
            return kind
    raise InvalidInput(
        "not_scored_by",
        "Some of the indexes score by window only and others by document only: declare `windows` as both for some of "
        "them (sparsewell reindex --windows both).",
    )


def drop_incompatible_rules(contexts: Sequence[SearchContext]) -> list[SearchContext]:
    """Return the contexts without curation rules that do not hold for several indexes.

    A pin is a place in one index's ranking. A boost on a field that indexes declare as different types is dropped: a
    search of a point in time asks every index, and an index whose dates are compared with a number refuses the request.
    """
    mixed = _mixed_fields(contexts)

    def without(context: SearchContext) -> SearchContext:
        if context.curated is None:
            return context
        return replace(context, curated=context.curated.without_pins(_REASON).without_boosts_on(mixed, _REASON))

    return [without(context) for context in contexts]


def _mixed_fields(contexts: Sequence[SearchContext]) -> set[str]:
    """Return the fields that the indexes declare as different types."""
    kinds: dict[str, FieldType] = {}
    mixed = set()
    for context in contexts:
        for field, kind in context.generation.spec.fields.items():
            if kinds.setdefault(field, kind) != kind:
                mixed.add(field)
    return mixed


def check_field_types(contexts: Sequence[SearchContext]) -> None:
    """Raise InvalidInput (`bad_sort`, `bad_facet`) for a field that two indexes declare as different types.

    Values of different types have no common order and no common counts.
    """
    first = contexts[0]
    for code, where, types_of in (("bad_sort", "sort", _sort_types), ("bad_facet", "facets", _facet_types)):
        for context in contexts[1:]:
            expected = types_of(first)
            for field, kind in types_of(context).items():
                if expected[field] != kind:
                    raise InvalidInput(
                        code,
                        f"{where}: `{field}` is declared as {expected[field]} in the index {first.generation.index!r} "
                        f"and as {kind} in {context.generation.index!r}; all must declare it alike.",
                        where=where,
                    )


def _sort_types(context: SearchContext) -> dict[str, FieldType]:
    return {key.field: key.kind for key in context.selection.sort if key.kind is not None}


def _facet_types(context: SearchContext) -> dict[str, FieldType]:
    return {facet.field: facet.kind for facet in context.selection.facets or ()}


def join_alike(contexts: Sequence[SearchContext], mode: str, size: int) -> Sequence[SearchContext]:
    """Join the searches that send the same list for vectors of the same encoder.

    Each returned search is sent to all its indexes.
    """
    if len(contexts) == 1:
        return contexts
    groups: dict[tuple[str, bytes], list[SearchContext]] = {}
    for context in contexts:
        vectors = "" if mode == "lexical" else context.generation.encoder.fingerprint
        groups.setdefault((vectors, orjson.dumps(list_body(context, mode, size, False))), []).append(context)
    return [
        replace(members[0], targets=tuple(context.generation.physical for context in members))
        for members in groups.values()
    ]


def has_several_encoders(searches: Sequence[SearchContext]) -> bool:
    """Return whether sparse scores of the searches come from different encoders and do not compare as they are."""
    return len({search.generation.encoder.fingerprint for search in searches}) > 1


def query_weight(context: SearchContext) -> float:
    """Return the weight of the query, by which sparse scores are divided where encoders differ.

    A score then is the mean weight that a document gives to the pieces of the query.
    """
    return sum(context.query.weights) or 1.0


@dataclass(frozen=True, slots=True)
class MergedList(Generic[K]):
    """The list of one mode over all indexes, best first.

    `scores`: as OpenSearch returned them. `scaled`: on one scale. `full`: the list was cut at its depth.
    """

    scores: Mapping[K, float]
    scaled: Mapping[K, float]
    full: bool


def merge_lists(
    lists: Sequence[tuple[SearchContext, Sequence[OpenSearchHit]]],
    mode: str,
    depth: int,
    key: Callable[[OpenSearchHit], K],
) -> MergedList[K]:
    """Return the best `depth` hits of one mode's lists. BM25 scores, and scores of one encoder, compare as they are."""
    scores: dict[K, float] = {}
    for _, hits in lists:
        scores.update(zip(map(key, hits), map(_score, hits), strict=True))
    full = len(scores) > depth or any(len(hits) == depth for _, hits in lists)
    # OpenSearch has ordered the list of a single index.
    if not lists[0][0].targets:
        return MergedList(scores, scores, full)
    scaled = scores
    if mode == "sparse" and has_several_encoders([search for search, _ in lists]):
        scaled = {key(hit): scores[key(hit)] / query_weight(search) for search, hits in lists for hit in hits}
    best = dict(sorted(scaled.items(), key=lambda pair: (-pair[1], pair[0]))[:depth])
    return MergedList({document: scores[document] for document in best}, best, full)


def opensearch_order(hits: Mapping[K, OpenSearchHit], scaled: Mapping[K, float]) -> list[K]:
    """Return the keys of sorted hits of several searches in the order in which OpenSearch puts equal values.

    Equal values are in the order of their scores, or the latest first where nothing is scored; then in the order of
    writing.
    """

    def tie(document: K) -> tuple[float, int, Hashable]:
        *_, last, number = hits[document]["sort"]
        return -scaled[document] if scaled else -last, number, document

    return sorted(hits, key=tie)
