"""The lists of a search: what OpenSearch is asked for, and the hits out of its answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic

from query_api.search.asked import Asked, Found
from query_api.search.bodies import (
    candidates_plan,
    depth_of,
    explained,
    list_body,
    modes_of,
    needed_source,
    plan,
    sorted_body,
)
from query_api.search.counting import Maker, counting, counts
from query_api.search.engine import Answer, whole
from query_api.search.explain import keyword_shares
from query_api.search.phases import in_one_phase, too_few
from query_api.search.sorting import ordered
from services.fusion import D, fuse, parts
from services.opensearch.field_values import read_values
from services.opensearch.queries import Plan


async def one_list(asked: Asked) -> list[Found]:
    """The hits of a search that is one list of the engine's; with their sources and explanations, unless they are
    candidates of which not all are shown.
    """
    mode, part = asked.mode, asked.part
    answer, *counted = await _answers(asked, [_one_plan, *counting(asked)])
    asked.counts.update(counts(asked, counted))
    hits: Sequence[dict[str, Any]] = answer["hits"]["hits"]
    asked.unmatched = mode == "lexical" and not hits
    if part is not None:
        hits = part.of_list(answer["hits"], asked.room)
    return [
        Found(
            hit["_id"],
            hit["_score"] or 0.0,
            {} if hit["_score"] is None else {mode: hit["_score"]},
            hit.get("_source"),
            keyword_shares(hit["_explanation"]) if "_explanation" in hit else {},
            index=hit["_index"],
            boosts=hit.get("matched_queries", ()),
        )
        for hit in hits
    ]


def _one_plan(asked: Asked) -> Plan:
    size, chosen, later = asked.room, asked.selection, asked.request.is_read_later
    source = False if later else needed_source(asked.request)
    if chosen.sort or asked.request.browses:
        search = sorted_body(asked, asked.mode, size, source)
    else:
        search = list_body(asked, asked.mode, size, source)
    if not later:
        search = explained(asked, asked.mode, search)
    if asked.part is not None:
        asked.part.ask(search, size)
    return plan(asked, asked.mode, search)


async def two_lists(asked: Asked) -> list[Found]:
    """The hits of a ranking that is made here, without sources and explanations: see `reading`.

    Lists are fused (or one is taken as it is), and sorted if the request says by what.
    """
    modes, depth, chosen = modes_of(asked), depth_of(asked), asked.selection
    makers: list[Maker] = [partial(candidates_plan, mode=mode, size=depth) for mode in modes]
    answers = await _answers(asked, [*makers, *counting(asked, at_hand=True)])
    listed, counted = answers[: len(modes)], answers[len(modes) :]
    lists = {mode: answer["hits"]["hits"] for mode, answer in zip(modes, listed, strict=True)}
    asked.unmatched = lists.get("lexical") == []
    scores = {mode: {hit["_id"]: float(hit["_score"]) for hit in hits} for mode, hits in lists.items()}
    if len(modes) > 1:
        ranking = fuse(scores, asked.request.weights.model_dump(), asked.request.chosen_fusion())
    else:
        ranking = list(scores[modes[0]].items())
    if asked.curated is not None:
        ranking = asked.curated.unpinned(ranking)
    if chosen.sort:
        values = {hit["_id"]: read_values(hit, chosen.columns) for hits in lists.values() for hit in hits}
        ranking = ordered(ranking, chosen.sort, values)
    asked.counts.update(counts(asked, counted, listed))
    full = any(len(hits) == depth for hits in lists.values())
    matched = {hit["_id"]: hit.get("matched_queries", ()) for hits in lists.values() for hit in hits}
    return shown(asked, ranking, Ranked(scores, scores, full, matched))


@dataclass(frozen=True, slots=True)
class Ranked(Generic[D]):
    """The lists behind a ranking. `scores` of each as OpenSearch gave them, `scaled` as they are fused or compared;
    `full`: one was cut at its depth. `boosts`: marks of those that a document has, where somebody asks why.
    """

    scores: Mapping[str, Mapping[D, float]]
    scaled: Mapping[str, Mapping[D, float]]
    full: bool
    boosts: Mapping[D, Sequence[str]]


def shown(asked: Asked, ranking: Sequence[tuple[D, float]], lists: Ranked[D]) -> list[Found]:
    """What is asked for of a whole ranking, without sources."""
    if asked.part is not None:
        ranking = asked.part.of_fused(ranking, asked.room, full=lists.full)
    ranking = ranking[: asked.room]
    fusion: Mapping[D, Mapping[str, tuple[float, float]]] = {}
    if asked.request.explain and len(lists.scaled) > 1:
        weights, method = asked.request.weights.model_dump(), asked.request.chosen_fusion()
        fusion = parts(lists.scaled, weights, method, [key for key, _ in ranking])
    found = []
    for key, score in ranking:
        index, document = ("", key) if isinstance(key, str) else key
        own = {mode: listed[key] for mode, listed in lists.scores.items() if key in listed}
        boosts = lists.boosts.get(key, ())
        found.append(Found(document, score, own, fusion=fusion.get(key), index=index, boosts=boosts))
    asked.watch.lap("fuse")
    return found


async def _answers(asked: Asked, makers: Sequence[Maker]) -> list[Answer]:
    """The answers to what these make, sent together; once more for lists of two phases that found too few."""
    plans = [make(asked) for make in makers]
    found = await answers_of(asked, plans)
    if short := [at for at, answer in enumerate(found) if too_few(plans[at].body, answer["hits"]["hits"])]:
        one_phase = in_one_phase(asked)
        for at, answer in zip(short, await answers_of(asked, [makers[at](one_phase) for at in short]), strict=True):
            found[at] = answer
    return found


async def answers_of(asked: Asked, plans: Sequence[Plan]) -> list[Answer]:
    """The answers to lists that are searched at the same time. Raises for a list that is not whole."""
    answers = list(await asked.engine.lists(plans))
    asked.watch.lap("opensearch")
    for answer in answers:
        whole(answer, asked.watch)
    return answers
