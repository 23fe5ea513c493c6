"""The operator's hand on an index: its rules, their earlier versions, and what others would change."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path
from fastapi.responses import Response

from query_api import curating
from query_api.curation_form import CurationAnswer, CurationBody, CurationVersions, DryRunAnswer, DryRunBody
from query_api.dry_run import dry_run
from query_api.parts import WithApp
from query_api.routes.answers import documented, json_answer
from query_api.search.selection import limits_of
from services.curation.checking import checked_rules
from services.curation.matching import Compiled

router = APIRouter(prefix="/v1/indexes/{index}/curation", tags=["curation"])

IfMatch = Annotated[
    str | None,
    Header(description='the version that was read, as `"7"`; `*`: whatever it is; none: only where there are no rules'),
]


@router.get(
    "",
    responses=documented(200, CurationAnswer, 404, 422, 503),
    operation_id="get_curation",
    summary="Read the rules of an index",
)
async def get_curation(index: str, app: WithApp) -> Response:
    stored = await curating.newest(app, await app.generation(index))
    return _answered(curating.shown(index, None if stored is None else stored.record))


@router.put(
    "",
    responses=documented(200, CurationAnswer, 404, 409, 413, 422, 503),
    operation_id="put_curation",
    summary="Replace the rules of an index",
)
async def put_curation(index: str, body: CurationBody, app: WithApp, if_match: IfMatch = None) -> Response:
    """The rules hold at once for searches of this process, within two seconds for all others."""
    match = curating.checked_match(if_match)
    generation = await app.generation(index)
    return _answered(curating.shown(index, await curating.change(app, generation, body.rules, body.note, match)))


@router.get(
    "/versions",
    responses=documented(200, CurationVersions, 404, 422, 503),
    operation_id="list_curation_versions",
    summary="List the versions of an index's rules",
)
async def list_versions(index: str, app: WithApp) -> Response:
    found = await curating.versions(app, await app.generation(index))
    shown = [curating.shown(index, record) for record in found]
    return json_answer({"index": index, "versions": [{k: one[k] for k in ("version", "at", "note")} for one in shown]})


@router.get(
    "/versions/{version}",
    responses=documented(200, CurationAnswer, 404, 422, 503),
    operation_id="get_curation_version",
    summary="Read an earlier version of an index's rules",
)
async def get_version(index: str, version: Annotated[int, Path(ge=1, lt=10**18)], app: WithApp) -> Response:
    found = await curating.version(app, await app.generation(index), version)
    return json_answer(curating.shown(index, found))


@router.post(
    "/dry-run",
    responses=documented(200, DryRunAnswer, 404, 413, 422, 503),
    operation_id="dry_run_curation",
    summary="See which queries other rules would answer differently",
)
async def post_dry_run(index: str, body: DryRunBody, app: WithApp) -> Response:
    app.forget(index)  # compared with what is stored now
    generation = await app.generation(index)
    limits = limits_of(app.settings)
    await asyncio.to_thread(checked_rules, body.rules, generation, app.tables.of(generation), limits)
    stored = app.curations.of(generation)
    found = await dry_run(app, index, Compiled(body.rules), body.queries, body.mode, body.size)
    return json_answer(
        {
            "index": index,
            "version": 0 if stored is None else stored.version,
            "changed": sum(one["changed"] for one in found),
            "queries": found,
        }
    )


def _answered(answer: dict[str, Any]) -> Response:
    response = json_answer(answer)
    response.headers["etag"] = curating.etag(answer["version"])
    return response
