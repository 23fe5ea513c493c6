"""What the operator's page shows."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from query_api.parts import WithApp
from query_api.routes.answers import documented, json_answer
from query_api.status import status

router = APIRouter(prefix="/v1/status", tags=["health"])


@router.get(
    "",
    responses=documented(200, dict[str, Any], 503),
    operation_id="status",
    summary="Queues, workers, and the generations of every index",
)
async def get_status(app: WithApp) -> Response:
    """`queues` and `workers` are null while Redis does not answer. A worker is listed for 35 s after it was last seen.

    A key that is for some indexes sees those, their encoders' queues, and the workers of these.
    """
    return json_answer(await status(app))
