"""Routes of searches: of one index (POST and GET), of several indexes, several in one request; and suggestions."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import Message, Receive, Scope, Send

from query_api.access.gate import authorise_request
from query_api.app_state import WithApp, request_app_state
from query_api.schemas.admin import SuggestAnswer, SuggestParameters
from query_api.schemas.resources import document_responses, json_response
from query_api.schemas.search_request import SearchRequest
from query_api.schemas.search_response import AcrossAnswer, AcrossRequest, BatchAnswer, BatchRequest, SearchAnswer
from query_api.search.batch import batch
from query_api.search.pipeline import search, search_across
from query_api.search.validation import SearchParameters
from query_api.suggest import complete_text

_JSON_BODY = (b"content-type", b"application/json")


class JsonRoute(APIRoute):
    """A route that validates its JSON body from the bytes, without the framework's dependency solver and exit stacks.

    Both cost more than the search's own work (docs/decisions/0080, 0229). The endpoint takes the body as `request` and
    the application's state as `app`. A request that is not plainly valid takes the framework's way, so that each
    refusal has one wording. The route must be added to the application itself (`add_search_routes`): a route of an
    included router passes through a second round of matching, about 20 microseconds a request.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a plain JSON body the short way, and any other request the framework's way."""
        if self.body_field is None or _JSON_BODY not in scope["headers"]:
            await super().handle(scope, receive, send)
            return
        message = await receive()  # `BodyLimitMiddleware` gives a small body as one message
        request = self._parse(message)
        if request is None:
            await super().handle(scope, _replay(message, receive), send)
            return
        http = Request(scope)
        await authorise_request(http)
        endpoint: Callable[..., Awaitable[Response]] = self.endpoint
        response = await endpoint(**scope["path_params"], request=request, app=request_app_state(http))
        await response(scope, receive, send)

    def _parse(self, message: Message) -> BaseModel | None:
        """Return the request, if it is valid and came as one message."""
        if message["type"] != "http.request" or message.get("more_body", False):
            return None
        model: type[BaseModel] = self.endpoint.__annotations__["request"]
        try:
            return model.model_validate_json(message.get("body", b""))
        except ValidationError:
            return None


def _replay(message: Message, receive: Receive) -> Receive:
    """Return a channel that gives a message that was received once more, then the messages after it."""
    waiting = [message]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


search_router = APIRouter(
    prefix="/v1", tags=["search"], route_class=JsonRoute, dependencies=[Depends(authorise_request)]
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


def add_search_routes(app: FastAPI) -> None:
    """Add the routes of searches to the application itself, before all others: they are matched first and once."""
    app.router.routes[:0] = search_router.routes


suggest_router = APIRouter(prefix="/v1/indexes/{index}/suggest", tags=["search"])


@suggest_router.get(
    "",
    responses=document_responses(200, SuggestAnswer, 404, 422, 429, 503),
    operation_id="suggest",
    summary="Suggest titles and frequent queries for typed text",
)
async def get_suggestions(index: str, request: Annotated[SuggestParameters, Query()], app: WithApp) -> Response:
    return json_response(await complete_text(app, index, request))
