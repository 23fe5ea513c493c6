"""Routes for administrators: API keys, frequent queries and curation rules.

Keys (`/v1/keys`) need a key that administers every index, or a key could extend its own rights. Frequent queries are
listed, added and removed per index. Curation rules have versions, ETags (RFC 9110, If-Match) and a dry run.
"""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query
from fastapi.responses import Response

from query_api import curation
from query_api.app_state import AppState, WithApp
from query_api.curation import compare_rules
from query_api.keys import (
    describe_key,
    find_issued_key,
    issue_key,
    list_issued_keys,
    revoke_issued_key,
    rotate_key_secret,
)
from query_api.schemas.admin import (
    MAX_FREQUENT_QUERIES,
    AddedQueries,
    CurationAnswer,
    CurationBody,
    CurationVersions,
    DryRunAnswer,
    DryRunBody,
    FrequentQueries,
    KeyList,
    KeyModel,
    KeyRequest,
    KeyRights,
    NewKey,
    QueriesBody,
    RemovedQueries,
    RotateRequest,
)
from query_api.schemas.resources import document_responses, json_response
from query_api.search.validation import limits_of
from services.access.principals import ALL_INDEXES
from services.curation.effects import check_rules
from services.curation.matching import CompiledRules
from services.errors import Forbidden, InvalidInput
from services.opensearch.journal import now_ms
from services.opensearch.suggestions import CountedQuery, list_queries_call, read_query_list, refresh_queries_call
from services.query.suggest import learnable_query, normalise_query


async def _require_every_index(app: WithApp) -> AppState:
    """Require a key for every index. Raises Forbidden (`keys_forbidden`)."""
    if ALL_INDEXES not in app.principal.indexes:
        raise Forbidden("keys_forbidden", "Managing keys needs a key that administers every index.")
    return app


WithKeyAdministration = Annotated[AppState, Depends(_require_every_index)]
keys_router = APIRouter(prefix="/v1/keys", tags=["keys"])


@keys_router.post(
    "",
    status_code=201,
    responses=document_responses(201, NewKey, 409, 422, 503),
    operation_id="create_key",
    summary="Create a key",
)
async def create_key(body: KeyRequest, app: WithKeyAdministration) -> Response:
    """Only this answer contains the text of the key."""
    key, text = await issue_key(app, body)
    return json_response(describe_key(key) | {"key": text}, 201)


@keys_router.get(
    "", responses=document_responses(200, KeyList, 422, 503), operation_id="list_keys", summary="List the keys"
)
async def list_keys(
    app: WithKeyAdministration, revoked: Annotated[bool, Query(description="include revoked keys")] = False
) -> Response:
    return json_response({"keys": [describe_key(key) for key in await list_issued_keys(app, revoked=revoked)]})


@keys_router.get(
    "/self",
    responses=document_responses(200, KeyRights),
    operation_id="who_am_i",
    summary="Show the rights of the key of this request",
)
async def get_own_key(app: WithApp) -> Response:
    principal = app.principal
    return json_response(
        {
            "id": principal.id,
            "scopes": sorted(principal.scopes),
            "indexes": principal.indexes,
            "filter": principal.filter,
        }
    )


@keys_router.get(
    "/{key_id}", responses=document_responses(200, KeyModel, 404, 503), operation_id="get_key", summary="Show a key"
)
async def get_key(key_id: str, app: WithKeyAdministration) -> Response:
    return json_response(describe_key((await find_issued_key(app, key_id)).key))


@keys_router.post(
    "/{key_id}/rotate",
    responses=document_responses(200, NewKey, 404, 409, 422, 503),
    operation_id="rotate_key",
    summary="Give a key a new secret, and end the old one later",
)
async def rotate_key(key_id: str, app: WithKeyAdministration, body: RotateRequest | None = None) -> Response:
    rotation = body or RotateRequest.model_validate({})
    key, text = await rotate_key_secret(app, key_id, rotation.overlap_seconds)
    return json_response(describe_key(key) | {"key": text})


@keys_router.delete(
    "/{key_id}",
    status_code=204,
    responses=document_responses(204, None, 404, 409, 503),
    operation_id="revoke_key",
    summary="Revoke a key",
)
async def revoke_key(key_id: str, app: WithKeyAdministration) -> Response:
    """This process refuses the key at once, every other within four seconds."""
    await revoke_issued_key(app, key_id)
    return Response(status_code=204)


queries_router = APIRouter(prefix="/v1/indexes/{index}/queries", tags=["search"])


@queries_router.get(
    "",
    responses=document_responses(200, FrequentQueries, 404, 422, 429, 503),
    operation_id="list_queries",
    summary="List the frequent queries of an index",
)
async def list_queries(
    index: str, app: WithApp, size: Annotated[int, Query(ge=1, le=MAX_FREQUENT_QUERIES)] = 100
) -> Response:
    generation, now = await app.generation(index), now_ms()
    await app.search.send(refresh_queries_call(app.names))  # An operator expects to see queries added just before.
    answer = await app.search.send(list_queries_call(app.names, generation, size, now))
    return json_response({"index": index} | read_query_list(answer, now))


@queries_router.post(
    "",
    responses=document_responses(200, AddedQueries, 404, 409, 422, 429, 503),
    operation_id="add_queries",
    summary="Add frequent queries from elsewhere",
)
async def add_queries(index: str, body: QueriesBody, app: WithApp) -> Response:
    """The counts are added to the stored ones. Queries are case-folded."""
    generation = await app.generation(index)
    times: dict[str, int] = {}
    for position, counted in enumerate(body.queries, 1):
        query = learnable_query(counted.query)
        if query is None:
            raise InvalidInput(
                "query_not_learnable",
                f"Query {position} is not accepted: it is empty, has more than 100 characters, or contains an @, six "
                "digits in a row or unprintable characters.",
                position=position,
            )
        times[query] = times.get(query, 0) + counted.times
    await app.query_log.add([CountedQuery(index, generation.lineage, query, count) for query, count in times.items()])
    return json_response({"index": index, "added": len(times)})


@queries_router.delete(
    "",
    responses=document_responses(200, RemovedQueries, 404, 422, 429, 503),
    operation_id="delete_queries",
    summary="Remove one or all frequent queries of an index",
)
async def delete_queries(
    index: str,
    app: WithApp,
    q: Annotated[str | None, Query(description="the query to remove, in any case and with any accents")] = None,
    everything: Annotated[bool, Query(alias="all", description="remove all queries")] = False,
) -> Response:
    if (q is None) != everything:
        raise InvalidInput("invalid_request", "Name one query as `q`, or send `all=true`.")
    await app.generation(index)
    # `learnable_query` is too strict here: an earlier version may have stored queries that it refuses now.
    query = None if q is None else normalise_query(q)
    return json_response({"index": index, "deleted": await app.query_log.forget(index, query)})


curation_router = APIRouter(prefix="/v1/indexes/{index}/curation", tags=["curation"])

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
async def put_curation(index: str, body: CurationBody, app: WithApp, if_match: IfMatchHeader = None) -> Response:
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
async def post_dry_run(index: str, body: DryRunBody, app: WithApp) -> Response:
    app.forget(index)  # The comparison uses the stored rules, not cached ones.
    generation = await app.generation(index)
    limits = limits_of(app.settings)
    await asyncio.to_thread(check_rules, body.rules, generation, app.tables.of(generation), limits)
    stored = app.curations.of(generation)
    differences = await compare_rules(app, index, CompiledRules(body.rules), body.queries, body.mode, body.size)
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
