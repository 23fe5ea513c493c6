"""Routes of documents: ingestion, reading, deletion, jobs and dead letters."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from query_api.app_state import AppState, WithApp
from query_api.ingest.dead_letters import list_dead_letters, retry_dead_letters
from query_api.ingest.idempotency import KEY_HEADER, MAX_KEY_CHARACTERS, REPLAYED_HEADER
from query_api.ingest.ingest import MAX_WRITES, IngestResponse, ingest_document, ingest_documents
from query_api.ingest.job_progress import (
    DEFAULT_WAIT_SECONDS,
    MAX_WAIT_SECONDS,
    WaitFor,
    read_job,
    wait_for_documents,
    wait_for_refresh,
)
from query_api.ingest.journal_writer import write_raw_documents
from query_api.routes.json_route import JsonRoute
from query_api.schemas.resources import (
    TALK_SCHEMA_MEMBERS,
    DeadLetterList,
    DocumentAnswer,
    IngestAnswer,
    JobAnswer,
    RetryAnswer,
    RetryRequest,
    document_responses,
    json_response,
)
from services.documents.document import MAX_PRODUCER_VERSION, client_version, is_talk, validate_document_id
from services.documents.intake import stale_version
from services.documents.read_document import ADDED_SCHEMA_MEMBERS
from services.errors import BackendUnavailable, NotFound
from services.opensearch.bulk import Verdict, WriteOutcome
from services.opensearch.journal import (
    DELETED,
    format_earlier_attempts,
    get_document_call,
    tombstone_write,
    vector_state,
)
from services.opensearch.stored_document import StoredDocument, read_chapters, read_segments
from services.web.problems import members_response

documents_router = APIRouter(prefix="/v1", tags=["documents"], route_class=JsonRoute)

_DOCUMENT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["id", "text"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": 512},
        "title": {"type": "string"},
        "text": {"type": "string", "minLength": 1},
        "metadata": {"type": "object", "description": "declared fields only; a value or a list of values each"},
        "version": {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_PRODUCER_VERSION,
            "description": "the highest wins, in any order of arrival; none: the server's clock in microseconds",
        },
    }
    | ADDED_SCHEMA_MEMBERS,
}
_TALK_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["id", "kind"],
    "additionalProperties": False,
    "properties": _DOCUMENT_SCHEMA["properties"] | TALK_SCHEMA_MEMBERS,
    "description": "in an index that declares `talk`; exactly one of text, segments and transcript",
}
_SOURCE_MEMBERS = (
    *("title", "text", "metadata", "version", "state", "job", "encoder", "attempts", "error"),
    *("kind", "description", "duration", "url", "chaptering", "talk_repairs"),
)
_KEY_PARAMETER: dict[str, Any] = {
    "name": KEY_HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARACTERS, "pattern": "^[!-~]+$"},
    "description": "the same key and body give the same job and answer, however often and however concurrently you "
    "send them; the same key with another body is a 409",
}
Wait = Annotated[
    WaitFor | None,
    Query(
        description="answer when searches find the documents by words (`searchable`), or when none is pending any more "
        "and they find them by meaning as well (`encoded`); `waited` says whether that was reached"
    ),
]
WaitSeconds = Annotated[
    float, Query(gt=0, le=MAX_WAIT_SECONDS, allow_inf_nan=False, description="longest wait, in seconds")
]
WAIT_REACHED_HEADER = "wait-reached"
_ACCEPTED_RESPONSE = {
    "description": "accepted; the documents listed under `accepted` are on disk",
    "headers": {
        "Idempotency-Replayed": {
            "schema": {"type": "string", "const": "true"},
            "description": "this is the answer to an earlier request with the same Idempotency-Key",
        }
    },
}
_POST_OPENAPI: dict[str, Any] = {
    "parameters": [_KEY_PARAMETER],
    "responses": {"202": _ACCEPTED_RESPONSE},
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "array", "items": {"anyOf": [_DOCUMENT_SCHEMA, _TALK_SCHEMA]}}},
            "application/x-ndjson": {"schema": {"type": "string", "description": "one document a line"}},
        },
    },
}
_PUT_OPENAPI: dict[str, Any] = {
    "parameters": [_KEY_PARAMETER],
    "responses": {"202": _ACCEPTED_RESPONSE},
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [_DOCUMENT_SCHEMA | {"required": ["text"]}, _TALK_SCHEMA | {"required": ["kind"]}],
                    "description": "`id` is the path's",
                }
            }
        },
    },
}


@documents_router.post(
    "/indexes/{index}/documents",
    status_code=202,
    responses=document_responses(202, IngestAnswer, 404, 408, 409, 413, 415, 422, 429, 503),
    openapi_extra=_POST_OPENAPI,
    operation_id="ingest",
    summary="Add or replace documents",
)
async def post_documents(
    index: str, request: Request, app: WithApp, wait: Wait = None, wait_seconds: WaitSeconds = DEFAULT_WAIT_SECONDS
) -> Response:
    response = await ingest_documents(app, index, request)
    return _ingest_response(await wait_for_documents(app, response, wait, wait_seconds))


@documents_router.put(
    "/indexes/{index}/documents/{document_id:path}",
    status_code=202,
    responses=document_responses(202, IngestAnswer, 404, 408, 409, 413, 415, 422, 429, 503),
    openapi_extra=_PUT_OPENAPI,
    operation_id="put_document",
    summary="Add or replace one document",
)
async def put_document(
    index: str,
    document_id: str,
    request: Request,
    app: WithApp,
    wait: Wait = None,
    wait_seconds: WaitSeconds = DEFAULT_WAIT_SECONDS,
) -> Response:
    response = await ingest_document(app, index, document_id, request)
    return _ingest_response(await wait_for_documents(app, response, wait, wait_seconds))


@documents_router.get(
    "/indexes/{index}/documents/{document_id:path}",
    responses=document_responses(200, DocumentAnswer, 404, 503),
    operation_id="get_document",
    summary="Read one document and its state",
)
async def get_document(
    index: str,
    document_id: str,
    app: WithApp,
    segments: bool = Query(False, description="for a talk: include its segments, with times and speakers"),
) -> Response:
    stored = await read_stored_document(app, index, document_id)
    answer = {"id": stored.id} | {name: stored.source[name] for name in _SOURCE_MEMBERS if name in stored.source}
    answer["vectors"] = vector_state(stored.source)
    if (earlier := format_earlier_attempts(stored.source)) is not None:
        answer["earlier"] = earlier
    if is_talk(stored.source):
        answer["chapters"] = read_chapters(stored.source)
        if segments:
            # 100,000 segments take .1 s.
            answer["segments"] = await asyncio.to_thread(read_segments, stored.source)
    return json_response(answer)


@documents_router.delete(
    "/indexes/{index}/documents/{document_id:path}",
    status_code=204,
    responses=document_responses(204, None, 404, 409, 503),
    operation_id="delete_document",
    summary="Delete one document",
)
async def delete_document(
    index: str,
    document_id: str,
    app: WithApp,
    version: int | None = Query(None, ge=0, le=MAX_PRODUCER_VERSION, description="as a document's version"),
    wait: Annotated[
        Literal["searchable"] | None, Query(description="answer when searches no longer find the document")
    ] = None,
    wait_seconds: WaitSeconds = DEFAULT_WAIT_SECONDS,
) -> Response:
    if version is None:
        verdict = await _delete_newest(app, index, document_id)
    else:
        # The delete may arrive before the document.
        write = tombstone_write(await app.generation(index), validate_document_id(document_id), version)
        (verdict,) = await write_raw_documents(app, await app.generation(index), [write])
    if verdict.outcome is WriteOutcome.SUPERSEDED:
        raise stale_version()
    if verdict.outcome is not WriteOutcome.STORED:
        raise BackendUnavailable("not_stored", f"The delete could not be stored ({verdict.reason}); send it again.")
    response = Response(status_code=204)
    if wait is not None:
        reached = await wait_for_refresh(app, index, wait_seconds)
        response.headers[WAIT_REACHED_HEADER] = "true" if reached else "false"
    return response


async def _delete_newest(app: AppState, index: str, document_id: str) -> Verdict:
    """Delete the stored version of a document, and every version that another request writes meanwhile.

    Raises NotFound (`document_not_found`).
    """
    for attempt in range(1, MAX_WRITES + 1):
        stored = await read_stored_document(app, index, document_id, only=("state",))
        generation, version = await app.generation(index), app.clock.next(above=client_version(stored.external))
        (verdict,) = await write_raw_documents(app, generation, [tombstone_write(generation, stored.id, version)])
        if verdict.outcome is not WriteOutcome.SUPERSEDED or attempt == MAX_WRITES:
            break
    return verdict


@documents_router.get(
    "/jobs/{job_id}",
    responses=document_responses(200, JobAnswer, 404, 503),
    operation_id="get_job",
    summary="Follow an ingestion",
)
async def get_job(job_id: str, app: WithApp) -> Response:
    return json_response(await read_job(app, job_id))


def _ingest_response(answer: IngestResponse) -> Response:
    response = json_response(answer.body, answer.status) if answer.status < 400 else members_response(answer.body)
    if answer.replayed:
        response.headers[REPLAYED_HEADER] = "true"
    return response


async def read_stored_document(app: AppState, index: str, document_id: str, only: Sequence[str] = ()) -> StoredDocument:
    """Read a document in real time, without its vectors. `only`: the members of its source to read; none: all.

    Raises NotFound (`index_not_found`, `document_not_found`).
    """
    generation = await app.generation(index)
    try:
        answer = await app.search.send(get_document_call(generation.alias, validate_document_id(document_id), only))
    except NotFound as error:
        if error.code == "index_not_found":
            app.forget(index)
        answer = {}
    if not answer.get("found") or answer["_source"]["state"] == DELETED:
        raise NotFound("document_not_found", f"The index {index!r} has no document {document_id[:80]!r}.")
    return StoredDocument(answer["_id"], answer["_version"], answer["_source"])


dead_letters_router = APIRouter(prefix="/v1/indexes/{index}", tags=["documents"], route_class=JsonRoute)


# The paths with `/dead` are the former ones; the next version leaves them out.
@dead_letters_router.get(
    "/dead-letters",
    responses=document_responses(200, DeadLetterList, 404, 422, 503),
    operation_id="list_dead_letters",
    summary="List the dead letters, the latest first",
)
@dead_letters_router.get(
    "/dead",
    responses=document_responses(200, DeadLetterList, 404, 422, 503),
    operation_id="list_dead",
    summary="List the dead letters: the former path",
    deprecated=True,
)
async def get_dead_letters(
    index: str,
    app: WithApp,
    size: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(description="the cursor of the previous page; none: the first page")] = None,
) -> Response:
    return json_response(await list_dead_letters(app, index, size, cursor))


@dead_letters_router.post(
    "/dead-letters/retry",
    responses=document_responses(200, RetryAnswer, 404, 422, 503),
    operation_id="retry_dead_letters",
    summary="Put dead letters back to pending",
)
@dead_letters_router.post(
    "/dead/retry",
    responses=document_responses(200, RetryAnswer, 404, 422, 503),
    operation_id="retry_dead",
    summary="Put dead letters back to pending: the former path",
    deprecated=True,
)
async def post_retry(index: str, request: RetryRequest, app: WithApp) -> Response:
    """The count of attempts begins anew. A newer write of a document always wins."""
    return json_response(await retry_dead_letters(app, index, request))
