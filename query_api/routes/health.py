"""Routes for operators and probes: liveness, readiness, version and status.

A live process (`/healthz`) need not be ready to answer searches (`/readyz`). The status (`/v1/status`) lists queues,
workers and every generation of every index, with bounded work; the operator's page shows it.
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
from query_api.routes.json_route import JsonRoute
from query_api.schemas.resources import document_responses, json_response
from services.access.principals import ALL_INDEXES
from services.errors import BackendUnavailable, SparsewellError
from services.index_spec import Generation
from services.opensearch.client import Call
from services.opensearch.generations import all_generations_call, read_generations
from services.opensearch.journal import EMPTY_BACKLOG, BacklogCounts, backlog_call, read_backlog
from services.opensearch.reindex import ReindexRecord, read_reindex_records, reindex_records_call
from services.queue.lanes import queues_by_name
from services.telemetry.logs import build_information

STATUS_SECONDS: Final = 5.0
_NODE_CALL: Final = Call("GET", "/", params={"filter_path": "version.number,version.distribution"})


health_router = APIRouter(tags=["health"], route_class=JsonRoute)


@health_router.get("/healthz", operation_id="live", summary="Check whether the process is alive")
async def get_liveness() -> Response:
    """The check asks no other service: a restart of this process would not repair OpenSearch."""
    return json_response({"status": "alive"})


@health_router.get(
    "/readyz",
    responses=document_responses(200, dict[str, Any], 503),
    operation_id="ready",
    summary="Check whether the process can answer searches",
)
async def get_readiness(app: WithApp) -> Response:
    """A process is ready when OpenSearch answers, its own query table is loaded, and it is not about to end.

    `checks` has the result for each part. An index whose query table is missing does not count: `unserved` lists it,
    and its searches get 503 `encoder_mismatch`. Redis is not required either: without it the process still answers
    searches and journals documents. The answer is at most one second old, the list of indexes at most 15 s.
    """
    if app.principal.sees_everything:
        return json_response(await app.readiness.report())
    # A probe has no key. A key for some indexes or documents must not learn of others.
    try:
        report = await app.readiness.report()
    except SparsewellError as error:
        raise type(error)(
            error.code, "This process cannot answer searches. A key for every index sees the reason.", **error.extra
        ) from None
    return json_response({name: report[name] for name in ("status", "checks")})


@health_router.get(
    "/version",
    responses=document_responses(200, dict[str, Any]),
    operation_id="version",
    summary="Show the versions of the service and of OpenSearch",
)
async def get_version(app: WithApp) -> Response:
    """`opensearch` is null while OpenSearch does not answer. `commit` is null when the build did not set it."""
    default = app.tables.default
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            answer = await app.unrestricted_search.send(replace(_NODE_CALL, timeout=CHECK_TIMEOUT_SECONDS))
        node_version = answer["version"]
        node = {
            "version": node_version["number"],
            "distribution": node_version.get("distribution", "elasticsearch"),
        }
    except (SparsewellError, TimeoutError):
        node = None
    return json_response(
        build_information(app.settings)
        | {"encoder": {"name": default.name, "fingerprint": default.fingerprint}, "opensearch": node}
    )


status_router = APIRouter(prefix="/v1/status", tags=["health"], route_class=JsonRoute)


@status_router.get(
    "",
    responses=document_responses(200, dict[str, Any], 503),
    operation_id="status",
    summary="Show queues, workers and the generations of every index",
)
async def get_status(app: WithApp) -> Response:
    """`queues` and `workers` are null while Redis does not answer. A worker is listed for 35 s after a heartbeat.

    A key for some indexes sees only these, the queues of their encoders and the workers of these encoders.
    """
    return json_response(await read_service_status(app))


async def read_service_status(app: AppState) -> dict[str, Any]:
    """Read the status of queues, workers and indexes. `queues` and `workers` are null while Redis is away.

    Raises BackendUnavailable when OpenSearch is away.
    """
    names = app.names
    listed, counted, recorded = await asyncio.gather(
        app.search.send(all_generations_call(names)),
        app.search.send(backlog_call(names, STATUS_SECONDS)),
        app.search.send(reindex_records_call(names, STATUS_SECONDS)),
    )
    # In a thread: 5,000 indexes take .5 s, and the event loop answers other requests meanwhile.
    every = await asyncio.to_thread(read_generations, listed)
    generations = [generation for generation in every if app.principal.may(generation.index)]
    aliases = {generation.physical: set(listed[generation.physical].get("aliases", {})) for generation in generations}
    backlogs = read_backlog(counted)
    records = {record.index: record for record in read_reindex_records(recorded)}
    by_index: dict[str, list[Generation]] = defaultdict(list)
    for generation in generations:
        by_index[generation.index].append(generation)
    encoders = sorted(
        {
            generation.encoder.name
            for generation in generations
            if generation.write_alias in aliases[generation.physical]
        }
    )
    queues, workers = await asyncio.to_thread(_read_queues, app, encoders)
    now = time.time() * 1000
    return {
        "queues": queues,
        "workers": workers,
        "indexes": [
            _describe_index_status(index, members, aliases, backlogs, records.get(index), now)
            for index, members in sorted(by_index.items())
        ],
    }


def _read_queues(app: AppState, encoders: list[str]) -> tuple[list[dict[str, Any]] | None, list[dict[str, Any]] | None]:
    """Read the queues and the workers of these encoders; None for both while Redis is away."""
    now = time.time() * 1000
    try:
        queues = []
        for name, lanes in queues_by_name(encoders).items():
            messages, oldest = app.publisher.depth(*lanes), app.publisher.oldest_sent_at(*lanes)
            queues.append({"queue": name, "messages": messages, "oldest_seconds": _age_seconds(oldest, now)})
        everything = ALL_INDEXES in app.principal.indexes
        workers = [worker for worker in app.worker_registry.workers() if everything or worker.encoder in encoders]
        return queues, [asdict(worker) for worker in workers]
    except BackendUnavailable:
        return None, None


def _age_seconds(moment: int | None, now: float) -> float | None:
    """Return the age in seconds of a time in milliseconds; None when there is none."""
    return round(max(0.0, now - moment) / 1000, 1) if moment else None


def _describe_index_status(
    index: str,
    generations: list[Generation],
    aliases: dict[str, set[str]],
    backlogs: dict[str, BacklogCounts],
    record: ReindexRecord | None,
    now: float,
) -> dict[str, Any]:
    described = []
    for generation in generations:
        backlog = backlogs.get(generation.physical, EMPTY_BACKLOG)
        names = aliases[generation.physical]
        written = generation.write_alias in names
        state = "searched" if generation.alias in names else "building" if written else "kept"
        described.append(
            {
                "number": generation.number,
                "state": state,
                "encoder": generation.encoder.model_dump(),
                "created_at": generation.created_at,
                # A retired generation is not counted.
                "pending": backlog.pending if written else None,
                "dead": backlog.dead if written else None,
                # A generation that is being built holds documents that are old but have just been copied.
                "oldest_pending_seconds": _age_seconds(backlog.oldest, now) if state == "searched" else None,
            }
        )
    return {
        "name": index,
        "generations": described,
        "reindex": None if record is None else _describe_reindexing(record, now),
    }


def _describe_reindexing(record: ReindexRecord, now: float) -> dict[str, Any]:
    return {
        "step": record.step,
        "rollback": record.rollback,
        "from": record.source.number,
        "to": record.target.number,
        "copied": record.copied,
        "incompatible": record.incompatible,
        # The former names of these two; the next version leaves them out.
        "carried": record.copied,
        "misfits": record.incompatible,
        "started_seconds_ago": _age_seconds(record.started_at, now),
        "idle_seconds": _age_seconds(record.updated_at, now),
    }
