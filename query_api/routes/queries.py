"""The frequent queries of an index, as the operator sees them: list them, add some, take some away."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from query_api.parts import WithApp
from query_api.queries_form import MOST, AddedQueries, FrequentQueries, QueriesBody, RemovedQueries
from query_api.routes.answers import documented, json_answer
from services.errors import InvalidInput
from services.learned import counted, learnable
from services.opensearch.journal import now_ms
from services.opensearch.query_store import Asked, list_call, read_list, refresh_call

router = APIRouter(prefix="/v1/indexes/{index}/queries", tags=["search"])


@router.get(
    "",
    responses=documented(200, FrequentQueries, 404, 422, 429, 503),
    operation_id="list_queries",
    summary="List the frequent queries of an index",
)
async def list_queries(index: str, app: WithApp, size: Annotated[int, Query(ge=1, le=MOST)] = 100) -> Response:
    generation, now = await app.generation(index), now_ms()
    await app.search.send(refresh_call(app.names))  # (who has just added one looks for it)
    answer = await app.search.send(list_call(app.names, generation, size, now))
    return json_answer({"index": index} | read_list(answer, now))


@router.post(
    "",
    responses=documented(200, AddedQueries, 404, 409, 422, 429, 503),
    operation_id="add_queries",
    summary="Count queries that were asked elsewhere",
)
async def add_queries(index: str, body: QueriesBody, app: WithApp) -> Response:
    """They are counted with those that are there already, in case-folded form."""
    generation = await app.generation(index)
    times: dict[str, int] = {}
    for position, given in enumerate(body.queries, 1):
        query = learnable(given.query)
        if query is None:
            raise InvalidInput(
                "query_not_learnable",
                f"Query {position} is not kept: it is empty, of more than 100 characters, or holds an @, six digits in "
                "a row or what cannot be printed.",
                position=position,
            )
        times[query] = times.get(query, 0) + given.times
    await app.learning.add([Asked(index, generation.lineage, query, count) for query, count in times.items()])
    return json_answer({"index": index, "added": len(times)})


@router.delete(
    "",
    responses=documented(200, RemovedQueries, 404, 422, 429, 503),
    operation_id="delete_queries",
    summary="Remove a frequent query of an index, or all",
)
async def delete_queries(
    index: str,
    app: WithApp,
    q: Annotated[str | None, Query(description="this one, whatever its case and accents")] = None,
    everything: Annotated[bool, Query(alias="all", description="all of them")] = False,
) -> Response:
    if (q is None) != everything:
        raise InvalidInput("invalid_request", "Name one query as `q`, or say `all=true`.")
    await app.generation(index)
    # (what would not be kept by now may have been, by an earlier version)
    query = None if q is None else counted(q)
    return json_answer({"index": index, "deleted": await app.learning.forget(index, query)})
