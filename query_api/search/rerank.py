"""Reranking of the best hits by a second score: a query vector from a table, or a model of the model process.

`retrieve_reranked` retrieves a deeper list, scores its top and interpolates both scores. Stored dense vectors are
scored with a query vector, which the encoder's dense query table gives in microseconds (`table`) or the model process
(`dense`). A cross-encoder of the model process reads query and passage. If the model process fails or is late, the
table takes its place; without a table the list keeps its order. The response has the reason.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from query_api.ingest.item_blocks import LoopTurns
from query_api.schemas.refinement import Rerank, Reranker
from query_api.search.context import Hit, RetrievedHits, SearchContext
from query_api.search.executor import complete_hits
from query_api.search.passages import best_passage
from query_api.search.retrieval import read_sources
from services.encoders.vectors import DenseArray, StoredDenseVectors, apply_dense_feedback
from services.errors import BackendUnavailable, InvalidInput
from services.model_client import ModelClient
from services.opensearch.queries import SearchPlan, stored_vectors_body
from services.opensearch.stored_document import read_packed_windows, stored_size
from services.query.fusion import (
    DEFAULT_MODEL_WEIGHT,
    DEFAULT_RERANK_DEPTH,
    DEFAULT_TABLE_WEIGHT,
    interpolate_scores,
    interpolation_shares,
)
from services.telemetry.metrics import SEARCH_FALLBACKS

Retrieve = Callable[[Sequence[SearchContext]], Awaitable[RetrievedHits]]
# The model's score of each document that it scored, by id.
ModelScores = Mapping[str, float]
# A cross-encoder reads 512 pieces, and 200 passages of this length fit the 1 MiB that the model process accepts.
_MAX_PASSAGE_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class _Reranking:
    """The second scores of the top hits, and how they count.

    `model` gave them, `weight` is their share. `reason`: the code of the error of the requested model. `scores` is None
    where no model gave any.
    """

    model: Reranker
    weight: float
    scores: ModelScores | None
    reason: str | None = None

    def to_response(self) -> dict[str, Any]:
        """Return the `rerank` member of a response."""
        scored = 0 if self.scores is None else len(self.scores)
        return {"applied": self.scores is not None, "model": self.model, "scored": scored, "reason": self.reason}


async def retrieve_reranked(
    context: SearchContext, rerank: Rerank, retrieve: Retrieve
) -> tuple[RetrievedHits, dict[str, Any]]:
    """Return the hits of the page in their new order, without sources, and the `rerank` member of the response.

    The model process embeds the query while OpenSearch searches. Raises InvalidInput (`no_dense_vectors`) for an index
    without dense vectors.
    """
    model = rerank.model or _default_model(context)
    if model in {"table", "dense"} and context.generation.dense is None:
        raise InvalidInput(
            "no_dense_vectors",
            f"The index {context.generation.index!r} declares no dense encoder, so there is nothing to rerank with: "
            "create it with `dense`, or give it one by `sparsewell reindex --dense`.",
        )
    top = rerank.top or _default_top(context, model)
    room, page = context.list_size, context.page
    # Every page cuts the same list, deep enough for the reranker; only hits of the page are read.
    depth = max(top, room if page is None else page.depth)
    request = context.request.model_copy(update={"size": depth})
    deep = replace(context, page=None, pinned=0, request=request)
    embedding = asyncio.create_task(_embed_query(context, model))
    # If the lists raise, the embedding is not awaited: its own error must not be reported as unhandled.
    embedding.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        retrieved = await retrieve([deep])
        hits = retrieved.hits
        reranking = await _rerank(context, rerank, model, hits[:top], embedding)
        if reranking.scores is not None:
            hits = _interpolate(context, hits, top, reranking, reranking.scores)
    finally:
        embedding.cancel()
        context.stopwatch.lap("rerank")
    full = len(hits) >= depth
    hits, page = (hits[:room], None) if page is None else page.of_ranking(hits, room, full=full)
    return replace(retrieved, hits=hits, page=page, lexical_empty=False, read=False), reranking.to_response()


def _default_model(context: SearchContext) -> Reranker:
    """Return `table` if the dense encoder has a table, even one that could not be read: the answer then says so."""
    dense, manifest = context.generation.dense, context.table.manifest
    own = dense is not None and dense.fingerprint == manifest.fingerprint and manifest.dense is not None
    return "table" if own or context.dense is not None else "dense"


def _default_top(context: SearchContext, model: Reranker) -> int:
    """Return the number of documents to score. A listwise model takes seconds for a hundred."""
    settings = context.settings
    return min(settings.listwise_top if model == "listwise" else DEFAULT_RERANK_DEPTH, settings.max_rerank)


def _default_weight(context: SearchContext, model: Reranker) -> float:
    """Return the share of a model's scores. The operator, who chooses a reranker, also sets its share."""
    if model == "cross-encoder":
        return context.settings.cross_encoder_weight
    if model == "listwise":
        return context.settings.listwise_weight
    return DEFAULT_MODEL_WEIGHT


def _model(context: SearchContext) -> ModelClient:
    """Return the model client. Raises BackendUnavailable (`model_not_configured`)."""
    if context.model is None:
        raise BackendUnavailable("model_not_configured", "SPARSEWELL_MODEL_URL names no model process.")
    return context.model


async def _embed_query(context: SearchContext, model: Reranker) -> DenseArray | None:
    """Return the query's vector of the model process for `dense`, None for other rerankers."""
    identity = context.generation.dense
    if model != "dense" or identity is None:
        return None
    return await _model(context).embed(context.request.query, identity)


async def _rerank(
    context: SearchContext,
    rerank: Rerank,
    model: Reranker,
    hits: Sequence[Hit],
    embedding: Awaitable[DenseArray | None],
) -> _Reranking:
    """Return the scores of the requested model, or those of the table if the model process gives none."""
    if model == "table":
        return await _rerank_by_table(context, rerank, hits, rerank.weight)
    weight = _default_weight(context, model) if rerank.weight is None else rerank.weight
    try:
        query = await embedding
        scores = (
            await _cross_encoder_scores(context, model, hits)
            if query is None
            else await _vector_scores(context, rerank, hits, query, weight)
        )
    except BackendUnavailable as error:
        if not error.code.startswith("model_"):
            raise
        SEARCH_FALLBACKS.labels("rerank", error.code).inc()
        if context.dense is None:
            return _Reranking(model, weight, None, error.code)
        # The weight of the request was meant for another model.
        stand_in = await _rerank_by_table(context, rerank, hits, None)
        if stand_in.scores is None:
            return _Reranking(model, weight, None, error.code)
        return replace(stand_in, reason=error.code)
    return _Reranking(model, weight, scores)


async def _rerank_by_table(
    context: SearchContext, rerank: Rerank, hits: Sequence[Hit], weight: float | None
) -> _Reranking:
    """Return the scores by the dense query table; None if there is no table or it knows no piece of the query."""
    weight = DEFAULT_TABLE_WEIGHT if weight is None else weight
    if context.dense is None:
        SEARCH_FALLBACKS.labels("rerank", "no_dense_table").inc()
        return _Reranking("table", weight, None, "no_dense_table")
    query = context.dense.encode(context.request.query)
    if query is None:
        return _Reranking("table", weight, None, "no_known_words")
    return _Reranking("table", weight, await _vector_scores(context, rerank, hits, query, weight))


async def _vector_scores(
    context: SearchContext, rerank: Rerank, hits: Sequence[Hit], query: DenseArray, weight: float
) -> ModelScores:
    """Return the scores of the hits' stored vectors for a query vector, with feedback if it is requested."""
    if not hits:
        return {}
    stored = await _stored_vectors(context, hits, len(query))
    scores = stored.scores(query)
    if rerank.feedback is None:
        return scores
    best = interpolate_scores([(hit.id, hit.score) for hit in hits], scores, weight)[: rerank.feedback.documents]
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


async def _cross_encoder_scores(context: SearchContext, name: Reranker, hits: Sequence[Hit]) -> ModelScores:
    """Return the score of each document's best passage."""
    model = _model(context)
    if not hits:
        return {}
    hits = await read_sources(context, hits, ("state", "title", "text", "windows"))
    query, words = context.query.by_id(), context.request.query
    passages, turns = {}, LoopTurns()
    for hit in hits:
        if hit.source is not None:
            title, text = hit.source.get("title", ""), hit.source["text"]
            best = best_passage(title, text, read_packed_windows(hit.source), query, words)["text"]
            passages[hit.id] = f"{title}\n{best}"[:_MAX_PASSAGE_CHARACTERS]
            await turns.count(stored_size(hit.source))
    if not passages:
        return {}
    scores = await model.score(name, words, list(passages.values()))
    return dict(zip(passages, scores.tolist(), strict=True))


def _interpolate(
    context: SearchContext, hits: Sequence[Hit], count: int, reranking: _Reranking, second: ModelScores
) -> list[Hit]:
    """Return the top hits by the weighted sum of both scores, explained on request, then the rest in order."""
    top = {hit.id: hit for hit in hits[:count]}
    scores = [(hit.id, hit.score) for hit in top.values()]
    shares = interpolation_shares(scores, second, reranking.weight) if context.request.explain else {}
    reranked = []
    for name, score in interpolate_scores(scores, second, reranking.weight):
        hit = top[name]._replace(score=score, reranking=shares.get(name))
        reranked.append(hit._replace(scores={**hit.scores, reranking.model: second[name]}) if name in second else hit)
    return reranked + list(hits[count:])
