"""The HTTP application of the model process. It knows texts and numbers, and nothing of indexes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from fastapi import FastAPI
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from models.serving.held import Held
from services.errors import BackendUnavailable
from services.web.bearer import BearerKeys
from services.web.body_limit import BodyLimit
from services.web.observed import Observed
from services.web.problems import add_handlers

MOST_TEXTS, MOST_PASSAGES = 64, 200
Text = Annotated[str, Field(max_length=16_384)]


class EmbedRequest(BaseModel):
    """Texts to embed. `encoder` is a name or a fingerprint; without one the first encoder is taken."""

    model_config = ConfigDict(extra="forbid")

    texts: list[Text] = Field(min_length=1, max_length=MOST_TEXTS)
    kind: Literal["query", "passage"] = "query"
    encoder: str | None = None


class RerankRequest(BaseModel):
    """A query and the passages that are scored for it."""

    model_config = ConfigDict(extra="forbid")

    model: str = "cross-encoder"
    query: Text
    passages: list[Text] = Field(min_length=1, max_length=MOST_PASSAGES)


def create_model_app(held: Held, keys: Sequence[str] = (), *, log_requests: bool = False) -> FastAPI:
    """POST /embed, POST /rerank, GET /healthz. Errors are problem+json; a body has 1 MiB at most. `keys`: one of them
    is asked for; none: nobody is asked.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        held.close()

    app = FastAPI(title="sparsewell models", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit)
    app.add_middleware(BearerKeys, keys=keys)
    app.add_middleware(Observed, log_requests=log_requests)
    add_handlers(app)

    @app.post("/embed")
    async def embed(request: EmbedRequest) -> Response:
        """One vector a text; a text that is longer than the model reads is cut."""
        model = held.encoder(request.encoder)
        encode = model.encode_queries if request.kind == "query" else model.encode_passages
        vectors = await held.compute(lambda: encode(request.texts))
        return _answer(
            {
                "name": model.name,
                "fingerprint": model.fingerprint,
                "width": model.width,
                "vectors": np.ascontiguousarray(vectors, dtype=np.float32),
            }
        )

    @app.post("/rerank")
    async def rerank(request: RerankRequest) -> Response:
        """One score a passage, in their order; higher is better."""
        scorer = held.scorer(request.model)
        scores = np.asarray(await held.compute(lambda: scorer(request.query, request.passages)), dtype=np.float32)
        if scores.shape != (len(request.passages),) or not np.isfinite(scores).all():
            raise BackendUnavailable("bad_scores", f"The reranker {request.model} gave no finite score a passage.")
        return _answer({"model": request.model, "scores": scores})

    @app.get("/healthz")
    async def healthz() -> Response:
        encoders = [{"name": one.name, "fingerprint": one.fingerprint} for one in held.dense.values()]
        return _answer({"status": "ok", "encoders": encoders, "rerankers": sorted(held.scorers)})

    return app


def _answer(value: dict[str, Any]) -> Response:
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
