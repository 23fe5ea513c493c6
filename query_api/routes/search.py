"""POST and GET /v1/indexes/{index}/search."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from query_api.parts import WithParts
from query_api.routes.answers import documented, json_answer
from query_api.search.answer import SearchAnswer
from query_api.search.pipeline import search
from query_api.search.request import SearchRequest
from query_api.search.short_form import SearchAddress

router = APIRouter(prefix="/v1/indexes/{index}/search", tags=["search"])
_ANSWERS = documented(200, SearchAnswer, 404, 422, 429, 503)


@router.post("", responses=_ANSWERS, operation_id="search", summary="Search an index")
async def post_search(index: str, request: SearchRequest, parts: WithParts) -> Response:
    return json_answer(await search(parts, index, request))


@router.get("", responses=_ANSWERS, operation_id="search_simply", summary="Search an index from the address bar")
async def get_search(index: str, said: Annotated[SearchAddress, Query()], parts: WithParts) -> Response:
    return json_answer(await search(parts, index, said.request()))
