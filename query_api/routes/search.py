"""Routes of searches: of one index (POST and GET), of several indexes, several in one request.

Suggestions complete the text that a user types. The frequent queries among them are listed, added and removed here.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Query
from fastapi.responses import Response

from query_api.access.gate import authorise_request
from query_api.app_state import WithApp
from query_api.routes.json_route import JsonRoute, ShortJsonRoute, check_parameters
from query_api.schemas.admin import (
    MAX_FREQUENT_QUERIES,
    AddedQueries,
    FrequentQueries,
    QueriesRequest,
    RemovedQueries,
)
from query_api.schemas.resources import document_responses, json_response
from query_api.schemas.search_request import BatchRequest, MultiIndexRequest, SearchRequest
from query_api.schemas.search_response import BatchAnswer, MultiIndexAnswer, SearchAnswer, SuggestAnswer
from query_api.search.batch import batch
from query_api.search.pipeline import search, search_multi_index
from query_api.search.validation import SearchParameters, SuggestParameters
from query_api.suggest import complete_text
from services.dates import now_ms
from services.errors import InvalidInput
from services.opensearch.suggestions import CountedQuery, list_queries_call, read_query_list, refresh_queries_call
from services.query.suggest import learnable_query, normalise_query

search_router = APIRouter(
    prefix="/v1",
    tags=["search"],
    route_class=ShortJsonRoute,
    dependencies=[Depends(authorise_request), Depends(check_parameters)],
)
_SEARCH_RESPONSES = document_responses(200, SearchAnswer, 404, 422, 429, 503)


@search_router.post(
    "/indexes/{index}/search", responses=_SEARCH_RESPONSES, operation_id="search", summary="Search an index"
)
async def post_search(index: str, request: SearchRequest, app: WithApp) -> Response:
    return json_response(await search(app, index, request))


@search_router.get(
    "/indexes/{index}/search",
    responses=_SEARCH_RESPONSES,
    operation_id="search_simply",
    summary="Search an index by query parameters",
)
async def get_search(index: str, parameters: Annotated[SearchParameters, Query()], app: WithApp) -> Response:
    return json_response(await search(app, index, parameters.request()))


@search_router.post(
    "/search",
    responses=document_responses(200, MultiIndexAnswer, 404, 422, 429, 503),
    operation_id="search_across",
    summary="Search several indexes as one",
)
async def post_multi_index(request: MultiIndexRequest, app: WithApp) -> Response:
    return json_response(await search_multi_index(app, request))


@search_router.post(
    "/search/batch",
    responses=document_responses(200, BatchAnswer, 422),
    operation_id="search_batch",
    summary="Perform several searches in one request",
)
async def post_batch(request: BatchRequest, app: WithApp) -> Response:
    return json_response(await batch(app, request))


def add_search_routes(app: FastAPI) -> None:
    """Add the routes of searches to the application itself, before all others: they are matched first and once."""
    app.router.routes[:0] = search_router.routes


suggest_router = APIRouter(prefix="/v1/indexes/{index}/suggest", tags=["search"], route_class=JsonRoute)


@suggest_router.get(
    "",
    responses=document_responses(200, SuggestAnswer, 404, 422, 429, 503),
    operation_id="suggest",
    summary="Suggest titles and frequent queries for typed text",
)
async def get_suggestions(index: str, request: Annotated[SuggestParameters, Query()], app: WithApp) -> Response:
    return json_response(await complete_text(app, index, request))


queries_router = APIRouter(prefix="/v1/indexes/{index}/queries", tags=["search"], route_class=JsonRoute)


@queries_router.get(
    "",
    responses=document_responses(200, FrequentQueries, 404, 422, 429, 503),
    operation_id="list_queries",
    summary="List the frequent queries of an index",
)
async def list_queries(
    index: str, app: WithApp, size: Annotated[int, Query(ge=1, le=MAX_FREQUENT_QUERIES)] = 100
) -> Response:
    generation, now = await app.generation(index), now_ms()
    await app.search.send(refresh_queries_call(app.names))  # An operator expects to see queries added just before.
    answer = await app.search.send(list_queries_call(app.names, generation, size, now))
    return json_response({"index": index} | read_query_list(answer, now))


@queries_router.post(
    "",
    responses=document_responses(200, AddedQueries, 404, 409, 422, 429, 503),
    operation_id="add_queries",
    summary="Add frequent queries from elsewhere",
)
async def add_queries(index: str, body: QueriesRequest, app: WithApp) -> Response:
    """The counts are added to the stored ones. Queries are case-folded."""
    generation = await app.generation(index)
    times: dict[str, int] = {}
    for position, counted in enumerate(body.queries, 1):
        query = learnable_query(counted.query)
        if query is None:
            raise InvalidInput(
                "query_not_learnable",
                f"Query {position} is not accepted: it is empty, has more than 100 characters, or contains an @, six "
                "digits in a row or unprintable characters.",
                position=position,
            )
        times[query] = times.get(query, 0) + counted.times
    await app.query_log.add([CountedQuery(index, generation.lineage, query, count) for query, count in times.items()])
    return json_response({"index": index, "added": len(times)})


@queries_router.delete(
    "",
    responses=document_responses(200, RemovedQueries, 404, 422, 429, 503),
    operation_id="delete_queries",
    summary="Remove one or all frequent queries of an index",
)
async def delete_queries(
    index: str,
    app: WithApp,
    q: Annotated[str | None, Query(description="the query to remove, in any case and with any accents")] = None,
    everything: Annotated[bool, Query(alias="all", description="remove all queries")] = False,
) -> Response:
    if (q is None) != everything:
        raise InvalidInput("invalid_request", "Name one query as `q`, or send `all=true`.")
    await app.generation(index)
    # `learnable_query` is too strict here: an earlier version may have stored queries that it refuses now.
    query = None if q is None else normalise_query(q)
    return json_response({"index": index, "deleted": await app.query_log.forget(index, query)})
