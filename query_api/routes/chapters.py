"""Routes of the chapters of talk.

The chapters of a talk are at `/chapters/{id}` and not below the document, because an id may contain slashes and end
in `/chapters`. Players get them as Podcasting 2.0 JSON, WebVTT or lines for YouTube.
"""

from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query
from fastapi.responses import Response

from query_api.app_state import WithApp
from query_api.routes.documents import read_stored_document
from query_api.routes.json_route import JsonRoute
from query_api.schemas.resources import ChaptersAnswer, document_responses, json_response
from services.documents.document import is_talk
from services.errors import NotFound
from services.opensearch.stored_document import StoredDocument, read_chapters
from services.talk.chapters import (
    PLAIN_TYPE,
    PODCASTING_TYPE,
    VTT_TYPE,
    format_podcasting,
    format_webvtt,
    format_youtube,
)
from services.talk.model import Chapter
from services.talk.parse import build_link

talk_router = APIRouter(prefix="/v1", tags=["talk"], route_class=JsonRoute)

ChapterFormat = Literal["json", "podcasting", "webvtt", "youtube"]
_TALK_SOURCE_MEMBERS = ("state", "kind", "title", "url", "duration", "chapters", "given", "chaptering", "talk_repairs")
_FORMAT_RESPONSES: dict[str, Any] = {
    PODCASTING_TYPE: {"schema": {"type": "object", "description": "Podcasting 2.0 chapters"}},
    VTT_TYPE: {"schema": {"type": "string", "description": "WebVTT chapters"}},
    PLAIN_TYPE: {"schema": {"type": "string", "description": "lines for the description of a YouTube video"}},
}
_CHAPTER_RESPONSES = document_responses(200, ChaptersAnswer, 404, 422, 503)


@talk_router.get(
    "/indexes/{index}/chapters/{document_id:path}",
    responses=_CHAPTER_RESPONSES | {200: _CHAPTER_RESPONSES[200] | {"content": _FORMAT_RESPONSES}},
    operation_id="get_chapters",
    summary="Read the chapters of a talk",
)
async def get_chapters(
    index: str,
    document_id: str,
    app: WithApp,
    form: Annotated[
        ChapterFormat,
        Query(alias="format", description="json: with the state of the document; the others are files for players"),
    ] = "json",
) -> Response:
    stored = await read_stored_document(app, index, document_id, only=_TALK_SOURCE_MEMBERS)
    if not is_talk(stored.source):
        raise NotFound("not_talk", f"The document {document_id[:80]!r} is not a talk, so it has no chapters.")
    listed = read_chapters(stored.source)
    if form == "json":
        talk = (await app.generation(index)).spec.talk
        return json_response(_describe_chapters(stored, listed, None if talk is None else talk.link))
    if not listed:
        raise NotFound("no_chapters", f"The talk has no chapters ({_missing_reason(stored)}).")
    chapters = [Chapter.read(chapter) for chapter in listed]
    match form:
        case "podcasting":
            file = format_podcasting(chapters, stored.source.get("title", ""), stored.source.get("url", ""))
            return Response(orjson.dumps(file), media_type=PODCASTING_TYPE)
        case "webvtt":
            return Response(format_webvtt(chapters), media_type=f"{VTT_TYPE}; charset=utf-8")
        case "youtube":
            return Response(format_youtube(chapters), media_type=f"{PLAIN_TYPE}; charset=utf-8")


def _describe_chapters(stored: StoredDocument, listed: list[dict[str, Any]], template: str | None) -> dict[str, Any]:
    source = stored.source
    members = ("title", "state", "url", "duration", "chaptering", "talk_repairs")
    url = source.get("url", "")
    linked = [chapter | {"link": build_link(template, url, stored.id, chapter.get("start_time"))} for chapter in listed]
    return {"id": stored.id} | {name: source[name] for name in members if name in source} | {"chapters": linked}


def _missing_reason(stored: StoredDocument) -> str:
    chaptering = stored.source.get("chaptering")
    if chaptering is None:
        return f"it is {stored.state}, and chapters are made when it is encoded"
    if "error" in chaptering:
        return f"{chaptering['error']['reason']} [{chaptering['error']['code']}]"
    return f"engine {chaptering['engine']}"
