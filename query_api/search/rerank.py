"""A second opinion on the best of a list, within a deadline: by the stored dense vectors, or by the model process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from query_api.search.asked import Asked, Found
from query_api.search.engine import whole
from query_api.search.passages import best_passage
from query_api.search.reading import with_sources
from query_api.search.rerank_form import Rerank
from services.dense_form import DenseIdentity
from services.dense_vectors import Dense, StoredVectors, moved
from services.errors import BackendUnavailable, InvalidInput
from services.interpolation import interpolated, parts
from services.model_client import ModelClient
from services.opensearch.queries import Plan, stored_vectors_body
from services.opensearch.stored_windows import read_packed_windows
from services.telemetry.metrics import SEARCH_FALLBACKS

Lists = Callable[[Asked], Awaitable[list[Found]]]
Opinion = Mapping[str, float]
# Of a passage, in characters: a cross-encoder reads 512 pieces, and 200 passages fit the model process's 1 MiB.
_PASSAGE = 4000


async def reranked(asked: Asked, rerank: Rerank, lists: Lists) -> tuple[list[Found], dict[str, Any]]:
    """The hits in their new order, without sources, and what is said of it.

    The query is embedded while OpenSearch searches. Raises InvalidInput (`no_dense_vectors`) for an index that has
    none.
    """
    identity = asked.generation.dense
    if rerank.model == "dense" and identity is None:
        raise InvalidInput(
            "no_dense_vectors",
            f"The index {asked.generation.index!r} declares no dense encoder, so there is nothing to rerank with: "
            "create it with `dense`, or give it one by `sparsewell reindex --dense`.",
        )
    wanted, part = asked.room, asked.part
    # The same list for every page, deep enough to be reranked; texts are read of what is left in the end.
    depth = max(rerank.top, wanted if part is None else part.depth)
    deep = replace(asked, part=None, pinned=0, request=asked.request.model_copy(update={"size": depth}))

    def shown(found: Sequence[Found]) -> list[Found]:
        return list(found[:wanted] if part is None else part.of_fused(found, wanted, full=len(found) >= depth))

    embedding = asyncio.create_task(_embedded(asked, rerank, identity))
    # its error is nobody's concern once the lists have one
    embedding.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        found = await lists(deep)
        try:
            opinion = await _opinion(asked, rerank, found[: rerank.top], await embedding)
        except BackendUnavailable as error:
            if not error.code.startswith("model_"):
                raise
            SEARCH_FALLBACKS.labels("rerank", error.code).inc()
            return shown(found), _said(rerank, 0, error.code)
    finally:
        embedding.cancel()
        asked.watch.lap("rerank")
    if asked.request.explain:
        top = found[: rerank.top]
        by_id = parts([(one.id, one.score) for one in top], opinion, rerank.weight)
        for one in top:
            one.reranking = by_id[one.id]
    return shown(_in_order(found, rerank, opinion)), _said(rerank, len(opinion))


def _said(rerank: Rerank, scored: int, reason: str | None = None) -> dict[str, Any]:
    return {"applied": reason is None, "model": rerank.model, "scored": scored, "reason": reason}


def _model(asked: Asked) -> ModelClient:
    if asked.parts.model is None:
        raise BackendUnavailable("model_not_configured", "SPARSEWELL_MODEL_URL names no model process.")
    return asked.parts.model


async def _embedded(asked: Asked, rerank: Rerank, identity: DenseIdentity | None) -> Dense | None:
    """The query's vector; None where the reranker reads the words themselves."""
    if rerank.model != "dense" or identity is None:
        return None
    return await _model(asked).embed(asked.request.query, identity)


async def _opinion(asked: Asked, rerank: Rerank, found: Sequence[Found], query: Dense | None) -> Opinion:
    if not found:
        return {}
    if query is None:
        return await _read_by_model(asked, rerank, found)
    stored = await _stored(asked, found, len(query))
    opinion = stored.scores(query)
    if rerank.feedback is None:
        return opinion
    best = interpolated([(one.id, one.score) for one in found], opinion, rerank.weight)[: rerank.feedback.documents]
    relevant = stored.best_windows(query, [name for name, _ in best])
    return stored.scores(moved(query, relevant, rerank.feedback.weight))


async def _stored(asked: Asked, found: Sequence[Found], width: int) -> StoredVectors:
    """The dense vectors of the index's own encoder; documents that wait for theirs have none."""
    identity = asked.generation.dense
    fingerprint = "" if identity is None else identity.fingerprint
    body = stored_vectors_body([one.id for one in found], fingerprint, asked.timeout)
    asked.watch.lap("rerank")
    (answer,) = await asked.engine.lists([Plan(asked.generation.physical, body)])
    hits = whole(answer, asked.watch)
    asked.watch.lap("opensearch")
    return StoredVectors.read({hit["_id"]: hit["fields"]["dense"][0] for hit in hits if "fields" in hit}, width)


async def _read_by_model(asked: Asked, rerank: Rerank, found: Sequence[Found]) -> Opinion:
    """Scores of each document's best passage."""
    model = _model(asked)
    await with_sources(asked, found, ("state", "title", "text", "windows"))
    query, words = asked.query.by_id(), asked.request.query
    passages = {}
    for one in found:
        if one.source is not None:
            title, text = one.source.get("title", ""), one.source["text"]
            best = best_passage(title, text, read_packed_windows(one.source), query, words)["text"]
            passages[one.id] = f"{title}\n{best}"[:_PASSAGE]
    if not passages:
        return {}
    scores = await model.score(rerank.model, words, list(passages.values()))
    return dict(zip(passages, scores.tolist(), strict=True))


def _in_order(found: Sequence[Found], rerank: Rerank, opinion: Opinion) -> list[Found]:
    """The scored documents by the sum of both scores, then the rest as it was."""
    top = {one.id: one for one in found[: rerank.top]}
    ordered = []
    for name, score in interpolated([(one.id, one.score) for one in top.values()], opinion, rerank.weight):
        one = top[name]
        one.score = score
        if name in opinion:
            one.scores[rerank.model] = opinion[name]
        ordered.append(one)
    return ordered + list(found[rerank.top :])
