"""Liveness and readiness, which mean different things: a process that is alive may have nothing to answer with."""

import asyncio
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from query_api.parts import WithParts
from query_api.routes.answers import documented, json_answer
from services.contracts import encode_queue
from services.errors import BackendUnavailable, EncoderMismatch
from services.opensearch.generations import list_call, read_active

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="live", summary="Is the process alive")
async def live() -> Response:
    return json_answer({"status": "alive"})


@router.get(
    "/readyz",
    responses=documented(200, dict[str, Any], 503),
    operation_id="ready",
    summary="Can searches be answered",
)
async def ready(parts: WithParts) -> Response:
    """OpenSearch answers and every index can be served with the query table of its encoder.

    Redis is reported and not required: without it searches go on and documents are journalled.
    """
    generations = read_active(await parts.search.send(list_call(parts.names, near=True)))
    for generation in generations:
        if not parts.tables.serves(generation.encoder.fingerprint):
            raise EncoderMismatch(
                "encoder_mismatch",
                f"No query table for the index {generation.index!r}, which {generation.encoder.name} "
                f"({generation.encoder.fingerprint}) encoded.",
            )
    try:
        waiting: int | None = await asyncio.to_thread(parts.publisher.depth, encode_queue(parts.tables.default.name))
    except BackendUnavailable:
        waiting = None
    return json_answer(
        {
            "status": "ready",
            "encoder": {"name": parts.tables.default.name, "fingerprint": parts.tables.default.fingerprint},
            "indexes": len(generations),
            "queue": {"reachable": waiting is not None, "messages": waiting},
        }
    )
