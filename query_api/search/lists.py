"""The lists that OpenSearch is asked for: bodies out of a request, and hits out of an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from query_api.search.asked import Asked, Found
from query_api.search.engine import whole
from query_api.search.phases import in_one_phase, phases, too_few
from query_api.search.request import SearchRequest
from services.fusion import K, fuse, parts
from services.opensearch.queries import Plan, body, filtered, lexical_query, rescored, rescored_by_window, sparse_query

HYBRID = ("sparse", "lexical")


def needed_source(request: SearchRequest) -> list[str]:
    """What must be read of each hit, and no more: texts and vectors are the largest part of an answer."""
    needed: set[str] = {"state", *request.fields}
    if request.passage or request.explain:
        needed |= {"title", "text", "windows"}
    return sorted(needed)


def list_body(asked: Asked, mode: str, size: int, source: Sequence[str] | bool) -> dict[str, Any]:
    """The body of one list. Every list of every search is made here, so what holds for all of them stands here."""
    clauses, left_out = asked.selection.clauses, asked.left_out
    if mode == "sparse":
        by = phases(asked, size)
        search = body(filtered(sparse_query(by.head, asked.score_by), clauses, left_out), size, source, asked.timeout)
        if by.tail.ids and asked.score_by == "window":
            search = rescored_by_window(search, asked.query, by.window)
        elif by.tail.ids:
            search = rescored(search, by.tail, by.window)
    else:
        query = lexical_query(asked.request.query, asked.carried)
        search = body(filtered(query, clauses, left_out), size, source, asked.timeout)
    if mode == "lexical" and (asked.request.explain or asked.request.highlight):
        search["explain"] = True
    return search


async def one_list(asked: Asked) -> list[Found]:
    """The hits of the one list of a sparse or lexical search, with their sources."""
    mode, part = asked.request.mode, asked.part
    search = _one_body(asked)
    (hits,) = await hits_of(asked, [plan(asked, mode, search)])
    if too_few(search, hits):
        (hits,) = await hits_of(asked, [plan(asked, mode, _one_body(in_one_phase(asked)))])
    if part is not None:
        hits = part.of_list(hits, asked.request.size)
    return [
        Found(
            hit["_id"],
            hit["_score"],
            {mode: hit["_score"]},
            hit["_source"],
            hit.get("_explanation"),
            index=hit["_index"],
        )
        for hit in hits
    ]


def _one_body(asked: Asked) -> dict[str, Any]:
    search = list_body(asked, asked.request.mode, asked.request.size, needed_source(asked.request))
    if asked.part is not None:
        asked.part.ask(search, asked.request.size)
    return search


def plan(asked: Asked, mode: str, search: dict[str, Any]) -> Plan:
    """One list of one index, or of several that are searched alike: BM25 then counts words in all of them."""
    return Plan(asked.target, search, pooled=bool(asked.across) and mode == "lexical")


async def hits_of(asked: Asked, plans: Sequence[Plan]) -> list[Sequence[dict[str, Any]]]:
    """The hits of each list. Raises for a list that is not whole."""
    answers = await asked.engine.lists(plans)
    asked.watch.lap("opensearch")
    return [whole(answer, asked.watch) for answer in answers]


def depth_of(asked: Asked) -> int:
    """How many hits of each list are fused: as many on every page as on the first."""
    return asked.part.depth if asked.part is not None else max(asked.request.candidates, asked.request.size)


async def two_lists(asked: Asked) -> list[Found]:
    """The fused hits of a hybrid search, best first, without their sources: they are read once it is known of which."""
    depth = depth_of(asked)
    bodies = {mode: list_body(asked, mode, depth, False) for mode in HYBRID}
    lists = dict(zip(HYBRID, await hits_of(asked, [plan(asked, *one) for one in bodies.items()]), strict=True))
    if too_few(bodies["sparse"], lists["sparse"]):
        again = list_body(in_one_phase(asked), "sparse", depth, False)
        (lists["sparse"],) = await hits_of(asked, [plan(asked, "sparse", again)])
    scores = {mode: {hit["_id"]: float(hit["_score"]) for hit in hits} for mode, hits in lists.items()}
    fused = fuse(scores, asked.request.weights.model_dump(), asked.request.chosen_fusion())
    full = any(len(hits) == depth for hits in lists.values())
    explanations = {hit["_id"]: hit.get("_explanation") for hit in lists["lexical"]}
    return shown(asked, fused, Ranked(scores, scores, explanations, full))


@dataclass(frozen=True, slots=True)
class Ranked(Generic[K]):
    """The lists behind a ranking. `scores` of each as OpenSearch gave them, `scaled` as they are fused or compared;
    `full`: one was cut at its depth.
    """

    scores: Mapping[str, Mapping[K, float]]
    scaled: Mapping[str, Mapping[K, float]]
    explanations: Mapping[K, Any]
    full: bool


def shown(asked: Asked, ranking: Sequence[tuple[K, float]], lists: Ranked[K]) -> list[Found]:
    """What is asked for of a whole ranking, without sources."""
    if asked.part is not None:
        ranking = asked.part.of_fused(ranking, asked.request.size, full=lists.full)
    ranking = ranking[: asked.request.size]
    fusion: Mapping[K, Mapping[str, tuple[float, float]]] = {}
    if asked.request.explain and len(lists.scaled) > 1:
        weights, method = asked.request.weights.model_dump(), asked.request.chosen_fusion()
        fusion = parts(lists.scaled, weights, method, [key for key, _ in ranking])
    found = []
    for key, score in ranking:
        index, document = ("", key) if isinstance(key, str) else key
        own = {mode: listed[key] for mode, listed in lists.scores.items() if key in listed}
        why, by_list = lists.explanations.get(key), fusion.get(key)
        found.append(Found(document, score, own, explanation=why, fusion=by_list, index=index))
    asked.watch.lap("fuse")
    return found


async def with_sources(asked: Asked, found: Sequence[Found], source: Sequence[str]) -> None:
    """Reads what was found. Of two copies of a shard, the one that is asked here may not show yet what the other one
    found: what it misses is read in real time, or a hit would be gone without a word.
    """
    if not found:
        return
    physical = asked.generation.physical
    wanted = [(one.index or physical, one.id) for one in found]
    read = await asked.engine.documents(wanted, source)
    if missing := [key for key in wanted if key not in read]:
        read |= await asked.engine.documents(missing, source, realtime=True)
    for key, one in zip(wanted, found, strict=True):
        content = read.get(key)
        # but for a document that was deleted between the two requests
        one.source = content if content is not None and content.get("state") != "deleted" else None
    asked.watch.lap("opensearch")
