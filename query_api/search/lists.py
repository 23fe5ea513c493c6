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
    mode, size, part = asked.request.mode, asked.request.size, asked.part
    search = list_body(asked, mode, size, needed_source(asked.request))
    if part is not None:
        part.ask(search, size)
    (answer,) = await asked.engine.lists([Plan(asked.generation.physical, search)])
    asked.watch.lap("opensearch")
    hits: Sequence[dict[str, Any]] = whole(answer, asked.watch)
    if part is not None:
        hits = part.of_list(hits, size)
    return [
        Found(
            hit["_id"],
            hit["_score"],
            {mode: hit["_score"]},
            hit["_source"],
            hit.get("_explanation"),
        )
        for hit in hits
    ]


async def two_lists(asked: Asked) -> list[Found]:
    """The fused hits of a hybrid search, best first, without their sources: they are read once it is known of which."""
    size, part = asked.request.size, asked.part
    depth = part.depth if part is not None else max(asked.request.candidates, size)
    plans = [Plan(asked.generation.physical, list_body(asked, mode, depth, False)) for mode in HYBRID]
    answers = await asked.engine.lists(plans)
    asked.watch.lap("opensearch")
    lists = {mode: whole(answer, asked.watch) for mode, answer in zip(HYBRID, answers, strict=True)}
    scores = {mode: {hit["_id"]: float(hit["_score"]) for hit in hits} for mode, hits in lists.items()}
    fused: Sequence[tuple[str, float]] = fuse(scores, asked.request.weights.model_dump())
    if part is not None:
        fused = part.of_fused(fused, size, full=any(len(hits) == depth for hits in lists.values()))
    explanations = {hit["_id"]: hit.get("_explanation") for hit in lists["lexical"]} if asked.request.explain else {}
    found = [
        Found(
            document,
            score,
            {mode: listed[document] for mode, listed in scores.items() if document in listed},
            explanation=explanations.get(document),
        )
        for document, score in fused[:size]
    ]
    asked.watch.lap("fuse")
    return found


async def with_sources(asked: Asked, found: Sequence[Found], source: Sequence[str]) -> None:
    """Reads what was found. Of two copies of a shard, the one that is asked here may not show yet what the other one
    found: what it misses is read in real time, or a hit would be gone without a word.
    """
    if not found:
        return
    physical = asked.generation.physical
    wanted = [(physical, one.id) for one in found]
    read = await asked.engine.documents(wanted, source)
    if missing := [key for key in wanted if key not in read]:
        read |= await asked.engine.documents(missing, source, realtime=True)
    for key, one in zip(wanted, found, strict=True):
        content = read.get(key)
        # but for a document that was deleted between the two requests
        one.source = content if content is not None and content.get("state") != "deleted" else None
    asked.watch.lap("opensearch")
