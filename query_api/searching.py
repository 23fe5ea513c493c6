"""One search: plan, ask OpenSearch, fuse, shape. At most two requests, none to a model."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from query_api.explain import lexical_why, query_pieces, sparse_why
from query_api.models import SearchRequest
from query_api.parts import Parts
from query_api.passages import best_passage
from services.documents import joined_text
from services.errors import BackendUnavailable, InvalidInput, NotFound
from services.fusion import fuse
from services.index_spec import Generation
from services.opensearch.journal import read_packed_windows, read_windows
from services.opensearch.queries import body, fetch_call, lexical_query, msearch_call, search_call, sparse_query
from services.query_table import QueryTable, QueryVector
from services.settings import Settings

Source = Mapping[str, Any]


class Stopwatch:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.stages = dict.fromkeys(("encode", "opensearch", "engine", "fuse", "shape", "total"), 0.0)

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.stages[stage] += (now - self._last) * 1000
        self._last = now

    def finish(self) -> dict[str, float]:
        self.stages["total"] = (self._last - self._start) * 1000
        return {stage: round(value, 3) for stage, value in self.stages.items()}


def checked(request: SearchRequest, settings: Settings) -> None:
    """Holds a request against the limits that are settings. Raises InvalidInput."""
    if not request.query.strip():
        raise InvalidInput("empty_query", "The query is empty.")
    if not request.query.isascii() and any("\ud800" <= character <= "\udfff" for character in request.query):
        raise InvalidInput("bad_query", "The query holds half of a surrogate pair, which is no character.")
    if len(request.query) > settings.max_query_characters:
        raise InvalidInput(
            "query_too_long",
            f"A query may have {settings.max_query_characters:,} characters; this has {len(request.query):,}.",
        )
    if request.size > settings.max_size:
        raise InvalidInput("size_too_large", f"`size` may be {settings.max_size} at most.")
    if request.candidates > settings.max_candidates:
        raise InvalidInput("candidates_too_many", f"`candidates` may be {settings.max_candidates} at most.")


def needed_source(request: SearchRequest) -> list[str]:
    """What must be read of each hit, and no more: texts and vectors are the largest part of an answer."""
    needed: set[str] = {"state", *request.fields}
    if request.passage or request.explain:
        needed |= {"title", "text", "windows"}
    return sorted(needed)


async def search(parts: Parts, index: str, request: SearchRequest) -> dict[str, Any]:
    """Answers a request. An index whose generation was swapped and removed meanwhile is looked up once more."""
    checked(request, parts.settings)
    try:
        # One deadline over everything that is asked of OpenSearch, the look-up of the alias included.
        async with asyncio.timeout(parts.settings.search_timeout):
            try:
                return await _search(parts, await parts.generation(index, near=True), request)
            except NotFound as error:
                if error.code != "index_not_found":
                    raise
                parts.forget(index)
                return await _search(parts, await parts.generation(index), request)
    except TimeoutError:
        raise BackendUnavailable("opensearch_timeout", "OpenSearch did not answer in time.") from None


async def _search(parts: Parts, generation: Generation, request: SearchRequest) -> dict[str, Any]:
    watch = Stopwatch()
    table = parts.tables.of(generation)
    query = table.encode(request.query, parts.settings.max_query_pieces)
    watch.lap("encode")
    if request.mode == "hybrid":
        found = await _hybrid(parts, generation, request, query, watch)
    else:
        found = await _single(parts, generation, request, query, watch)
    hits = [_hit(generation, table, query, request, entry) for entry in found if entry["source"] is not None]
    answer: dict[str, Any] = {
        "index": generation.index,
        "mode": request.mode,
        "query": request.query,
        "encoder": generation.encoder.fingerprint,
        "hits": hits,
    }
    if request.explain:
        answer["pieces"] = query_pieces(table, query)
    watch.lap("shape")
    return answer | {"timings_ms": watch.finish()}


def _too_many_words() -> InvalidInput:
    """Lucene's limit of 1,024 clauses is the one thing that it can refuse in a search of ours.

    A script without spaces has one word a character, which is one unknown piece for the encoder but many for BM25.
    """
    return InvalidInput("query_too_long", "The query has more words than OpenSearch takes (1,024): shorten it.")


def _query(mode: str, request: SearchRequest, query: QueryVector) -> dict[str, Any]:
    return sparse_query(query) if mode == "sparse" else lexical_query(request.query)


def _whole(answer: Mapping[str, Any], watch: Stopwatch) -> list[dict[str, Any]]:
    """The hits of one list. A list that is cut short by time or a failed shard is an error, not an answer."""
    if "error" in answer:
        if answer.get("status") == 404:
            raise NotFound("index_not_found", "The generation is gone.")
        if answer.get("status") == 400:
            raise _too_many_words()
        raise BackendUnavailable("search_failed", "OpenSearch could not complete the search; try again.")
    if answer["timed_out"] or answer["_shards"]["failed"]:
        raise BackendUnavailable("search_incomplete", "OpenSearch did not finish in time; a partial answer is none.")
    # Two lists of one request are searched at the same time.
    watch.stages["engine"] = max(watch.stages["engine"], answer["took"])
    hits: list[dict[str, Any]] = answer["hits"]["hits"]
    return hits


async def _single(
    parts: Parts, generation: Generation, request: SearchRequest, query: QueryVector, watch: Stopwatch
) -> list[dict[str, Any]]:
    timeout = parts.settings.search_timeout
    plan = body(_query(request.mode, request, query), request.size, needed_source(request), timeout)
    if request.explain and request.mode == "lexical":
        plan["explain"] = True
    try:
        answer = await parts.search.send(search_call(generation.physical, plan, timeout, near=parts.near))
    except InvalidInput:
        raise _too_many_words() from None
    watch.lap("opensearch")
    return [
        {
            "id": hit["_id"],
            "score": hit["_score"],
            "scores": {request.mode: hit["_score"]},
            "source": hit["_source"],
            "explanation": hit.get("_explanation"),
        }
        for hit in _whole(answer, watch)
    ]


async def _hybrid(
    parts: Parts, generation: Generation, request: SearchRequest, query: QueryVector, watch: Stopwatch
) -> list[dict[str, Any]]:
    timeout = parts.settings.search_timeout
    depth = max(request.candidates, request.size)
    modes = ("sparse", "lexical")
    plans = [body(_query(mode, request, query), depth, False, timeout) for mode in modes]
    if request.explain:
        plans[1]["explain"] = True
    answer = await parts.search.send(msearch_call(generation.physical, plans, timeout, near=parts.near))
    watch.lap("opensearch")
    lists = {mode: _whole(part, watch) for mode, part in zip(modes, answer["responses"], strict=True)}
    scores = {mode: {hit["_id"]: float(hit["_score"]) for hit in hits} for mode, hits in lists.items()}
    fused = fuse(scores, request.weights.model_dump())[: request.size]
    explanations = {hit["_id"]: hit.get("_explanation") for hit in lists["lexical"]} if request.explain else {}
    watch.lap("fuse")
    sources = await _fetch(parts, generation, [document for document, _ in fused], needed_source(request))
    watch.lap("opensearch")
    return [
        {
            "id": document,
            "score": score,
            "scores": {mode: listed[document] for mode, listed in scores.items() if document in listed},
            "source": sources.get(document),
            "explanation": explanations.get(document),
        }
        for document, score in fused
    ]


async def _fetch(parts: Parts, generation: Generation, ids: Sequence[str], source: Sequence[str]) -> dict[str, Source]:
    """Documents by id. Of two copies of a shard, the one that is asked here may not show yet what the other one found:
    what it misses is read in real time, or a hit would be gone without a word.
    """
    if not ids:
        return {}
    timeout = parts.settings.search_timeout
    call = fetch_call(generation.physical, ids, source, timeout, near=parts.near)
    found = _found(await parts.search.send(call))
    if missing := [one for one in ids if one not in found]:
        call = fetch_call(generation.physical, missing, source, timeout, near=parts.near, realtime=True)
        found |= _found(await parts.search.send(call))
    # but for a document that was deleted between the two requests
    return {one: content for one, content in found.items() if content.get("state") != "deleted"}


def _found(answer: Mapping[str, Any]) -> dict[str, Source]:
    return {document["_id"]: document["_source"] for document in answer["docs"] if document.get("found")}


def _hit(
    generation: Generation, table: QueryTable, query: QueryVector, request: SearchRequest, entry: Mapping[str, Any]
) -> dict[str, Any]:
    source: Source = entry["source"]
    hit: dict[str, Any] = {key: entry[key] for key in ("id", "score", "scores")}
    hit["state"] = source["state"]
    for name in request.fields:
        if name in source:
            hit[name] = source[name]
    if not request.passage and not request.explain:
        return hit
    title, text = source.get("title", ""), source["text"]
    if request.passage:
        hit["passage"] = best_passage(title, text, read_packed_windows(source), query.by_id(), request.query)
    if request.explain:
        windows = read_windows(source)
        # Only lists that named the document: another one added nothing to its score, whatever its vector holds.
        why = []
        if "sparse" in hit["scores"]:
            why += sparse_why(table, query, windows, generation.spec.document_top_k, joined_text(title, text))
        if "lexical" in hit["scores"]:
            why += lexical_why(entry["explanation"])
        hit["why"] = why
    return hit
