"""Routes of searches: of one index (POST and GET), of several indexes, several in one request; and suggestions."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from query_api.access.gate import authorise_request
from query_api.app_state import WithApp, request_app_state
from query_api.schemas.admin import SuggestAddress, SuggestAnswer
from query_api.schemas.resources import document_responses, json_response
from query_api.schemas.search_request import SearchRequest
from query_api.schemas.search_response import AcrossAnswer, AcrossRequest, BatchAnswer, BatchRequest, SearchAnswer
from query_api.search.batch import batch
from query_api.search.pipeline import search, search_across
from query_api.search.validation import SearchAddress
from query_api.suggest import complete_text


class JsonRoute(APIRoute):
    """A route that validates its JSON body straight from the bytes, without the framework's dependency solver.

    The solver costs more than the search's own work (docs/decisions/0080, 0229). The route's endpoint takes the body as
    `request` and the application's state as `app`. Any request that is not plainly valid takes the framework's way,
    so each refusal has one wording.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler: the short way for valid bodies, the framework's for all else."""
        by_framework = super().get_route_handler()
        if self.body_field is None:
            return by_framework
        model: type[BaseModel] = self.endpoint.__annotations__["request"]
        endpoint: Callable[..., Awaitable[Response]] = self.endpoint

        async def handle(http: Request) -> Response:
            if http.headers.get("content-type") != "application/json":
                return await by_framework(http)
            try:
                body = model.model_validate_json(await http.body())
            except ValidationError:
                return await by_framework(http)
            await authorise_request(http)
            return await endpoint(**http.path_params, request=body, app=request_app_state(http))

        return handle


search_router = APIRouter(prefix="/v1", tags=["search"], route_class=JsonRoute)
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
async def get_search(index: str, parameters: Annotated[SearchAddress, Query()], app: WithApp) -> Response:
    return json_response(await search(app, index, parameters.request()))


@search_router.post(
    "/search",
    responses=document_responses(200, AcrossAnswer, 404, 422, 429, 503),
    operation_id="search_across",
    summary="Search several indexes as one",
)
async def post_across(request: AcrossRequest, app: WithApp) -> Response:
    return json_response(await search_across(app, request))


@search_router.post(
    "/search/batch",
    responses=document_responses(200, BatchAnswer, 422),
    operation_id="search_batch",
    summary="Perform several searches in one request",
)
async def post_batch(request: BatchRequest, app: WithApp) -> Response:
    return json_response(await batch(app, request))


suggest_router = APIRouter(prefix="/v1/indexes/{index}/suggest", tags=["search"])


@suggest_router.get(
    "",
    responses=document_responses(200, SuggestAnswer, 404, 422, 429, 503),
    operation_id="suggest",
    summary="Suggest titles and frequent queries for typed text",
)
async def get_suggestions(index: str, request: Annotated[SuggestAddress, Query()], app: WithApp) -> Response:
    return json_response(await complete_text(app, index, request))
