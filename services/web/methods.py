"""HTTP methods: HEAD for every path that has GET, and the header Allow of a path that lacks a method.

The framework answers HEAD only where a route names it, and lists the methods of one route of a path, not of all.
"""

from typing import Final

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


class HeadMiddleware:
    """ASGI middleware that answers HEAD as GET, without the body (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        # The outer scope keeps its method: metrics and the server itself read it.
        inner = {**scope, "method": "GET"}
        try:
            await self._app(inner, receive, send_without_body)
        finally:
            if "route" in inner:
                scope["route"] = inner["route"]


def list_methods(routes: list[BaseRoute], scope: Scope) -> list[str]:
    """Return the methods that a path takes, in a fixed order. `scope` is that of any request for the path."""
    taken = [
        method
        for method in _METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    return ["GET", "HEAD", *taken[1:]] if "GET" in taken else taken
