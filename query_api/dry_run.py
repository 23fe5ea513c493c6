"""Which of some queries would be answered differently by other rules. Nothing is written."""

import asyncio
from collections.abc import Sequence
from typing import Any

from query_api.parts import AppState
from query_api.search.pipeline import search
from query_api.search.request import Mode, SearchRequest
from services.curation.comparing import difference
from services.curation.matching import Compiled
from services.errors import BackendUnavailable, InvalidInput

# An operator waits for it; searches of users go on beside it.
AT_ONCE = 4
SECONDS = 30.0


async def dry_run(
    app: AppState, index: str, proposed: Compiled, queries: Sequence[str], mode: Mode, size: int
) -> list[dict[str, Any]]:
    """For each query what is answered now and what would be, and the difference; a bad query says what is wrong."""
    places = asyncio.Semaphore(AT_ONCE)

    async def compared(query: str) -> dict[str, Any]:
        request = SearchRequest(query=query, mode=mode, size=size, passage=False, fields=[], did_you_mean=False)
        async with places:
            try:
                before = await search(app, index, request)
                after = await search(app, index, request, proposed=proposed)
            except InvalidInput as error:
                said = query.encode(errors="replace").decode()  # (half of a surrogate pair has no place in an answer)
                return {"query": said, "changed": False, "error": {"code": error.code, "detail": error.detail}}
        old, new = ([hit["id"] for hit in answer["hits"]] for answer in (before, after))
        found = difference(old, new)
        return {
            "query": query,
            "changed": found.any,
            "overlap": round(found.overlap, 4),
            "before": old,
            "after": new,
            "entered": [{"id": one, "place": place} for one, place in found.entered.items()],
            "left": [{"id": one, "was": was} for one, was in found.left.items()],
            "moved": [{"id": one, "was": was, "place": place} for one, (was, place) in found.moved.items()],
            "curation": after["curation"],
        }

    try:
        async with asyncio.timeout(SECONDS):
            async with asyncio.TaskGroup() as group:  # (one error ends all, and none goes on unseen)
                tasks = [group.create_task(compared(query)) for query in queries]
    except TimeoutError:
        raise BackendUnavailable(
            "dry_run_timeout", f"{len(queries)} queries took more than {SECONDS:.0f} seconds: send fewer."
        ) from None
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
