"""Dead documents: what could not be encoded, why, and another try."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from query_api.dead_letters import list_dead, retry_dead
from query_api.models import DeadList, RetryAnswer, RetryRequest
from query_api.parts import WithApp
from query_api.routes.answers import documented, json_answer

router = APIRouter(prefix="/v1/indexes/{index}/dead", tags=["documents"])


@router.get(
    "",
    responses=documented(200, DeadList, 404, 422, 503),
    operation_id="list_dead",
    summary="List the documents that could not be encoded, the latest first",
)
async def get_dead(
    index: str,
    app: WithApp,
    size: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(description="that of the page before; none: the first page")] = None,
) -> Response:
    return json_answer(await list_dead(app, index, size, cursor))


@router.post(
    "/retry",
    responses=documented(200, RetryAnswer, 404, 422, 503),
    operation_id="retry_dead",
    summary="Put dead documents back to pending",
)
async def post_retry(index: str, request: RetryRequest, app: WithApp) -> Response:
    """The attempts begin anew. A newer write of a document wins, whenever it comes."""
    return json_answer(await retry_dead(app, index, request))
