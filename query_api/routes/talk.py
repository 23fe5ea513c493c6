"""The chapters of a talk, and the forms in which players take them.

An id may hold slashes and end in `/chapters`, so chapters are beside the documents and not below each.
"""

from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query
from fastapi.responses import Response

from query_api.documents import stored_document
from query_api.parts import WithApp
from query_api.routes.answers import documented, json_answer
from query_api.talk_form import ChaptersAnswer
from services.errors import NotFound
from services.opensearch.journal import Stored
from services.opensearch.talk_members import shown_chapters
from services.talk import exports
from services.talk.chaptering import is_talk
from services.talk.chapters import Chapter
from services.talk.links import link

router = APIRouter(prefix="/v1", tags=["talk"])

Form = Literal["json", "podcasting", "webvtt", "youtube"]
_READ = ("state", "kind", "title", "url", "duration", "chapters", "given", "chaptering", "talk_repairs")
_FORMS: dict[str, Any] = {
    exports.PODCASTING: {"schema": {"type": "object", "description": "Podcasting 2.0 chapters"}},
    exports.VTT: {"schema": {"type": "string", "description": "a track of chapters"}},
    exports.PLAIN: {"schema": {"type": "string", "description": "lines for the description of a video on YouTube"}},
}
_ANSWERS = documented(200, ChaptersAnswer, 404, 422, 503)


@router.get(
    "/indexes/{index}/chapters/{document_id:path}",
    responses=_ANSWERS | {200: _ANSWERS[200] | {"content": _FORMS}},
    operation_id="get_chapters",
    summary="The chapters of a talk",
)
async def get_chapters(
    index: str,
    document_id: str,
    app: WithApp,
    form: Annotated[
        Form, Query(alias="format", description="json: ours, with the state; the others are files for players")
    ] = "json",
) -> Response:
    stored = await stored_document(app, index, document_id, only=_READ)
    if not is_talk(stored.source):
        raise NotFound("not_talk", f"The document {document_id[:80]!r} is no talk: it has no chapters.")
    listed = shown_chapters(stored.source)
    if form == "json":
        talk = (await app.generation(index)).spec.talk
        return json_answer(_answer(stored, listed, None if talk is None else talk.link))
    if not listed:
        raise NotFound("no_chapters", f"The talk has no chapters ({_why(stored)}).")
    chapters = [Chapter.read(one) for one in listed]
    match form:
        case "podcasting":
            file = exports.podcasting(chapters, stored.source.get("title", ""), stored.source.get("url", ""))
            return Response(orjson.dumps(file), media_type=exports.PODCASTING)
        case "webvtt":
            return Response(exports.webvtt(chapters), media_type=f"{exports.VTT}; charset=utf-8")
        case "youtube":
            return Response(exports.youtube(chapters), media_type=f"{exports.PLAIN}; charset=utf-8")


def _answer(stored: Stored, listed: list[dict[str, Any]], template: str | None) -> dict[str, Any]:
    source = stored.source
    shown = ("title", "state", "url", "duration", "chaptering", "talk_repairs")
    url = source.get("url", "")
    linked = [one | {"link": link(template, url, stored.id, one.get("start_time"))} for one in listed]
    return {"id": stored.id} | {name: source[name] for name in shown if name in source} | {"chapters": linked}


def _why(stored: Stored) -> str:
    made = stored.source.get("chaptering")
    if made is None:
        return f"it is {stored.state}, and they are made when it is encoded"
    return f"{made['error']['reason']} [{made['error']['code']}]" if "error" in made else f"engine {made['engine']}"
