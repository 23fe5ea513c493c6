"""Routes with a JSON body, and the check of query parameters.

`JsonRoute` reads a body for the framework: every refusal of a body has one wording, and its cost is bounded.
`ShortJsonRoute` also answers without the framework's dependency solver and exit stacks, which cost more than a search's
own work (docs/decisions/0080, 0229).
"""

from collections.abc import Awaitable, Callable
from typing import Any, get_args, get_origin

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import Message, Receive, Scope, Send

from query_api.access.gate import authorise_request
from query_api.app_state import request_app_state
from services.errors import InvalidInput
from services.web.json_bodies import JsonBody, read_json_text
from services.web.middleware import replay


class JsonRoute(APIRoute):
    """A route that validates its JSON body, if it takes one, before the framework reads it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.body_field
        self._body = None if field is None else JsonBody(field.field_info.annotation)
        self._is_optional = field is not None and not field.field_info.is_required()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Validate the body, then answer the framework's way.

        Raises as `authorise_request`, `read_json_text` and `JsonBody.validate`.
        """
        if self._body is None or scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        await authorise_request(Request(scope))
        message = await receive()  # `BodyLimitMiddleware` gives a body as one message.
        raw = message.get("body", b"")
        if message["type"] != "http.request" or (self._is_optional and not raw):
            await super().handle(scope, replay([message], receive), send)
            return
        if not raw:
            raise InvalidInput("invalid_request", "body: is missing. Send JSON.")
        text = read_json_text(Request(scope).headers, raw)
        request = await self._body.validate(text)
        await self.answer(request, {**message, "body": text}, scope, receive, send)

    async def answer(self, request: Any, message: Message, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose valid body is `request`, in `message`."""
        await super().handle(scope, replay([message], receive), send)


class ShortJsonRoute(JsonRoute):
    """A route whose endpoint takes the body as `request` and the application's state as `app`, and nothing else.

    The route must be added to the application itself (`add_search_routes`): a route of an included router passes
    through a second round of matching, about 20 microseconds a request.
    """

    async def answer(self, request: Any, message: Message, scope: Scope, receive: Receive, send: Send) -> None:
        http = Request(scope)
        refuse_unknown_parameters(http)
        endpoint: Callable[..., Awaitable[Response]] = self.endpoint
        response = await endpoint(**scope["path_params"], request=request, app=request_app_state(http))
        await response(scope, receive, send)


def refuse_unknown_parameters(request: Request) -> None:
    """Refuse query parameters that the route does not have, and a second value of those that take one.

    Without this check they would have no effect, a misspelt name and a first value alike.

    Raises InvalidInput (`invalid_request`).
    """
    if not request.scope["query_string"]:
        return
    route = request.scope["route"]
    if not isinstance(route, APIRoute) or not route.include_in_schema:
        return  # The scripts of the page read its parameters.
    known = _parameters(route)
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name not in known:
            listed = f"it takes {', '.join(f'`{each}`' for each in known)}" if known else "it takes none"
            raise InvalidInput("invalid_request", f"query.{name[:80]}: is not a parameter of this path; {listed}.")
        if name in seen and not _takes_list(known[name]):
            raise InvalidInput("invalid_request", f"query.{name}: is given more than once.")
        seen.add(name)


async def check_parameters(request: Request) -> None:
    """Check the query parameters. It is a dependency of every route; raises as `refuse_unknown_parameters`."""
    refuse_unknown_parameters(request)


def _parameters(route: APIRoute) -> dict[str, Any]:
    """Return the names of a route's query parameters, in its order, and their types."""
    found: dict[str, Any] = {}
    for field in route.dependant.query_params:
        model = field.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            members = model.model_fields.items()
            found |= {member.alias or name: member.annotation for name, member in members}
        else:
            found[field.alias] = model
    return found


def _takes_list(annotation: Any) -> bool:
    return any(get_origin(each) is list for each in (annotation, *get_args(annotation)))
