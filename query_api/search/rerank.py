"""Reranking of the best hits within a deadline, by stored dense vectors or by the model process.

`retrieve_reranked` retrieves a deeper list, lets a model score its top and interpolates both scores. The model is the
dense encoder of the index, whose document vectors are stored, or a cross-encoder of the model process. If the model
process fails or is late, the list keeps its order and the response has the reason.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from query_api.schemas.search_request import Rerank
from query_api.search.context import Hit, RetrievedHits, SearchContext
from query_api.search.executor import complete_hits
from query_api.search.passages import best_passage
from query_api.search.retrieval import read_sources
from services.encoders.manifest import DenseIdentity
from services.encoders.vectors import DenseArray, StoredDenseVectors, apply_dense_feedback
from services.errors import BackendUnavailable, InvalidInput
from services.model_client import ModelClient
from services.opensearch.queries import SearchPlan, stored_vectors_body
from services.opensearch.stored_document import read_packed_windows
from services.query.fusion import interpolate_scores, interpolation_shares
from services.telemetry.metrics import SEARCH_FALLBACKS

Retrieve = Callable[[Sequence[SearchContext]], Awaitable[RetrievedHits]]
# The model's score of each document that it scored, by id.
ModelScores = Mapping[str, float]
# A cross-encoder reads 512 pieces, and 200 passages of this length fit the 1 MiB that the model process accepts.
_MAX_PASSAGE_CHARACTERS = 4000


async def retrieve_reranked(
    context: SearchContext, rerank: Rerank, retrieve: Retrieve
) -> tuple[RetrievedHits, dict[str, Any]]:
    """Return the hits of the page in their new order, without sources, and the `rerank` member of the response.

    The query is embedded while OpenSearch searches. Raises InvalidInput (`no_dense_vectors`) for an index without dense
    vectors.
    """
    identity = context.generation.dense
    if rerank.model == "dense" and identity is None:
        raise InvalidInput(
            "no_dense_vectors",
            f"The index {context.generation.index!r} declares no dense encoder, so there is nothing to rerank with: "
            "create it with `dense`, or give it one by `sparsewell reindex --dense`.",
        )
    room, page = context.list_size, context.page
    # Every page cuts the same list, deep enough for the reranker; only hits of the page are read.
    depth = max(rerank.top, room if page is None else page.depth)
    request = context.request.model_copy(update={"size": depth})
    deep = replace(context, page=None, pinned=0, request=request)
    embedding = asyncio.create_task(_embed_query(context, rerank, identity))
    # If the lists raise, the embedding is not awaited: its own error must not be reported as unhandled.
    embedding.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        retrieved = await retrieve([deep])
        hits, member = retrieved.hits, _rerank_member(rerank, 0)
        try:
            scores = await _model_scores(context, rerank, hits[: rerank.top], await embedding)
        except BackendUnavailable as error:
            if not error.code.startswith("model_"):
                raise
            SEARCH_FALLBACKS.labels("rerank", error.code).inc()
            member = _rerank_member(rerank, 0, error.code)
        else:
            hits, member = _interpolate(context, hits, rerank, scores), _rerank_member(rerank, len(scores))
    finally:
        embedding.cancel()
        context.stopwatch.lap("rerank")
    full = len(hits) >= depth
    hits, page = (hits[:room], None) if page is None else page.of_ranking(hits, room, full=full)
    return replace(retrieved, hits=hits, page=page, lexical_empty=False, read=False), member


def _rerank_member(rerank: Rerank, scored: int, reason: str | None = None) -> dict[str, Any]:
    """Return the `rerank` member of a response. `reason`: the code of the error that left the list as it was."""
    return {"applied": reason is None, "model": rerank.model, "scored": scored, "reason": reason}


def _model(context: SearchContext) -> ModelClient:
    """Return the model client. Raises BackendUnavailable (`model_not_configured`)."""
    if context.model is None:
        raise BackendUnavailable("model_not_configured", "SPARSEWELL_MODEL_URL names no model process.")
    return context.model


async def _embed_query(context: SearchContext, rerank: Rerank, identity: DenseIdentity | None) -> DenseArray | None:
    """Return the dense vector of the query; None where the reranker reads the words itself."""
    if rerank.model != "dense" or identity is None:
        return None
    return await _model(context).embed(context.request.query, identity)


async def _model_scores(
    context: SearchContext, rerank: Rerank, hits: Sequence[Hit], query: DenseArray | None
) -> ModelScores:
    """Return the model's scores of the hits."""
    if not hits:
        return {}
    if query is None:
        return await _cross_encoder_scores(context, rerank, hits)
    stored = await _stored_vectors(context, hits, len(query))
    scores = stored.scores(query)
    if rerank.feedback is None:
        return scores
    best = interpolate_scores([(hit.id, hit.score) for hit in hits], scores, rerank.weight)[: rerank.feedback.documents]
    relevant = stored.best_windows(query, [name for name, _ in best])
    return stored.scores(apply_dense_feedback(query, relevant, rerank.feedback.weight))


async def _stored_vectors(context: SearchContext, hits: Sequence[Hit], width: int) -> StoredDenseVectors:
    """Return the dense vectors of the index's encoder. Documents without vectors yet are missing."""
    identity = context.generation.dense
    fingerprint = "" if identity is None else identity.fingerprint
    body = stored_vectors_body([hit.id for hit in hits], fingerprint, context.timeout)
    context.stopwatch.lap("rerank")
    (answer,) = await context.executor.lists([SearchPlan(context.generation.physical, body)])
    stored = complete_hits(answer, context.stopwatch)
    context.stopwatch.lap("opensearch")
    return StoredDenseVectors.read({hit["_id"]: hit["fields"]["dense"][0] for hit in stored if "fields" in hit}, width)


async def _cross_encoder_scores(context: SearchContext, rerank: Rerank, hits: Sequence[Hit]) -> ModelScores:
    """Return the score of each document's best passage."""
    model = _model(context)
    hits = await read_sources(context, hits, ("state", "title", "text", "windows"))
    query, words = context.query.by_id(), context.request.query
    passages = {}
    for hit in hits:
        if hit.source is not None:
            title, text = hit.source.get("title", ""), hit.source["text"]
            best = best_passage(title, text, read_packed_windows(hit.source), query, words)["text"]
            passages[hit.id] = f"{title}\n{best}"[:_MAX_PASSAGE_CHARACTERS]
    if not passages:
        return {}
    scores = await model.score(rerank.model, words, list(passages.values()))
    return dict(zip(passages, scores.tolist(), strict=True))


def _interpolate(context: SearchContext, hits: Sequence[Hit], rerank: Rerank, model_scores: ModelScores) -> list[Hit]:
    """Return the top hits by the weighted sum of both scores, explained on request, then the rest in order."""
    top = {hit.id: hit for hit in hits[: rerank.top]}
    scores = [(hit.id, hit.score) for hit in top.values()]
    shares = interpolation_shares(scores, model_scores, rerank.weight) if context.request.explain else {}
    reranked = []
    for name, score in interpolate_scores(scores, model_scores, rerank.weight):
        hit = top[name]._replace(score=score, reranking=shares.get(name))
        reranked.append(
            hit._replace(scores={**hit.scores, rerank.model: model_scores[name]}) if name in model_scores else hit
        )
    return reranked + list(hits[rerank.top :])
