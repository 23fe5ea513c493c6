"""The lists that OpenSearch is asked for: bodies out of a request, and hits out of an answer."""

from collections.abc import Sequence
from typing import Any

from query_api.search.asked import Asked, Found
from query_api.search.engine import Plan, whole
from query_api.search.request import SearchRequest
from services.fusion import fuse
from services.opensearch.queries import body, lexical_query, sparse_query

HYBRID = ("sparse", "lexical")


def needed_source(request: SearchRequest) -> list[str]:
    """What must be read of each hit, and no more: texts and vectors are the largest part of an answer."""
    needed: set[str] = {"state", *request.fields}
    if request.passage or request.explain:
        needed |= {"title", "text", "windows"}
    return sorted(needed)


def list_body(asked: Asked, mode: str, size: int, source: Sequence[str] | bool) -> dict[str, Any]:
    """The body of one list. Every list of every search is made here, so what holds for all of them stands here."""
    query = sparse_query(asked.query) if mode == "sparse" else lexical_query(asked.request.query)
    search = body(query, size, source, asked.timeout)
    if asked.request.explain and mode == "lexical":
        search["explain"] = True
    return search


async def one_list(asked: Asked) -> list[Found]:
    """The hits of the one list of a sparse or lexical search, with their sources."""
    mode = asked.request.mode
    plan = Plan(asked.generation.physical, list_body(asked, mode, asked.request.size, needed_source(asked.request)))
    (answer,) = await asked.engine.lists([plan])
    asked.watch.lap("opensearch")
    return [
        Found(
            hit["_id"],
            hit["_score"],
            {mode: hit["_score"]},
            hit["_source"],
            hit.get("_explanation"),
        )
        for hit in whole(answer, asked.watch)
    ]


async def two_lists(asked: Asked) -> list[Found]:
    """The fused hits of a hybrid search, best first, without their sources: they are read once it is known of which."""
    depth = max(asked.request.candidates, asked.request.size)
    plans = [Plan(asked.generation.physical, list_body(asked, mode, depth, False)) for mode in HYBRID]
    answers = await asked.engine.lists(plans)
    asked.watch.lap("opensearch")
    lists = {mode: whole(answer, asked.watch) for mode, answer in zip(HYBRID, answers, strict=True)}
    scores = {mode: {hit["_id"]: float(hit["_score"]) for hit in hits} for mode, hits in lists.items()}
    fused = fuse(scores, asked.request.weights.model_dump())
    explanations = {hit["_id"]: hit.get("_explanation") for hit in lists["lexical"]} if asked.request.explain else {}
    found = [
        Found(
            document,
            score,
            {mode: listed[document] for mode, listed in scores.items() if document in listed},
            explanation=explanations.get(document),
        )
        for document, score in fused[: asked.request.size]
    ]
    asked.watch.lap("fuse")
    return found


async def with_sources(asked: Asked, found: Sequence[Found], source: Sequence[str]) -> None:
    """Reads what was found. Of two copies of a shard, the one that is asked here may not show yet what the other one
    found: what it misses is read in real time, or a hit would be gone without a word.
    """
    if not found:
        return
    engine, physical = asked.engine, asked.generation.physical
    ids = [one.id for one in found]
    read = await engine.documents(physical, ids, source)
    if missing := [one for one in ids if one not in read]:
        read |= await engine.documents(physical, missing, source, realtime=True)
    for one in found:
        content = read.get(one.id)
        # but for a document that was deleted between the two requests
        one.source = content if content is not None and content.get("state") != "deleted" else None
    asked.watch.lap("opensearch")
