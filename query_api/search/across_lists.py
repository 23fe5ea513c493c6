"""The lists of several indexes: which of them are one search, and how those that are not are put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from query_api.search.asked import Asked, Found
from query_api.search.bodies import depth_of, list_body, modes_of, plan
from query_api.search.engine import Key
from query_api.search.lists import Ranked, answers_of, shown
from query_api.search.phases import in_one_phase, too_few
from services.fusion import fuse

Scores = dict[Key, float]


def alike(each: Sequence[Asked], mode: str, size: int) -> list[Asked]:
    """The searches that differ: those that ask a list of the same vectors in the same words are one, of all their
    indexes.
    """
    found: dict[tuple[str, bytes], list[Asked]] = {}
    for asked in each:
        vectors = asked.generation.encoder.fingerprint if mode == "sparse" else ""
        found.setdefault((vectors, orjson.dumps(list_body(asked, mode, size, False))), []).append(asked)
    return [replace(some[0], across=tuple(one.generation.physical for one in some)) for some in found.values()]


async def put_together(each: Sequence[Asked]) -> list[Found]:
    """The ranking that is asked for, best first, without sources: hybrid, or one mode that takes several searches."""
    asked = each[0]
    modes, depth = modes_of(asked), depth_of(asked)
    if asked.part is not None:
        asked.part.by_place = False  # what is put together here has no place in the engine's order
    searched = await _searched([(mode, one) for mode in modes for one in alike(each, mode, depth)], depth)
    lists = {mode: _best([one for one in searched if one.mode == mode], depth) for mode in modes}
    asked.unmatched = "lexical" in lists and not lists["lexical"].scores
    scaled = {mode: one.scaled for mode, one in lists.items()}
    if len(modes) > 1:
        ranked = fuse(scaled, asked.request.weights.model_dump(), asked.request.chosen_fusion())
    else:
        ranked = sorted(scaled[modes[0]].items(), key=_by_score)
    scores = {mode: one.scores for mode, one in lists.items()}
    explanations = {key: why for one in searched for key, why in one.explanations.items()}
    full = any(one.full for one in lists.values())
    boosts = {key: marks for one in searched for key, marks in one.boosts.items()}
    return shown(asked, ranked, Ranked(scores, scaled, explanations, full, boosts))


@dataclass(frozen=True, slots=True)
class _Searched:
    """What one search found; `vectors`: the fingerprint of the encoder that its scores are of; `weight`: the query's,
    summed over its pieces; `boosts` as in `Ranked`.
    """

    mode: str
    vectors: str
    weight: float
    scores: Scores
    explanations: Mapping[Key, Any]
    boosts: Mapping[Key, Sequence[str]]


async def _searched(searches: Sequence[tuple[str, Asked]], depth: int) -> list[_Searched]:
    """All lists at once, and once more those of two phases that found too few."""
    asked = searches[0][1]
    plans = [plan(one, mode, list_body(one, mode, depth, False)) for mode, one in searches]
    lists = [answer["hits"]["hits"] for answer in await answers_of(asked, plans)]
    if short := [at for at, hits in enumerate(lists) if too_few(plans[at].body, hits)]:
        again = [(searches[at][0], in_one_phase(searches[at][1])) for at in short]
        found = await answers_of(asked, [plan(one, mode, list_body(one, mode, depth, False)) for mode, one in again])
        for at, answer in zip(short, found, strict=True):
            lists[at] = answer["hits"]["hits"]
    return [
        _Searched(
            mode,
            one.generation.encoder.fingerprint,
            sum(one.query.weights) or 1.0,
            {(hit["_index"], hit["_id"]): float(hit["_score"]) for hit in hits},
            {(hit["_index"], hit["_id"]): hit["_explanation"] for hit in hits if "_explanation" in hit},
            {(hit["_index"], hit["_id"]): hit["matched_queries"] for hit in hits if "matched_queries" in hit},
        )
        for (mode, one), hits in zip(searches, lists, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Best:
    """The list of one mode over all indexes. `scaled`: its scores on one scale; `full`: it was cut at its depth."""

    scores: Scores
    scaled: Scores
    full: bool


def _best(searched: Sequence[_Searched], depth: int) -> _Best:
    """The best `depth` of all. Scores of the same encoder, and of BM25, compare as they are.

    Those of different encoders are taken over the weight of their query: what is left is the mean weight that a
    document gives to the query's pieces. Scaling each list to [0, 1] would make the best of every index equally good.
    """
    several = searched[0].mode == "sparse" and len({one.vectors for one in searched}) > 1
    scores = {key: score for one in searched for key, score in one.scores.items()}
    scaled = {key: score / one.weight for one in searched for key, score in one.scores.items()} if several else scores
    best = dict(sorted(scaled.items(), key=_by_score)[:depth])
    full = len(scores) > depth or any(len(one.scores) == depth for one in searched)
    return _Best({key: scores[key] for key in best}, best, full)


def _by_score(one: tuple[Key, float]) -> tuple[float, Key]:
    return -one[1], one[0]
