"""The lists of several indexes: which of them are one search, and how those that are not are put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from query_api.search.asked import Asked, Found
from query_api.search.bodies import candidates_plan, depth_of, list_body, modes_of
from query_api.search.counting import (
    counted_matches,
    groups,
    read_among_candidates,
    read_among_matches,
)
from query_api.search.engine import Answer, Key
from query_api.search.lists import Ranked, answers_of, shown
from query_api.search.phases import in_one_phase, too_few
from query_api.search.sorting import ordered
from services.fusion import fuse
from services.opensearch.field_values import Values, read_values
from services.opensearch.queries import Plan

Scores = dict[Key, float]


def alike(each: Sequence[Asked], mode: str, size: int) -> list[Asked]:
    """The searches that differ: those that ask a list of the same vectors in the same words are one, of all their
    indexes.
    """
    found: dict[tuple[str, bytes], list[Asked]] = {}
    for asked in each:
        vectors = "" if mode == "lexical" else asked.generation.encoder.fingerprint
        found.setdefault((vectors, orjson.dumps(list_body(asked, mode, size, False))), []).append(asked)
    return [replace(some[0], across=tuple(one.generation.physical for one in some)) for some in found.values()]


async def put_together(each: Sequence[Asked]) -> list[Found]:
    """A ranking that is made here, without sources: hybrid, sorted among candidates, or one mode that takes several
    searches. What is counted is kept for the answer.
    """
    asked = each[0]
    modes, depth = modes_of(asked), depth_of(asked)
    if asked.part is not None:
        asked.part.by_place = False  # what is put together here has no place in the engine's order
    beside = counting_matches(each)
    # the lists of the filter as it is, and those that facets count that ignore a part of it
    filters = 1 if beside or asked.selection.facets is None else len(groups(asked.selection))
    wanted = [_Wanted(mode, one, n) for n in range(filters) for mode in modes for one in alike(each, mode, depth)]
    searched, counted = await _searched(wanted, depth, beside)
    lists = [
        {mode: _best([one for one in searched if (one.mode, one.filter) == (mode, n)], depth) for mode in modes}
        for n in range(filters)
    ]
    values = [{key: one.values[key] for one in some.values() for key in one.scores} for some in lists]
    if beside:
        keep_counts(asked, counted)
    elif asked.selection.facets is not None:
        among = list(zip(groups(asked.selection), values, strict=True))
        asked.counts.update(read_among_candidates(among, asked.selection, asked.parts.settings.max_facet_values))
    scaled = {mode: one.scaled for mode, one in lists[0].items()}
    asked.unmatched = "lexical" in modes and not lists[0]["lexical"].scores
    if len(modes) > 1:
        ranked = fuse(scaled, asked.request.weights.model_dump(), asked.request.chosen_fusion())
    else:
        ranked = sorted(scaled[modes[0]].items(), key=_by_score)
    ranked = ordered(ranked, asked.selection.sort, values[0])
    scores = {mode: one.scores for mode, one in lists[0].items()}
    boosts = {key: marks for one in searched for key, marks in one.boosts.items()}
    full = any(one.full for one in lists[0].values())
    return shown(asked, ranked, Ranked(scores, scaled, full, boosts))


def counting_matches(each: Sequence[Asked]) -> list[Plan]:
    """The searches that count facets among all that matches, if that is asked for."""
    asked = each[0]
    if asked.selection.facets is None or asked.request.chosen_among != "matches":
        return []
    some = alike(each, asked.mode, 0)
    return [counted_matches(one, partly=len(some) > 1) for one in some]


def keep_counts(asked: Asked, counted: Sequence[Answer]) -> None:
    """What the answers to `counting_matches` say, for the answer."""
    if counted:
        asked.counts.update(read_among_matches(counted, asked.selection, asked.parts.settings.max_facet_values))


def query_weight(asked: Asked) -> float:
    """What scores of different encoders are divided by: then they are the mean weight that a document gives to the
    pieces of the query. Scaling each list to [0, 1] would make the best of every index equally good.
    """
    return sum(asked.query.weights) or 1.0


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A list of some indexes; `filter`: number of the group of facets whose filter holds, 0 for the request's own."""

    mode: str
    asked: Asked
    filter: int

    def plan(self, depth: int) -> Plan:
        clauses = groups(self.asked.selection)[self.filter].clauses if self.filter else None
        return candidates_plan(self.asked, self.mode, depth, clauses)


@dataclass(frozen=True, slots=True)
class _Searched:
    """What one search found; `vectors`: the fingerprint of the encoder that its scores are of; `weight`: the query's,
    summed over its pieces; `boosts` as in `Ranked`; `values`: of the fields that are sorted and counted by.
    """

    mode: str
    filter: int
    vectors: str
    weight: float
    scores: Scores
    values: Mapping[Key, Values]
    boosts: Mapping[Key, Sequence[str]]


async def _searched(
    wanted: Sequence[_Wanted], depth: int, beside: Sequence[Plan]
) -> tuple[list[_Searched], list[Answer]]:
    """All lists at once, and once more those of two phases that found too few; and the answers to what goes beside."""
    asked = wanted[0].asked
    plans = [one.plan(depth) for one in wanted]
    answers = await answers_of(asked, [*plans, *beside])
    lists = [answer["hits"]["hits"] for answer in answers[: len(plans)]]
    if short := [at for at, hits in enumerate(lists) if too_few(plans[at].body, hits)]:
        again = [replace(wanted[at], asked=in_one_phase(wanted[at].asked)).plan(depth) for at in short]
        for at, answer in zip(short, await answers_of(asked, again), strict=True):
            lists[at] = answer["hits"]["hits"]
    return [_read(one, hits) for one, hits in zip(wanted, lists, strict=True)], answers[len(plans) :]


def _read(one: _Wanted, hits: Sequence[Mapping[str, Any]]) -> _Searched:
    keyed = {(hit["_index"], hit["_id"]): hit for hit in hits}
    return _Searched(
        one.mode,
        one.filter,
        one.asked.generation.encoder.fingerprint,
        query_weight(one.asked),
        {key: float(hit["_score"]) for key, hit in keyed.items()},
        {key: read_values(hit, one.asked.selection.columns) for key, hit in keyed.items()},
        {key: hit["matched_queries"] for key, hit in keyed.items() if "matched_queries" in hit},
    )


@dataclass(frozen=True, slots=True)
class _Best:
    """The list of one mode over all indexes. `scaled`: its scores on one scale; `full`: it was cut at its depth."""

    scores: Scores
    scaled: Scores
    full: bool
    values: Mapping[Key, Values]


def _best(searched: Sequence[_Searched], depth: int) -> _Best:
    """The best `depth` of all. Scores of the same encoder, and of BM25, compare as they are; see `query_weight`."""
    several = searched[0].mode == "sparse" and len({one.vectors for one in searched}) > 1
    scores = {key: score for one in searched for key, score in one.scores.items()}
    scaled = {key: score / one.weight for one in searched for key, score in one.scores.items()} if several else scores
    best = dict(sorted(scaled.items(), key=_by_score)[:depth])
    full = len(scores) > depth or any(len(one.scores) == depth for one in searched)
    values = {key: one for some in searched for key, one in some.values.items()}
    return _Best({key: scores[key] for key in best}, best, full, values)


def _by_score(one: tuple[Key, float]) -> tuple[float, Key]:
    return -one[1], one[0]
