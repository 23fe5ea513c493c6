"""Routes of curation rules, which have versions, ETags (RFC 9110, If-Match) and a dry run."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path
from fastapi.responses import Response

from query_api import curation
from query_api.app_state import WithApp
from query_api.routes.json_route import JsonRoute
from query_api.schemas.admin import CurationAnswer, CurationRequest, CurationVersions, DryRunAnswer, DryRunRequest
from query_api.schemas.resources import document_responses, json_response
from query_api.search.validation import limits_of
from services.curation.effects import check_rules
from services.curation.matching import CompiledRules

curation_router = APIRouter(prefix="/v1/indexes/{index}/curation", tags=["curation"], route_class=JsonRoute)

IfMatchHeader = Annotated[
    str | None,
    Header(description='the version that you read, as `"7"`; `*`: any version; none: only if there are no rules yet'),
]


@curation_router.get(
    "",
    responses=document_responses(200, CurationAnswer, 404, 422, 503),
    operation_id="get_curation",
    summary="Read the rules of an index",
)
async def get_curation(index: str, app: WithApp) -> Response:
    stored = await curation.read_newest_curation(app, await app.generation(index))
    return _curation_response(curation.describe_curation(index, None if stored is None else stored.record))


@curation_router.put(
    "",
    responses=document_responses(200, CurationAnswer, 404, 409, 413, 422, 503),
    operation_id="put_curation",
    summary="Replace the rules of an index",
)
async def put_curation(index: str, body: CurationRequest, app: WithApp, if_match: IfMatchHeader = None) -> Response:
    """The rules apply to searches of this process at once, and to all others within two seconds."""
    match = curation.parse_if_match(if_match)
    generation = await app.generation(index)
    return _curation_response(
        curation.describe_curation(index, await curation.change_curation(app, generation, body.rules, body.note, match))
    )


@curation_router.get(
    "/versions",
    responses=document_responses(200, CurationVersions, 404, 422, 503),
    operation_id="list_curation_versions",
    summary="List the versions of an index's rules",
)
async def list_versions(index: str, app: WithApp) -> Response:
    records = await curation.read_curation_versions(app, await app.generation(index))
    versions = [curation.describe_curation(index, record) for record in records]
    return json_response(
        {"index": index, "versions": [{k: version[k] for k in ("version", "at", "note")} for version in versions]}
    )


@curation_router.get(
    "/versions/{version}",
    responses=document_responses(200, CurationAnswer, 404, 422, 503),
    operation_id="get_curation_version",
    summary="Read an earlier version of an index's rules",
)
async def get_version(index: str, version: Annotated[int, Path(ge=1, lt=10**18)], app: WithApp) -> Response:
    record = await curation.read_curation_version(app, await app.generation(index), version)
    return json_response(curation.describe_curation(index, record))


@curation_router.post(
    "/dry-run",
    responses=document_responses(200, DryRunAnswer, 404, 413, 422, 503),
    operation_id="dry_run_curation",
    summary="Show which queries proposed rules would answer differently",
)
async def post_dry_run(index: str, body: DryRunRequest, app: WithApp) -> Response:
    app.forget(index)  # The comparison uses the stored rules, not cached ones.
    generation = await app.generation(index)
    limits = limits_of(app.settings)
    await asyncio.to_thread(check_rules, body.rules, generation, app.tables.of(generation), limits)
    stored = app.curations.of(generation)
    differences = await curation.compare_rules(
        app, index, CompiledRules(body.rules), body.queries, body.mode, body.size
    )
    return json_response(
        {
            "index": index,
            "version": 0 if stored is None else stored.version,
            "changed": sum(difference["changed"] for difference in differences),
            "queries": differences,
        }
    )


def _curation_response(answer: dict[str, Any]) -> Response:
    response = json_response(answer)
    response.headers["etag"] = curation.format_etag(answer["version"])
    return response
