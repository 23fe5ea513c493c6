"""POST /v1/search and /v1/search/batch: several indexes in one search, several searches in one request."""

from fastapi import APIRouter
from fastapi.responses import Response

from query_api.parts import WithParts
from query_api.routes.answers import documented, json_answer
from query_api.search.across_form import AcrossAnswer, AcrossRequest
from query_api.search.batch import batch
from query_api.search.batch_form import BatchAnswer, BatchRequest
from query_api.search.pipeline import search_across

router = APIRouter(prefix="/v1/search", tags=["search"])


@router.post(
    "",
    responses=documented(200, AcrossAnswer, 404, 422, 429, 503),
    operation_id="search_across",
    summary="Search several indexes as one",
)
async def post_across(request: AcrossRequest, parts: WithParts) -> Response:
    return json_answer(await search_across(parts, request))


@router.post(
    "/batch",
    responses=documented(200, BatchAnswer, 422),
    operation_id="search_batch",
    summary="Search many times at once",
)
async def post_batch(request: BatchRequest, parts: WithParts) -> Response:
    return json_answer(await batch(parts, request))
