"""GET /v1/indexes/{index}/suggest: what somebody may be about to ask."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from query_api.parts import WithApp
from query_api.routes.answers import documented, json_answer
from query_api.suggest import suggest
from query_api.suggest_form import SuggestAddress, SuggestAnswer

router = APIRouter(prefix="/v1/indexes/{index}/suggest", tags=["search"])


@router.get(
    "",
    responses=documented(200, SuggestAnswer, 404, 422, 429, 503),
    operation_id="suggest",
    summary="Complete what somebody types",
)
async def get_suggestions(index: str, asked: Annotated[SuggestAddress, Query()], app: WithApp) -> Response:
    return json_answer(await suggest(app, index, asked))
