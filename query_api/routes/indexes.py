"""Routes of indexes: creation, listing, inspection, deletion and export; and the encoders of this service.

The creation of an index is idempotent: the same declaration gives 200, another one a conflict.
"""

import asyncio
import contextlib
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from query_api.app_state import AppState, WithApp
from query_api.curation import remove_curation
from query_api.export import MAX_PAGE_DOCUMENTS, ExportPage
from query_api.routes.json_route import JsonRoute
from query_api.schemas.resources import EncoderList, IndexAnswer, IndexList, document_responses, json_response
from services.encoders.catalogue import find_dense_identity
from services.errors import Conflict, InvalidInput, NotFound, SparsewellError
from services.index_spec import Generation, IndexSpec, validate_index_name
from services.opensearch.generations import (
    count_states_call,
    create_generation_call,
    create_jobs_call,
    delete_generations_call,
    index_generations_call,
    index_not_found,
    list_generations_call,
    new_generation,
    read_active_generations,
    read_generations,
    read_state_counts,
)
from services.opensearch.languages import refused_language

indexes_router = APIRouter(prefix="/v1/indexes", tags=["indexes"], route_class=JsonRoute)


def _describe_index(generation: Generation, counts: dict[str, int] | None = None) -> dict[str, Any]:
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
        "adapt_weights": spec.adapt_weights,
        "piece_features": spec.piece_features,
        "adapted_to": generation.counted if generation.frequencies and spec.adapt_weights else 0,
        "talk": None if spec.talk is None else spec.talk.model_dump(),
        "dense": None if generation.dense is None else generation.dense.model_dump(),
        "suggests": generation.suggests,
        "folds": generation.folds,
        "created_at": generation.created_at,
    }
    return answer if counts is None else answer | {"documents": counts}


@indexes_router.get(
    "", responses=document_responses(200, IndexList, 503), operation_id="list_indexes", summary="List the indexes"
)
async def list_indexes(app: WithApp) -> Response:
    answer = await app.unrestricted_search.send(list_generations_call(app.names))

    def describe() -> Response:
        generations = read_active_generations(answer)
        indexes = [_describe_index(each) for each in generations if app.principal.may(each.index)]
        return json_response({"indexes": indexes})

    # 5,000 indexes take .6 s. The event loop answers other requests meanwhile.
    return await asyncio.to_thread(describe)


@indexes_router.put(
    "/{index}",
    status_code=201,
    responses=document_responses(201, IndexAnswer, 409, 422, 503) | document_responses(200, IndexAnswer),
    operation_id="create_index",
    summary="Create an index",
)
async def create_index(index: str, app: WithApp, spec: IndexSpec | None = None) -> Response:
    """Answers 201 for a new index, 200 when it exists with the same declaration, 409 when it differs."""
    declared = spec or IndexSpec.model_validate({})
    manifest = app.tables.manifest(declared.encoder)
    max_window = manifest.max_pieces - 2  # Two special pieces open and close a window.
    if declared.window is not None and declared.window.pieces > max_window:
        raise InvalidInput("bad_window", f"The encoder {manifest.name} takes windows of {max_window} pieces at most.")
    dense = None if declared.dense is None else find_dense_identity(app.dense, declared.dense)
    generation = new_generation(app.names, validate_index_name(index), 1, declared, manifest, dense=dense)
    existing = await _find_generation(app, index)
    if existing is None:
        await _ensure_jobs_index(app)
        try:
            await app.search.send(create_generation_call(generation, app.settings, [app.names.alias(index)]))
        except Conflict:  # Another request has just created it.
            app.forget(index)
            existing = await _find_generation(app, index)
        except InvalidInput as error:
            raise refused_language(error, declared.language) from None
        else:
            return json_response(_describe_index(generation), 201)
    if existing is None:
        raise Conflict(
            "already_exists",
            f"OpenSearch has an index {generation.physical!r} without an alias of this service: remove it.",
        )
    if existing.spec != declared:
        raise Conflict(
            "index_exists", f"The index {index!r} exists with another declaration.", existing=_describe_index(existing)
        )
    return json_response(_describe_index(existing))


@indexes_router.get(
    "/{index}",
    responses=document_responses(200, IndexAnswer, 404, 503),
    operation_id="get_index",
    summary="Inspect an index and count its documents by state",
)
async def get_index(index: str, app: WithApp) -> Response:
    generation = await app.generation(index)
    counts = read_state_counts(await app.search.send(count_states_call(generation.physical)))
    return json_response(_describe_index(generation, counts))


@indexes_router.delete(
    "/{index}",
    status_code=204,
    responses=document_responses(204, None, 404, 503),
    operation_id="delete_index",
    summary="Delete an index and all its documents",
)
async def delete_index(index: str, app: WithApp) -> Response:
    generations = read_generations(await app.search.send(index_generations_call(app.names, index)))
    if not generations:
        raise index_not_found(index)
    await app.search.send(delete_generations_call(generations))
    await remove_curation(app, index)
    with contextlib.suppress(SparsewellError):  # Counts that stay apply to no other index.
        await app.query_log.forget(index, None)
    app.forget(index)
    return Response(status_code=204)


async def _find_generation(app: AppState, index: str) -> Generation | None:
    try:
        return await app.generation(index)
    except NotFound:
        return None


async def _ensure_jobs_index(app: AppState) -> None:
    with contextlib.suppress(Conflict):
        await app.search.send(create_jobs_call(app.names, app.settings))


export_router = APIRouter(prefix="/v1/indexes/{index}/export", tags=["documents"], route_class=JsonRoute)

_LINES_RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One document a line (id, title, text, metadata, version, state), then one line "
        '`{"export": {"index", "documents", "exported", "total", "cursor"}}`. A page without that line was cut: '
        "request it again. `cursor` null: this was the last page.",
        "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
    }
}


@export_router.get(
    "",
    response_class=StreamingResponse,
    responses=document_responses(200, None, 404, 422, 429, 503) | _LINES_RESPONSE,
    operation_id="export",
    summary="Export the documents of an index as they were when the export began",
)
async def get_export(
    index: str,
    app: WithApp,
    state: Annotated[
        list[Literal["pending", "encoded", "dead"]] | None, Query(description="only these states; may be repeated")
    ] = None,
    vectors: Annotated[
        bool | None, Query(description="include each window's vocabulary ids, pieces and weights")
    ] = None,
    size: Annotated[int, Query(ge=1, le=MAX_PAGE_DOCUMENTS, description="maximum documents of a page")] = 1000,
    cursor: Annotated[str | None, Query(description="the cursor of the previous page; none: the first page")] = None,
) -> StreamingResponse:
    """A page ends early when it reaches 16 MiB. An export expires five minutes after its last page."""
    lines = await ExportPage(app, index, size).stream(state, vectors, cursor)
    return StreamingResponse(lines, media_type="application/x-ndjson")


encoders_router = APIRouter(prefix="/v1/encoders", tags=["indexes"], route_class=JsonRoute)


@encoders_router.get(
    "",
    responses=document_responses(200, EncoderList, 503),
    operation_id="list_encoders",
    summary="List the encoders that can be served",
)
async def list_encoders(app: WithApp) -> Response:
    """An index can be created with any of these encoders, and served when it was encoded by one of the fingerprints."""
    return json_response(
        {
            "encoders": [
                {
                    "name": manifest.name,
                    "fingerprint": manifest.fingerprint,
                    "default": manifest.fingerprint == app.tables.default.fingerprint,
                    "licence": manifest.licence,
                }
                for manifest in app.tables.manifests
            ]
        }
    )
