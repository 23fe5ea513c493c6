"""Many searches in one request: each has its own answer or its own problem, in the order in which they were asked.

They share their requests to OpenSearch (`batch_engine`), begin together and have one deadline. See decision 0167.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from query_api.parts import AppState
from query_api.search.across_form import AcrossRequest
from query_api.search.batch_engine import Together
from query_api.search.batch_form import BatchRequest
from query_api.search.pipeline import late, search, search_across
from query_api.search.request import SearchRequest
from query_api.search.stages import Response
from services.errors import InvalidInput
from services.web.problems import counted, of_any


async def batch(app: AppState, request: BatchRequest) -> dict[str, Any]:
    """Answers all. What is wrong with one search is its own.

    Raises InvalidInput (`empty_batch`, `batch_too_large`), and Overloaded for a caller who may not ask so much.
    """
    searches: Sequence[object] = request.searches
    most = app.settings.max_batch
    if not searches:
        raise InvalidInput("empty_batch", "The batch has no searches.")
    if len(searches) > most:
        raise InvalidInput("batch_too_large", f"A batch may have {most:,} searches; this has {len(searches):,}.")
    if len(searches) > 1:  # (the request itself counted as one)
        app.limiter.admit(app.who, len(searches) - 1)
    until = asyncio.get_running_loop().time() + app.settings.search_timeout
    await _look_up(app, searches, until)
    engine = Together(app.engine, len(searches))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_one(app, engine, asked, until)) for asked in searches]
    return {"answers": [task.result() for task in tasks]}


async def _look_up(app: AppState, searches: Sequence[object], until: float) -> None:
    """Each index once, or all its searches would ask for it at the same time. What is not found they find out."""
    named = {asked["index"] for asked in searches if isinstance(asked, dict) and isinstance(asked.get("index"), str)}
    with suppress(TimeoutError):
        async with asyncio.timeout_at(until):
            await asyncio.gather(*(app.generation(index, near=True) for index in named), return_exceptions=True)


async def _one(app: AppState, engine: Together, asked: object, until: float) -> dict[str, Any]:
    with engine.seat():
        try:
            async with asyncio.timeout_at(until):
                return {"status": 200, "answer": await _answer(app, engine, asked)}
        except TimeoutError:
            problem = counted(of_any(late()))
        except Exception as error:  # (a fault of ours in one search is none of the others' either)
            problem = counted(of_any(error))
    return {"status": problem["status"], "problem": problem}


async def _answer(app: AppState, engine: Together, asked: object) -> Response:
    if not isinstance(asked, dict):
        raise InvalidInput("invalid_request", "A search of a batch is a JSON object.")
    if "indexes" in asked:
        return await search_across(app, AcrossRequest.model_validate(asked), engine)
    index = asked.get("index")
    if not isinstance(index, str):
        raise InvalidInput("invalid_request", "A search of a batch names its `index`, or several `indexes`.")
    request = SearchRequest.model_validate({name: value for name, value in asked.items() if name != "index"})
    return await search(app, index, request, engine)
