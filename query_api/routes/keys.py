"""API keys: creation, rotation and revocation, with their routes.

Keys (`/v1/keys`) need a key that administers every index, or a key could extend its own rights. Each change is a
compare-and-swap in OpenSearch. It is in this process's `KeyRing` at once, and in others within seconds
(docs/decisions/0200).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from query_api.app_state import AppState, WithApp
from query_api.routes.json_route import JsonRoute
from query_api.schemas.admin import KeyList, KeyModel, KeyRequest, KeyRights, NewKey, RotateRequest
from query_api.schemas.resources import document_responses, json_response
from services.access.api_keys import KEY_ID_PATTERN, ApiKey, KeySecret, digest_key, generate_key, generate_key_id
from services.access.principals import ALL_INDEXES, check_key_filter
from services.dates import format_timestamp, now_ms
from services.errors import Conflict, Forbidden, InvalidInput, NotFound
from services.opensearch.key_records import (
    MAX_KEYS,
    StoredKey,
    count_keys_call,
    get_key_call,
    list_keys_call,
    make_key_calls,
    read_key_count,
    read_stored_key,
    read_stored_keys,
    save_key_call,
)
from services.opensearch.system_indexes import create_system_index


async def _require_every_index(app: WithApp) -> AppState:
    """Require a key for every index. Raises Forbidden (`keys_forbidden`)."""
    if ALL_INDEXES not in app.principal.indexes:
        raise Forbidden("keys_forbidden", "Managing keys needs a key that administers every index.")
    return app


WithKeyAdministration = Annotated[AppState, Depends(_require_every_index)]
keys_router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=JsonRoute)


@keys_router.post(
    "",
    status_code=201,
    responses=document_responses(201, NewKey, 409, 422, 503),
    operation_id="create_key",
    summary="Create a key",
)
async def create_key(body: KeyRequest, app: WithKeyAdministration) -> Response:
    """Return the text of the key. No other answer contains it."""
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


async def issue_key(app: AppState, request: KeyRequest) -> tuple[ApiKey, str]:
    """Create a key. Return it with its text, which is not stored.

    Raises InvalidInput (`bad_key_filter`, `key_expired`), Conflict (`too_many_keys`).
    """
    now = now_ms()
    if request.filter is not None:
        check_key_filter(request.filter, request.scopes)
    expires_at = None if request.expires_at is None else int(request.expires_at.timestamp() * 1000)
    if expires_at is not None and expires_at <= now:
        raise InvalidInput("key_expired", "`expires_at` has passed already.")
    name = request.name.strip() or "-"
    key_id = generate_key_id()
    text = generate_key(key_id)
    key = ApiKey(
        key_id,
        name,
        tuple(dict.fromkeys(request.scopes)),
        tuple(dict.fromkeys(request.indexes)),
        request.filter,
        now,
        (KeySecret(digest_key(text), now),),
        expires_at,
        rate=request.requests_per_second,
        burst=request.burst,
        daily=request.requests_per_day,
        document_rate=request.documents_per_second,
        byte_rate=request.bytes_per_second,
    )
    try:
        await _require_key_room(app)
        await _save_key(app, key, None)
    except NotFound:  # The index of the keys does not exist yet.
        await create_system_index(app.search, make_key_calls(app.names, app.settings.replicas))
        await _save_key(app, key, None)
    return key, text


async def list_issued_keys(app: AppState, *, revoked: bool) -> list[ApiKey]:
    """Return the keys, the latest first. `revoked`: include revoked keys."""
    try:
        answer = await app.search.send(list_keys_call(app.names, revoked=revoked))
    except NotFound:
        return []
    return [stored.key for stored in read_stored_keys(answer)]


async def find_issued_key(app: AppState, key_id: str) -> StoredKey:
    """Find a key by its id. Raises NotFound (`key_not_found`), without the id: it may be a whole key."""
    try:
        if KEY_ID_PATTERN.fullmatch(key_id):
            return read_stored_key(await app.search.send(get_key_call(app.names, key_id)))
    except NotFound:
        pass
    raise NotFound("key_not_found", "No key has this id. The id is the part of a key between its underscores.")


async def rotate_key_secret(app: AppState, key_id: str, overlap: int) -> tuple[ApiKey, str]:
    """Give a key a new secret. The old secret stays valid for `overlap` seconds.

    Return the key with its new text. Raises NotFound (`key_not_found`) and Conflict as `ApiKey.rotated`.
    """
    text = generate_key(key_id)
    now = now_ms()
    return await _change_key(app, key_id, lambda key: key.rotated(digest_key(text), now, overlap * 1000)), text


async def revoke_issued_key(app: AppState, key_id: str) -> None:
    """Revoke a key now. A revoked key stays as it is. Raises NotFound (`key_not_found`)."""
    await _change_key(app, key_id, lambda key: replace(key, revoked_at=key.revoked_at or now_ms()))


async def _change_key(app: AppState, key_id: str, change: Callable[[ApiKey], ApiKey]) -> ApiKey:
    expected = await find_issued_key(app, key_id)
    key = change(expected.key)
    await _save_key(app, key, expected)
    return key


async def _save_key(app: AppState, key: ApiKey, expected: StoredKey | None) -> None:
    answer = await app.search.send(save_key_call(app.names, key, expected))
    app.keys.update([StoredKey(key, answer["_seq_no"], answer["_primary_term"])])


async def _require_key_room(app: AppState) -> None:
    if read_key_count(await app.search.send(count_keys_call(app.names))) >= MAX_KEYS:
        raise Conflict("too_many_keys", f"The limit of {MAX_KEYS:,} keys is reached: revoke some.")


def describe_key(key: ApiKey) -> dict[str, Any]:
    """Format a key for an answer, with its valid secrets."""
    now = now_ms()
    return {
        "id": key.id,
        "name": key.name,
        "scopes": key.scopes,
        "indexes": key.indexes,
        "filter": key.filter,
        "created_at": format_timestamp(key.created_at),
        "expires_at": format_timestamp(key.expires_at),
        "revoked_at": format_timestamp(key.revoked_at),
        "requests_per_second": key.rate,
        "burst": key.burst,
        "requests_per_day": key.daily,
        "documents_per_second": key.document_rate,
        "bytes_per_second": key.byte_rate,
        "secrets": [
            {"created_at": format_timestamp(secret.created_at), "ends_at": format_timestamp(secret.ends_at)}
            for secret in key.secrets
            if secret.is_valid(now)
        ],
    }
