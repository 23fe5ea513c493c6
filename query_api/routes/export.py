"""All documents of an index, page by page, so that nobody is locked in."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from query_api.exporting import MAX_PAGE_DOCUMENTS, Export
from query_api.parts import WithApp
from query_api.routes.answers import documented

router = APIRouter(prefix="/v1/indexes/{index}/export", tags=["documents"])

_LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One document a line (id, title, text, metadata, version, state), then one line "
        '`{"export": {"index", "documents", "exported", "total", "cursor"}}`. A page without that line was cut: ask '
        "for it again. `cursor` null: that was all.",
        "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
    }
}


@router.get(
    "",
    response_class=StreamingResponse,
    responses=documented(200, None, 404, 422, 429, 503) | _LINES,
    operation_id="export",
    summary="Export documents, as they were when the export began",
)
async def get_export(
    index: str,
    app: WithApp,
    state: Annotated[
        list[Literal["pending", "encoded", "dead"]] | None, Query(description="only these; may be repeated")
    ] = None,
    vectors: Annotated[bool | None, Query(description="each window's vocabulary ids, pieces and weights too")] = None,
    size: Annotated[int, Query(ge=1, le=MAX_PAGE_DOCUMENTS, description="documents of a page, at most")] = 1000,
    cursor: Annotated[str | None, Query(description="that of the page before; none: the first page")] = None,
) -> StreamingResponse:
    """A page ends early when it grows beyond 16 MiB. A snapshot waits five minutes for the next page."""
    lines = await Export(app, index, size).stream(state, vectors, cursor)
    return StreamingResponse(lines, media_type="application/x-ndjson")
