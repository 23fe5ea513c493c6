"""The model process: dense encoders and rerankers over HTTP.

The query side has no model libraries: it sends texts to this process and gets vectors or scores
(`docs/decisions/0142`). `ModelPool` holds the models of the settings and bounds the queue of requests;
`create_model_app` serves POST /embed, POST /rerank and GET /healthz.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import orjson
from fastapi import FastAPI
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from models.dense import DenseModel, load_dense_encoder
from models.download import MessageReporter
from models.reranking import PassageScorer
from services.encoders.catalogue import find_dense_encoder, list_dense_encoders
from services.errors import BackendUnavailable, InvalidInput, Overloaded
from services.settings import Settings, split_names
from services.web.http_auth import BearerKeyMiddleware
from services.web.middleware import BodyLimitMiddleware, ObservabilityMiddleware
from services.web.problems import add_handlers

Result = TypeVar("Result")
# A search waits half a second. Requests behind more than 64 others would be computed after their search gave up.
MAX_WAITING_REQUESTS = 64
MAX_TEXTS, MAX_PASSAGES = 64, 200
RequestText = Annotated[str, Field(max_length=16_384)]


class ModelPool:
    """The models of a process: dense encoders by name and fingerprint, rerankers by name.

    `threads` compute for the dense encoders, and as many for each reranker: a slow reranker delays no embedding.
    """

    def __init__(
        self, dense: Mapping[str, DenseModel], scorers: Mapping[str, PassageScorer], *, threads: int = 1
    ) -> None:
        self.dense = dict(dense)
        self.scorers = dict(scorers)
        self._by_fingerprint = {model.fingerprint: model for model in dense.values()}
        # None: the dense encoders.
        lanes: list[str | None] = [None, *scorers]
        self._pools = {lane: ThreadPoolExecutor(threads, f"model-{lane or 'dense'}") for lane in lanes}
        self._waiting = dict.fromkeys(lanes, 0)

    def encoder(self, name: str | None) -> DenseModel:
        """Return an encoder by name or fingerprint; None: the first. Raises InvalidInput (`unknown_dense_encoder`)."""
        if name is None and self.dense:
            return next(iter(self.dense.values()))
        encoder = self._by_fingerprint.get(name or "") or self.dense.get(name or "")
        if encoder is None:
            known = ", ".join(f"{model.name} ({model.fingerprint})" for model in self.dense.values()) or "none"
            raise InvalidInput("unknown_dense_encoder", f"This process does not hold {name!r}; it holds {known}.")
        return encoder

    def scorer(self, name: str) -> PassageScorer:
        """Return the reranker of a name. Raises InvalidInput (`unknown_reranker`)."""
        if name not in self.scorers:
            known = ", ".join(self.scorers) or "none"
            raise InvalidInput("unknown_reranker", f"This process has no reranker {name[:80]!r}; it has {known}.")
        return self.scorers[name]

    async def compute(self, work: Callable[[], Result], reranker: str | None = None) -> Result:
        """Run `work` in a thread of a reranker (None: of the dense encoders).

        Raises Overloaded (`model_busy`) when too many requests wait for the same models.
        """
        if self._waiting[reranker] >= MAX_WAITING_REQUESTS:
            raise Overloaded("model_busy", "Too many requests wait for this model; try again in a moment.")
        self._waiting[reranker] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pools[reranker], work)
        finally:
            self._waiting[reranker] -= 1

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)


def load_model_pool(settings: Settings, cache: Path, report: MessageReporter) -> ModelPool:
    """Load the models that the settings name. Raises InvalidInput (`unknown_dense_encoder`) and ConfigurationError."""
    known = list_dense_encoders(settings)
    names, threads = split_names(settings.model_encoders), settings.worker_threads
    dense = {
        name: load_dense_encoder(find_dense_encoder(known, name), cache, report, threads=threads) for name in names
    }
    for model in dense.values():
        # The first run allocates memory. A projected encoder that cannot read queries is refused here.
        model.encode_queries(["warm up"])
    scorers: dict[str, PassageScorer] = {}
    if settings.cross_encoder:
        from models.reranking import CrossEncoderScorer

        scorers["cross-encoder"] = CrossEncoderScorer(settings.cross_encoder)
    if settings.listwise_reranker and settings.listwise_method == "attention":
        from models.in_context_ranking import InContextScorer

        scorers["listwise"] = InContextScorer(settings.listwise_reranker, layer=settings.listwise_layer)
    elif settings.listwise_reranker:
        from models.reranking import ListwiseScorer

        scorers["listwise"] = ListwiseScorer(settings.listwise_reranker)
    return ModelPool(dense, scorers)


class EmbedRequest(BaseModel):
    """Texts to embed. `encoder`: a name or fingerprint; null: the first encoder of the process."""

    model_config = ConfigDict(extra="forbid")

    texts: list[RequestText] = Field(min_length=1, max_length=MAX_TEXTS)
    kind: Literal["query", "passage"] = "query"
    encoder: str | None = None


class RerankRequest(BaseModel):
    """A query, and passages to score for it."""

    model_config = ConfigDict(extra="forbid")

    model: str = "cross-encoder"
    query: RequestText
    passages: list[RequestText] = Field(min_length=1, max_length=MAX_PASSAGES)


def create_model_app(pool: ModelPool, keys: Sequence[str] = (), *, log_requests: bool = False) -> FastAPI:
    """Create the application. Errors are problem+json, request bodies have at most 1 MiB.

    `keys`: a request must have one of these keys; without keys there is no authentication.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        pool.close()

    app = FastAPI(title="sparsewell models", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimitMiddleware)
    app.add_middleware(BearerKeyMiddleware, keys=keys)
    app.add_middleware(ObservabilityMiddleware, log_requests=log_requests)
    add_handlers(app)

    @app.post("/embed")
    async def embed(request: EmbedRequest) -> Response:
        """Return one vector a text. Texts are truncated at the model's length."""
        model = pool.encoder(request.encoder)
        encode = model.encode_queries if request.kind == "query" else model.encode_passages
        vectors = await pool.compute(lambda: encode(request.texts))
        return _json_response(
            {
                "name": model.name,
                "fingerprint": model.fingerprint,
                "width": model.width,
                "vectors": np.ascontiguousarray(vectors, dtype=np.float32),
            }
        )

    @app.post("/rerank")
    async def rerank(request: RerankRequest) -> Response:
        """Return one score a passage, in their order; higher is better."""
        scorer = pool.scorer(request.model)
        found = await pool.compute(lambda: scorer(request.query, request.passages), request.model)
        scores = np.asarray(found, dtype=np.float32)
        if scores.shape != (len(request.passages),) or not np.isfinite(scores).all():
            raise BackendUnavailable(
                "bad_scores", f"The reranker {request.model} did not give a finite score for each passage."
            )
        return _json_response({"model": request.model, "scores": scores})

    @app.get("/healthz")
    async def healthz() -> Response:
        encoders = [{"name": model.name, "fingerprint": model.fingerprint} for model in pool.dense.values()]
        return _json_response({"status": "ok", "encoders": encoders, "rerankers": sorted(pool.scorers)})

    return app


def _json_response(value: dict[str, Any]) -> Response:
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
