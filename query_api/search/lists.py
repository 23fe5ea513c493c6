"""The lists that OpenSearch is asked for: bodies out of a request, and hits out of an answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from query_api.search.asked import Asked, Found, Source
from query_api.search.request import SearchRequest
from query_api.search.stopwatch import Stopwatch
from services.errors import BackendUnavailable, InvalidInput, NotFound
from services.fusion import fuse
from services.opensearch.queries import body, fetch_call, lexical_query, msearch_call, search_call, sparse_query

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
    plan = body(query, size, source, asked.timeout)
    if asked.request.explain and mode == "lexical":
        plan["explain"] = True
    return plan


async def one_list(asked: Asked) -> list[Found]:
    """The hits of the one list of a sparse or lexical search, with their sources."""
    mode = asked.request.mode
    plan = list_body(asked, mode, asked.request.size, needed_source(asked.request))
    parts, physical = asked.parts, asked.generation.physical
    try:
        answer = await parts.search.send(search_call(physical, plan, asked.timeout, near=parts.near))
    except InvalidInput:
        raise too_many_words() from None
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
    parts, physical = asked.parts, asked.generation.physical
    plans = [list_body(asked, mode, depth, False) for mode in HYBRID]
    answer = await parts.search.send(msearch_call(physical, plans, asked.timeout, near=parts.near))
    asked.watch.lap("opensearch")
    lists = {mode: whole(part, asked.watch) for mode, part in zip(HYBRID, answer["responses"], strict=True)}
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
    parts, physical = asked.parts, asked.generation.physical
    ids = [one.id for one in found]
    call = fetch_call(physical, ids, source, asked.timeout, near=parts.near)
    read = _read(await parts.search.send(call))
    if missing := [one for one in ids if one not in read]:
        call = fetch_call(physical, missing, source, asked.timeout, near=parts.near, realtime=True)
        read |= _read(await parts.search.send(call))
    for one in found:
        content = read.get(one.id)
        # but for a document that was deleted between the two requests
        one.source = content if content is not None and content.get("state") != "deleted" else None
    asked.watch.lap("opensearch")


def _read(answer: Mapping[str, Any]) -> dict[str, Source]:
    return {document["_id"]: document["_source"] for document in answer["docs"] if document.get("found")}


def whole(answer: Mapping[str, Any], watch: Stopwatch) -> list[dict[str, Any]]:
    """The hits of one list. A list that is cut short by time or a failed shard is an error, not an answer."""
    if "error" in answer:
        if answer.get("status") == 404:
            raise NotFound("index_not_found", "The generation is gone.")
        if answer.get("status") == 400:
            raise too_many_words()
        raise BackendUnavailable("search_failed", "OpenSearch could not complete the search; try again.")
    if answer["timed_out"] or answer["_shards"]["failed"]:
        raise BackendUnavailable("search_incomplete", "OpenSearch did not finish in time; a partial answer is none.")
    # Two lists of one request are searched at the same time.
    watch.stages["engine"] = max(watch.stages["engine"], answer["took"])
    hits: list[dict[str, Any]] = answer["hits"]["hits"]
    return hits


def too_many_words() -> InvalidInput:
    """Lucene's limit of 1,024 clauses is the one thing that it can refuse in a search of ours.

    A script without spaces has one word a character, which is one unknown piece for the encoder but many for BM25.
    """
    return InvalidInput("query_too_long", "The query has more words than OpenSearch takes (1,024): shorten it.")
