"""Liveness and readiness, which mean different things: a process that is alive may have nothing to answer with.

What an operator asks first: queues, workers, and every generation of every index. Bounded work, whatever is away.

What the operator's page shows.
"""

import asyncio
import time
from collections import defaultdict
from dataclasses import asdict, replace
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import Response

from query_api.app_state import AppState, WithApp
from query_api.readiness import CHECK_TIMEOUT_SECONDS
from query_api.schemas.resources import document_responses, json_response
from services.access.principals import ALL_INDEXES
from services.errors import BackendUnavailable, SparsewellError
from services.index_spec import Generation
from services.opensearch.client import Call
from services.opensearch.generations import all_generations_call, read_generations
from services.opensearch.maintenance import EMPTY_BACKLOG, BacklogCounts, backlog_call, read_backlog
from services.opensearch.reindex import ReindexRecord, read_reindex_records, reindex_records_call
from services.queue.messages import INGEST_QUEUE, encode_queue
from services.telemetry.logs import build_information

STATUS_SECONDS: Final = 5.0


async def read_service_status(app: AppState) -> dict[str, Any]:
    """Raises BackendUnavailable when OpenSearch is away; of Redis it says so (`queues` and `workers` are null)."""
    names = app.names
    listed, counted, recorded = await asyncio.gather(
        app.search.send(all_generations_call(names)),
        app.search.send(backlog_call(names, STATUS_SECONDS)),
        app.search.send(reindex_records_call(names, STATUS_SECONDS)),
    )
    generations = [one for one in read_generations(listed) if app.who.may(one.index)]
    aliases = {one.physical: set(listed[one.physical].get("aliases", {})) for one in generations}
    waiting = read_backlog(counted)
    records = {record.index: record for record in read_reindex_records(recorded)}
    by_index: dict[str, list[Generation]] = defaultdict(list)
    for one in generations:
        by_index[one.index].append(one)
    encoders = sorted({one.encoder.name for one in generations if one.write_alias in aliases[one.physical]})
    queues, workers = await asyncio.to_thread(_read_queues, app, encoders)
    now = time.time() * 1000
    return {
        "queues": queues,
        "workers": workers,
        "indexes": [
            _describe_index_status(index, of, aliases, waiting, records.get(index), now)
            for index, of in sorted(by_index.items())
        ],
    }


def _read_queues(app: AppState, encoders: list[str]) -> tuple[list[dict[str, Any]] | None, list[dict[str, Any]] | None]:
    now = time.time() * 1000
    try:
        found = []
        for name in (INGEST_QUEUE, *map(encode_queue, encoders)):
            messages, oldest = app.publisher.depth(name), app.publisher.oldest_sent_at(name)
            found.append({"queue": name, "messages": messages, "oldest_seconds": _age_seconds(oldest, now)})
        everything = ALL_INDEXES in app.who.indexes
        workers = [one for one in app.presence.workers() if everything or one.encoder in encoders]
        return found, [asdict(one) for one in workers]
    except BackendUnavailable:
        return None, None


def _age_seconds(moment: int | None, now: float) -> float | None:
    """Seconds; None where there is nothing, or nobody said when it came."""
    return round(max(0.0, now - moment) / 1000, 1) if moment else None


def _describe_index_status(
    index: str,
    generations: list[Generation],
    aliases: dict[str, set[str]],
    waiting: dict[str, BacklogCounts],
    record: ReindexRecord | None,
    now: float,
) -> dict[str, Any]:
    shown = []
    for one in generations:
        here = waiting.get(one.physical, EMPTY_BACKLOG)
        written = one.write_alias in aliases[one.physical]
        state = "searched" if one.alias in aliases[one.physical] else "building" if written else "kept"
        shown.append(
            {
                "number": one.number,
                "state": state,
                "encoder": one.encoder.model_dump(),
                "created_at": one.created_at,
                # (what a retired generation had is not looked at)
                "pending": here.pending if written else None,
                "dead": here.dead if written else None,
                # (one that is being built has documents that came long ago)
                "oldest_pending_seconds": _age_seconds(here.oldest, now) if state == "searched" else None,
            }
        )
    return {
        "name": index,
        "generations": shown,
        "reindex": None if record is None else _describe_reindexing(record, now),
    }


def _describe_reindexing(record: ReindexRecord, now: float) -> dict[str, Any]:
    return {
        "step": record.step,
        "rollback": record.rollback,
        "from": record.source.number,
        "to": record.target.number,
        "carried": record.carried,
        "misfits": record.misfits,
        "started_seconds_ago": _age_seconds(record.started_at, now),
        "idle_seconds": _age_seconds(record.updated_at, now),
    }


status_router = APIRouter(prefix="/v1/status", tags=["health"])


@status_router.get(
    "",
    responses=document_responses(200, dict[str, Any], 503),
    operation_id="status",
    summary="Queues, workers, and the generations of every index",
)
async def get_status(app: WithApp) -> Response:
    """`queues` and `workers` are null while Redis does not answer. A worker is listed for 35 s after it was last seen.

    A key that is for some indexes sees those, their encoders' queues, and the workers of these.
    """
    return json_response(await read_service_status(app))


health_router = APIRouter(tags=["health"])

_NODE_CALL = Call("GET", "/", params={"filter_path": "version.number,version.distribution"})


@health_router.get("/healthz", operation_id="live", summary="Is the process alive")
async def get_liveness() -> Response:
    """Nothing else is asked: what is wrong with OpenSearch is not mended by restarting this."""
    return json_response({"status": "alive"})


@health_router.get(
    "/readyz",
    responses=document_responses(200, dict[str, Any], 503),
    operation_id="ready",
    summary="Can searches be answered",
)
async def get_readiness(app: WithApp) -> Response:
    """OpenSearch answers, every index can be served with the query table of its encoder, and the process goes on.

    `checks` says it of each part. Redis is reported and not required: without it searches go on and documents are
    journalled. What was seen is a second old at most.
    """
    if app.who.sees_everything:
        return json_response(await app.readiness.said())
    # A probe has no key, and needs no more than this; a key of some indexes or documents is told of no others.
    try:
        said = await app.readiness.said()
    except SparsewellError as error:
        raise type(error)(
            error.code, "This process cannot answer searches; a key of every index is told why.", **error.extra
        ) from None
    return json_response({name: said[name] for name in ("status", "checks")})


@health_router.get(
    "/version",
    responses=document_responses(200, dict[str, Any]),
    operation_id="version",
    summary="Which build this is, and what it works with",
)
async def get_version(app: WithApp) -> Response:
    """`opensearch` is null while it does not answer; `commit` where the build was not told."""
    default = app.tables.default
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            answer = await app.everything.send(replace(_NODE_CALL, timeout=CHECK_TIMEOUT_SECONDS))
        said = answer["version"]
        node = {"version": said["number"], "distribution": said.get("distribution", "elasticsearch")}
    except (SparsewellError, TimeoutError):
        node = None
    return json_response(
        build_information(app.settings)
        | {"encoder": {"name": default.name, "fingerprint": default.fingerprint}, "opensearch": node}
    )
