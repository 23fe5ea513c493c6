"""Merge the lists of several indexes: which indexes are one search, and how the lists of the others become one."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

import orjson

from query_api.search.context import SearchContext
from query_api.search.query_builder import list_body
from services.fusion import D

# A hit as OpenSearch returns it.
EngineHit = Mapping[str, Any]


def alike(contexts: Sequence[SearchContext], mode: str, size: int) -> Sequence[SearchContext]:
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


def merge(
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
