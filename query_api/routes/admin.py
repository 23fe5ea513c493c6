"""The operator's hand on an index: its rules, their earlier versions, and what others would change.

Keys: make, list, rotate, revoke. For keys that administer every index, or one could give itself more.

The frequent queries of an index, as the operator sees them: list them, add some, take some away.
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
    NewKey,
    QueriesBody,
    RemovedQueries,
    RotateRequest,
    WhoModel,
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
    """Raises Forbidden (`keys_forbidden`)."""
    if ALL_INDEXES not in app.who.indexes:
        raise Forbidden("keys_forbidden", "Keys are made and seen with a key that administers every index.")
    return app


WithKeyAdministration = Annotated[AppState, Depends(_require_every_index)]
keys_router = APIRouter(prefix="/v1/keys", tags=["keys"])


@keys_router.post(
    "",
    status_code=201,
    responses=document_responses(201, NewKey, 409, 422, 503),
    operation_id="create_key",
    summary="Make a key",
)
async def create_key(body: KeyRequest, app: WithKeyAdministration) -> Response:
    """Its text is in this answer and in no other."""
    key, text = await issue_key(app, body)
    return json_response(describe_key(key) | {"key": text}, 201)


@keys_router.get(
    "", responses=document_responses(200, KeyList, 422, 503), operation_id="list_keys", summary="List the keys"
)
async def list_keys(
    app: WithKeyAdministration, revoked: Annotated[bool, Query(description="those that were revoked, too")] = False
) -> Response:
    return json_response({"keys": [describe_key(one) for one in await list_issued_keys(app, revoked=revoked)]})


@keys_router.get(
    "/self",
    responses=document_responses(200, WhoModel),
    operation_id="who_am_i",
    summary="See what the key of this request may do",
)
async def get_own_key(app: WithApp) -> Response:
    who = app.who
    return json_response({"id": who.id, "scopes": sorted(who.scopes), "indexes": who.indexes, "filter": who.filter})


@keys_router.get(
    "/{key_id}", responses=document_responses(200, KeyModel, 404, 503), operation_id="get_key", summary="See a key"
)
async def get_key(key_id: str, app: WithKeyAdministration) -> Response:
    return json_response(describe_key((await find_issued_key(app, key_id)).key))


@keys_router.post(
    "/{key_id}/rotate",
    responses=document_responses(200, NewKey, 404, 409, 422, 503),
    operation_id="rotate_key",
    summary="Give a key a second secret, and end the first one later",
)
async def rotate_key(key_id: str, app: WithKeyAdministration, body: RotateRequest | None = None) -> Response:
    wanted = body or RotateRequest.model_validate({})
    key, text = await rotate_key_secret(app, key_id, wanted.overlap_seconds)
    return json_response(describe_key(key) | {"key": text})


@keys_router.delete(
    "/{key_id}",
    status_code=204,
    responses=document_responses(204, None, 404, 409, 503),
    operation_id="revoke_key",
    summary="Revoke a key",
)
async def revoke_key(key_id: str, app: WithKeyAdministration) -> Response:
    """It opens nothing at once at this process, and within four seconds at every other."""
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
    await app.search.send(refresh_queries_call(app.names))  # (who has just added one looks for it)
    answer = await app.search.send(list_queries_call(app.names, generation, size, now))
    return json_response({"index": index} | read_query_list(answer, now))


@queries_router.post(
    "",
    responses=document_responses(200, AddedQueries, 404, 409, 422, 429, 503),
    operation_id="add_queries",
    summary="Count queries that were asked elsewhere",
)
async def add_queries(index: str, body: QueriesBody, app: WithApp) -> Response:
    """They are counted with those that are there already, in case-folded form."""
    generation = await app.generation(index)
    times: dict[str, int] = {}
    for position, given in enumerate(body.queries, 1):
        query = learnable_query(given.query)
        if query is None:
            raise InvalidInput(
                "query_not_learnable",
                f"Query {position} is not kept: it is empty, of more than 100 characters, or holds an @, six digits in "
                "a row or what cannot be printed.",
                position=position,
            )
        times[query] = times.get(query, 0) + given.times
    await app.learning.add([CountedQuery(index, generation.lineage, query, count) for query, count in times.items()])
    return json_response({"index": index, "added": len(times)})


@queries_router.delete(
    "",
    responses=document_responses(200, RemovedQueries, 404, 422, 429, 503),
    operation_id="delete_queries",
    summary="Remove a frequent query of an index, or all",
)
async def delete_queries(
    index: str,
    app: WithApp,
    q: Annotated[str | None, Query(description="this one, whatever its case and accents")] = None,
    everything: Annotated[bool, Query(alias="all", description="all of them")] = False,
) -> Response:
    if (q is None) != everything:
        raise InvalidInput("invalid_request", "Name one query as `q`, or say `all=true`.")
    await app.generation(index)
    # (what would not be kept by now may have been, by an earlier version)
    query = None if q is None else normalise_query(q)
    return json_response({"index": index, "deleted": await app.learning.forget(index, query)})


curation_router = APIRouter(prefix="/v1/indexes/{index}/curation", tags=["curation"])

IfMatchHeader = Annotated[
    str | None,
    Header(description='the version that was read, as `"7"`; `*`: whatever it is; none: only where there are no rules'),
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
    """The rules hold at once for searches of this process, within two seconds for all others."""
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
    found = await curation.read_curation_versions(app, await app.generation(index))
    shown = [curation.describe_curation(index, record) for record in found]
    return json_response(
        {"index": index, "versions": [{k: one[k] for k in ("version", "at", "note")} for one in shown]}
    )


@curation_router.get(
    "/versions/{version}",
    responses=document_responses(200, CurationAnswer, 404, 422, 503),
    operation_id="get_curation_version",
    summary="Read an earlier version of an index's rules",
)
async def get_version(index: str, version: Annotated[int, Path(ge=1, lt=10**18)], app: WithApp) -> Response:
    found = await curation.read_curation_version(app, await app.generation(index), version)
    return json_response(curation.describe_curation(index, found))


@curation_router.post(
    "/dry-run",
    responses=document_responses(200, DryRunAnswer, 404, 413, 422, 503),
    operation_id="dry_run_curation",
    summary="See which queries other rules would answer differently",
)
async def post_dry_run(index: str, body: DryRunBody, app: WithApp) -> Response:
    app.forget(index)  # compared with what is stored now
    generation = await app.generation(index)
    limits = limits_of(app.settings)
    await asyncio.to_thread(check_rules, body.rules, generation, app.tables.of(generation), limits)
    stored = app.curations.of(generation)
    found = await compare_rules(app, index, CompiledRules(body.rules), body.queries, body.mode, body.size)
    return json_response(
        {
            "index": index,
            "version": 0 if stored is None else stored.version,
            "changed": sum(one["changed"] for one in found),
            "queries": found,
        }
    )


def _curation_response(answer: dict[str, Any]) -> Response:
    response = json_response(answer)
    response.headers["etag"] = curation.format_etag(answer["version"])
    return response
