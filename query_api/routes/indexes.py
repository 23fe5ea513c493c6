"""Create, list, inspect and delete indexes."""

import contextlib
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from query_api import curating
from query_api.models import IndexAnswer, IndexList
from query_api.parts import AppState, WithApp
from query_api.routes.answers import documented, json_answer
from services.errors import Conflict, InvalidInput, NotFound, SparsewellError
from services.index_spec import Generation, IndexSpec, checked_index_name
from services.known_dense import dense_identity
from services.opensearch.generations import (
    count_call,
    create_call,
    create_jobs_call,
    delete_call,
    every_generation_call,
    index_not_found,
    list_call,
    new_generation,
    read_active,
    read_counts,
    read_generations,
)

router = APIRouter(prefix="/v1/indexes", tags=["indexes"])


def _shown(generation: Generation, counts: dict[str, int] | None = None) -> dict[str, Any]:
    spec = generation.spec
    answer: dict[str, Any] = {
        "name": generation.index,
        "generation": generation.number,
        "fields": spec.fields,
        "encoder": generation.encoder.model_dump(),
        "window": generation.window.model_dump(),
        "windows": spec.windows,
        "language": spec.language,
        "document_top_k": spec.document_top_k,
        "talk": None if spec.talk is None else spec.talk.model_dump(),
        "dense": None if generation.dense is None else generation.dense.model_dump(),
        "suggests": generation.suggests,
        "created_at": generation.created_at,
    }
    return answer if counts is None else answer | {"documents": counts}


@router.get("", responses=documented(200, IndexList, 503), operation_id="list_indexes", summary="List the indexes")
async def list_indexes(app: WithApp) -> Response:
    found = read_active(await app.everything.send(list_call(app.names)))
    return json_answer({"indexes": [_shown(generation) for generation in found if app.who.may(generation.index)]})


@router.put(
    "/{index}",
    status_code=201,
    responses=documented(201, IndexAnswer, 409, 422, 503) | documented(200, IndexAnswer),
    operation_id="create_index",
    summary="Create an index",
)
async def create_index(index: str, app: WithApp, spec: IndexSpec | None = None) -> Response:
    """Answers 201 for a new index, 200 when it exists with the same declaration, 409 when it differs."""
    wanted = spec or IndexSpec.model_validate({})
    manifest = app.tables.manifest(wanted.encoder)
    room = manifest.max_pieces - 2  # two for the pieces that open and close a window
    if wanted.window is not None and wanted.window.pieces > room:
        raise InvalidInput("bad_window", f"The encoder {manifest.name} takes windows of {room} pieces at most.")
    dense = None if wanted.dense is None else dense_identity(app.dense, wanted.dense)
    generation = new_generation(app.names, checked_index_name(index), 1, wanted, manifest, dense=dense)
    existing = await _existing(app, index)
    if existing is None:
        await _ensure_jobs(app)
        try:
            await app.search.send(create_call(generation, app.settings, [app.names.alias(index)]))
        except Conflict:  # somebody else was faster
            app.forget(index)
            existing = await _existing(app, index)
        else:
            return json_answer(_shown(generation), 201)
    if existing is None:
        raise Conflict(
            "already_exists",
            f"OpenSearch has an index {generation.physical!r} that no alias of ours points to: remove it.",
        )
    if existing.spec != wanted:
        raise Conflict(
            "index_exists", f"The index {index!r} exists with another declaration.", existing=_shown(existing)
        )
    return json_answer(_shown(existing))


@router.get(
    "/{index}",
    responses=documented(200, IndexAnswer, 404, 503),
    operation_id="get_index",
    summary="Inspect an index and count its documents by state",
)
async def get_index(index: str, app: WithApp) -> Response:
    generation = await app.generation(index)
    counts = read_counts(await app.search.send(count_call(generation.physical)))
    return json_answer(_shown(generation, counts))


@router.delete(
    "/{index}",
    status_code=204,
    responses=documented(204, None, 404, 503),
    operation_id="delete_index",
    summary="Delete an index and all its documents",
)
async def delete_index(index: str, app: WithApp) -> Response:
    found = read_generations(await app.search.send(every_generation_call(app.names, index)))
    if not found:
        raise index_not_found(index)
    await app.search.send(delete_call(found))
    await curating.remove(app, index)
    with contextlib.suppress(SparsewellError):  # (what stays counts for no other index)
        await app.learning.forget(index, None)
    app.forget(index)
    return Response(status_code=204)


async def _existing(app: AppState, index: str) -> Generation | None:
    try:
        return await app.generation(index)
    except NotFound:
        return None


async def _ensure_jobs(app: AppState) -> None:
    try:
        await app.search.send(create_jobs_call(app.names, app.settings))
    except Conflict:
        return
