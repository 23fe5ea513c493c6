"""Documents and jobs."""

from typing import Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from query_api import intake_doors, talk_form
from query_api.documents import stored_document
from query_api.idempotency import HEADER, MAX_KEY, REPLAYED
from query_api.ingestion import raw_writes
from query_api.models import DocumentAnswer, IngestAnswer, JobAnswer
from query_api.parts import WithApp
from query_api.routes.answers import documented, json_answer
from services.documents import checked_id
from services.errors import BackendUnavailable, Conflict, NotFound
from services.opensearch.bulk import Outcome
from services.opensearch.dead_letters import shown_earlier
from services.opensearch.generations import count_call, read_counts, refresh_call
from services.opensearch.jobs import load_call, summary, unseen
from services.opensearch.journal import tombstone
from services.opensearch.talk_members import sent_segments, shown_chapters
from services.talk.chaptering import is_talk
from services.versions import LARGEST_CLIENT_VERSION
from services.web.problems import said

router = APIRouter(prefix="/v1", tags=["documents"])

_DOCUMENT: dict[str, Any] = {
    "type": "object",
    "required": ["id", "text"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": 512},
        "title": {"type": "string"},
        "text": {"type": "string", "minLength": 1},
        "metadata": {"type": "object", "description": "declared fields only; a value or a list of values"},
        "version": {
            "type": "integer",
            "minimum": 0,
            "maximum": LARGEST_CLIENT_VERSION,
            "description": "the highest wins, in whatever order they arrive; none: the server's clock in microseconds",
        },
    },
}
_TALK: dict[str, Any] = {
    "type": "object",
    "required": ["id", "kind"],
    "additionalProperties": False,
    "properties": _DOCUMENT["properties"] | talk_form.MEMBERS,
    "description": "in an index that declares `talk`; one of text, segments and transcript",
}
_SHOWN = (
    *("title", "text", "metadata", "version", "state", "job", "encoder", "attempts", "error"),
    *("kind", "description", "duration", "url", "chaptering", "talk_repairs"),
)
_KEY: dict[str, Any] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY, "pattern": "^[!-~]+$"},
    "description": "the same key and body give the same job and answer, however often and however concurrently they "
    "come; the same key with another body is a 409",
}
_REPLAYED = {
    "description": "accepted; what is listed under `accepted` is on disk",
    "headers": {
        "Idempotency-Replayed": {
            "schema": {"type": "string", "const": "true"},
            "description": "the answer is that of an earlier request with the same Idempotency-Key",
        }
    },
}
_MANY: dict[str, Any] = {
    "parameters": [_KEY],
    "responses": {"202": _REPLAYED},
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "array", "items": {"anyOf": [_DOCUMENT, _TALK]}}},
            "application/x-ndjson": {"schema": {"type": "string", "description": "one document a line"}},
        },
    },
}
_ONE: dict[str, Any] = {
    "parameters": [_KEY],
    "responses": {"202": _REPLAYED},
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [_DOCUMENT | {"required": ["text"]}, _TALK | {"required": ["kind"]}],
                    "description": "`id` is the path's",
                }
            }
        },
    },
}


@router.post(
    "/indexes/{index}/documents",
    status_code=202,
    responses=documented(202, IngestAnswer, 404, 408, 409, 413, 415, 422, 429, 503),
    openapi_extra=_MANY,
    operation_id="ingest",
    summary="Add or replace documents",
)
async def post_documents(index: str, request: Request, app: WithApp) -> Response:
    return _answered(await intake_doors.post_documents(app, index, request))


@router.put(
    "/indexes/{index}/documents/{document_id:path}",
    status_code=202,
    responses=documented(202, IngestAnswer, 404, 408, 409, 413, 415, 422, 429, 503),
    openapi_extra=_ONE,
    operation_id="put_document",
    summary="Add or replace one document",
)
async def put_document(index: str, document_id: str, request: Request, app: WithApp) -> Response:
    return _answered(await intake_doors.put_document(app, index, document_id, request))


@router.get(
    "/indexes/{index}/documents/{document_id:path}",
    responses=documented(200, DocumentAnswer, 404, 503),
    operation_id="get_document",
    summary="Read one document and its state",
)
async def get_document(
    index: str,
    document_id: str,
    app: WithApp,
    segments: bool = Query(False, description="of talk: what is said when and by whom, too"),
) -> Response:
    stored = await stored_document(app, index, document_id)
    answer = {"id": stored.id} | {name: stored.source[name] for name in _SHOWN if name in stored.source}
    if "earlier" in stored.source:
        answer["earlier"] = shown_earlier(stored.source["earlier"])
    if is_talk(stored.source):
        answer["chapters"] = shown_chapters(stored.source)
        if segments:
            answer["segments"] = sent_segments(stored.source)
    return json_answer(answer)


@router.delete(
    "/indexes/{index}/documents/{document_id:path}",
    status_code=204,
    responses=documented(204, None, 404, 409, 503),
    operation_id="delete_document",
    summary="Delete one document",
)
async def delete_document(
    index: str,
    document_id: str,
    app: WithApp,
    version: int | None = Query(None, ge=0, le=LARGEST_CLIENT_VERSION, description="as a document's version"),
) -> Response:
    generation = await app.generation(index)
    if version is None:
        # Without a version a delete is about a document that is there; with one it may come before the document.
        await stored_document(app, index, document_id)
    write = tombstone(generation, checked_id(document_id), app.clock.next() if version is None else version)
    (verdict,) = await raw_writes(app, generation, [write])
    if verdict.outcome is Outcome.SUPERSEDED:
        raise Conflict("stale_version", "A newer version of this document is stored; it was kept.")
    if verdict.outcome is not Outcome.STORED:
        raise BackendUnavailable("not_stored", f"The delete could not be stored ({verdict.reason}); send it again.")
    return Response(status_code=204)


@router.get(
    "/jobs/{job_id}",
    responses=documented(200, JobAnswer, 404, 503),
    operation_id="get_job",
    summary="Follow an ingestion",
)
async def get_job(job_id: str, app: WithApp) -> Response:
    try:
        record = (await app.search.send(load_call(app.names, job_id)))["_source"]
    except NotFound:
        record = {}
    # (the record of an idempotency key is no job)
    if "accepted" not in record or not app.who.may(record["index"]):
        raise NotFound("job_not_found", f"There is no job {job_id[:80]!r}.") from None
    try:
        generation = await app.generation(record["index"])
        counts = read_counts(await app.search.send(count_call(generation.physical, job_id)))
        if unseen(record, counts):
            await app.search.send(refresh_call(generation.physical))
            counts = read_counts(await app.search.send(count_call(generation.physical, job_id)))
    except NotFound:
        return json_answer(summary(job_id, record, None))
    return json_answer(summary(job_id, record, counts))


def _answered(answer: intake_doors.Answer) -> Response:
    response = json_answer(answer.body, answer.status) if answer.status < 400 else said(answer.body)
    if answer.replayed:
        response.headers[REPLAYED] = "true"
    return response
