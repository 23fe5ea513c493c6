"""Liveness and readiness, which mean different things: a process that is alive may have nothing to answer with."""

import asyncio
from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from query_api.parts import WithApp
from query_api.readiness import LOOK_SECONDS
from query_api.routes.answers import documented, json_answer
from services.errors import SparsewellError
from services.opensearch.client import Call
from services.telemetry.build import build

router = APIRouter(tags=["health"])

_NODE = Call("GET", "/", params={"filter_path": "version.number,version.distribution"})


@router.get("/healthz", operation_id="live", summary="Is the process alive")
async def live() -> Response:
    """Nothing else is asked: what is wrong with OpenSearch is not mended by restarting this."""
    return json_answer({"status": "alive"})


@router.get(
    "/readyz",
    responses=documented(200, dict[str, Any], 503),
    operation_id="ready",
    summary="Can searches be answered",
)
async def ready(app: WithApp) -> Response:
    """OpenSearch answers, every index can be served with the query table of its encoder, and the process goes on.

    `checks` says it of each part. Redis is reported and not required: without it searches go on and documents are
    journalled. What was seen is a second old at most.
    """
    if app.who.sees_everything:
        return json_answer(await app.readiness.said())
    # A probe has no key, and needs no more than this; a key of some indexes or documents is told of no others.
    try:
        said = await app.readiness.said()
    except SparsewellError as error:
        raise type(error)(
            error.code, "This process cannot answer searches; a key of every index is told why.", **error.extra
        ) from None
    return json_answer({name: said[name] for name in ("status", "checks")})


@router.get(
    "/version",
    responses=documented(200, dict[str, Any]),
    operation_id="version",
    summary="Which build this is, and what it works with",
)
async def version(app: WithApp) -> Response:
    """`opensearch` is null while it does not answer; `commit` where the build was not told."""
    default = app.tables.default
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            answer = await app.everything.send(replace(_NODE, timeout=LOOK_SECONDS))
        said = answer["version"]
        node = {"version": said["number"], "distribution": said.get("distribution", "elasticsearch")}
    except (SparsewellError, TimeoutError):
        node = None
    return json_answer(
        build(app.settings)
        | {"encoder": {"name": default.name, "fingerprint": default.fingerprint}, "opensearch": node}
    )
