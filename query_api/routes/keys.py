"""Keys: make, list, rotate, revoke. For keys that administer every index, or one could give itself more."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from query_api.access import issuing
from query_api.keys_form import KeyList, KeyModel, KeyRequest, NewKey, RotateRequest, WhoModel
from query_api.parts import AppState, WithApp
from query_api.routes.answers import documented, json_answer
from services.access.principal import EVERY
from services.errors import Forbidden


async def _of_every_index(app: WithApp) -> AppState:
    """Raises Forbidden (`keys_forbidden`)."""
    if EVERY not in app.who.indexes:
        raise Forbidden("keys_forbidden", "Keys are made and seen with a key that administers every index.")
    return app


WithKeys = Annotated[AppState, Depends(_of_every_index)]
router = APIRouter(prefix="/v1/keys", tags=["keys"])


@router.post(
    "",
    status_code=201,
    responses=documented(201, NewKey, 409, 422, 503),
    operation_id="create_key",
    summary="Make a key",
)
async def create_key(body: KeyRequest, app: WithKeys) -> Response:
    """Its text is in this answer and in no other."""
    key, text = await issuing.create(app, body)
    return json_answer(issuing.shown(key) | {"key": text}, 201)


@router.get("", responses=documented(200, KeyList, 422, 503), operation_id="list_keys", summary="List the keys")
async def list_keys(
    app: WithKeys, revoked: Annotated[bool, Query(description="those that were revoked, too")] = False
) -> Response:
    return json_answer({"keys": [issuing.shown(one) for one in await issuing.every(app, revoked=revoked)]})


@router.get(
    "/self",
    responses=documented(200, WhoModel),
    operation_id="who_am_i",
    summary="See what the key of this request may do",
)
async def who_am_i(app: WithApp) -> Response:
    who = app.who
    return json_answer({"id": who.id, "scopes": sorted(who.scopes), "indexes": who.indexes, "filter": who.filter})


@router.get("/{key_id}", responses=documented(200, KeyModel, 404, 503), operation_id="get_key", summary="See a key")
async def get_key(key_id: str, app: WithKeys) -> Response:
    return json_answer(issuing.shown((await issuing.get(app, key_id)).key))


@router.post(
    "/{key_id}/rotate",
    responses=documented(200, NewKey, 404, 409, 422, 503),
    operation_id="rotate_key",
    summary="Give a key a second secret, and end the first one later",
)
async def rotate_key(key_id: str, app: WithKeys, body: RotateRequest | None = None) -> Response:
    wanted = body or RotateRequest.model_validate({})
    key, text = await issuing.rotate(app, key_id, wanted.overlap_seconds)
    return json_answer(issuing.shown(key) | {"key": text})


@router.delete(
    "/{key_id}",
    status_code=204,
    responses=documented(204, None, 404, 409, 503),
    operation_id="revoke_key",
    summary="Revoke a key",
)
async def revoke_key(key_id: str, app: WithKeys) -> Response:
    """It opens nothing at once at this process, and within four seconds at every other."""
    await issuing.revoke(app, key_id)
    return Response(status_code=204)
