"""Rerank the best hits within a deadline: by the stored dense vectors, or by the model process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from query_api.schemas.search_request import Rerank
from query_api.search.context import Hit, Retrieved, SearchContext
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

Retrieve = Callable[[Sequence[SearchContext]], Awaitable[Retrieved]]
ModelScores = Mapping[str, float]
# Characters of a passage: a cross-encoder reads 512 pieces, and 200 passages fit the model process's 1 MiB.
_MAX_PASSAGE_CHARACTERS = 4000


async def retrieve_reranked(
    context: SearchContext, rerank: Rerank, retrieve: Retrieve
) -> tuple[Retrieved, dict[str, Any]]:
    """Return the hits of the page in their new order, not read yet, and the `rerank` member of the response.

    The query is embedded while OpenSearch searches. Raises InvalidInput (`no_dense_vectors`) for an index without
    dense vectors.
    """
    identity = context.generation.dense
    if rerank.model == "dense" and identity is None:
        raise InvalidInput(
            "no_dense_vectors",
            f"The index {context.generation.index!r} declares no dense encoder, so there is nothing to rerank with: "
            "create it with `dense`, or give it one by `sparsewell reindex --dense`.",
        )
    wanted, page = context.room, context.page
    # The same list for every page, deep enough to be reranked; texts are read of the hits that remain in the end.
    depth = max(rerank.top, wanted if page is None else page.depth)
    request = context.request.model_copy(update={"size": depth})
    deep = replace(context, page=None, pinned=0, request=request)
    embedding = asyncio.create_task(_embed_query(context, rerank, identity))
    # Nobody awaits the embedding when the lists raise: its error must not be reported as unhandled.
    embedding.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        retrieved = await retrieve([deep])
        hits, said = retrieved.hits, _rerank_member(rerank, 0)
        try:
            opinion = await _model_scores(context, rerank, hits[: rerank.top], await embedding)
        except BackendUnavailable as error:
            if not error.code.startswith("model_"):
                raise
            SEARCH_FALLBACKS.labels("rerank", error.code).inc()
            said = _rerank_member(rerank, 0, error.code)
        else:
            hits, said = _interpolate(context, hits, rerank, opinion), _rerank_member(rerank, len(opinion))
    finally:
        embedding.cancel()
        context.watch.lap("rerank")
    full = len(hits) >= depth
    hits, page = (hits[:wanted], None) if page is None else page.of_ranking(hits, wanted, full=full)
    return replace(retrieved, hits=hits, page=page, lexical_empty=False, read=False), said


def _rerank_member(rerank: Rerank, scored: int, reason: str | None = None) -> dict[str, Any]:
    return {"applied": reason is None, "model": rerank.model, "scored": scored, "reason": reason}


def _model(context: SearchContext) -> ModelClient:
    if context.model is None:
        raise BackendUnavailable("model_not_configured", "SPARSEWELL_MODEL_URL names no model process.")
    return context.model


async def _embed_query(context: SearchContext, rerank: Rerank, identity: DenseIdentity | None) -> DenseArray | None:
    """Return the query's vector; None where the reranker reads the words themselves."""
    if rerank.model != "dense" or identity is None:
        return None
    return await _model(context).embed(context.request.query, identity)


async def _model_scores(
    context: SearchContext, rerank: Rerank, hits: Sequence[Hit], query: DenseArray | None
) -> ModelScores:
    if not hits:
        return {}
    if query is None:
        return await _cross_encoder_scores(context, rerank, hits)
    stored = await _stored_vectors(context, hits, len(query))
    opinion = stored.scores(query)
    if rerank.feedback is None:
        return opinion
    best = interpolate_scores([(one.id, one.score) for one in hits], opinion, rerank.weight)[
        : rerank.feedback.documents
    ]
    relevant = stored.best_windows(query, [name for name, _ in best])
    return stored.scores(apply_dense_feedback(query, relevant, rerank.feedback.weight))


async def _stored_vectors(context: SearchContext, hits: Sequence[Hit], width: int) -> StoredDenseVectors:
    """Return the dense vectors of the index's own encoder; documents that wait for theirs have none."""
    identity = context.generation.dense
    fingerprint = "" if identity is None else identity.fingerprint
    body = stored_vectors_body([one.id for one in hits], fingerprint, context.timeout)
    context.watch.lap("rerank")
    (answer,) = await context.engine.lists([SearchPlan(context.generation.physical, body)])
    stored = complete_hits(answer, context.watch)
    context.watch.lap("opensearch")
    return StoredDenseVectors.read({hit["_id"]: hit["fields"]["dense"][0] for hit in stored if "fields" in hit}, width)


async def _cross_encoder_scores(context: SearchContext, rerank: Rerank, hits: Sequence[Hit]) -> ModelScores:
    """Return the score of each document's best passage."""
    model = _model(context)
    hits = await read_sources(context, hits, ("state", "title", "text", "windows"))
    query, words = context.query.by_id(), context.request.query
    passages = {}
    for one in hits:
        if one.source is not None:
            title, text = one.source.get("title", ""), one.source["text"]
            best = best_passage(title, text, read_packed_windows(one.source), query, words)["text"]
            passages[one.id] = f"{title}\n{best}"[:_MAX_PASSAGE_CHARACTERS]
    if not passages:
        return {}
    scores = await model.score(rerank.model, words, list(passages.values()))
    return dict(zip(passages, scores.tolist(), strict=True))


def _interpolate(context: SearchContext, hits: Sequence[Hit], rerank: Rerank, opinion: ModelScores) -> list[Hit]:
    """Return the top hits by the sum of both scores, with their explanation on request, then the rest as it was."""
    top = {one.id: one for one in hits[: rerank.top]}
    scores = [(one.id, one.score) for one in top.values()]
    why = interpolation_shares(scores, opinion, rerank.weight) if context.request.explain else {}
    in_order = []
    for name, score in interpolate_scores(scores, opinion, rerank.weight):
        one = top[name]._replace(score=score, reranking=why.get(name))
        in_order.append(one._replace(scores={**one.scores, rerank.model: opinion[name]}) if name in opinion else one)
    return in_order + list(hits[rerank.top :])
