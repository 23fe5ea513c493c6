"""Which query tables this service has."""

from fastapi import APIRouter
from fastapi.responses import Response

from query_api.models import EncoderList
from query_api.parts import WithApp
from query_api.routes.answers import documented, json_answer

router = APIRouter(prefix="/v1/encoders", tags=["indexes"])


@router.get(
    "",
    responses=documented(200, EncoderList, 503),
    operation_id="list_encoders",
    summary="List the encoders that can be served",
)
async def list_encoders(app: WithApp) -> Response:
    """An index can be created with each of them, and is served when it was encoded by one of these fingerprints."""
    return json_answer(
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
