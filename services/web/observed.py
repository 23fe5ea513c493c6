"""Counts, times and names each request, outside of everything else that handles it.

Routes are counted by their templates: a path is what a client makes up. Of a request nothing else is looked at but its
method and its id.
"""

import logging
import re
import time
from functools import cache
from typing import Final

from opentelemetry.trace import Span
from prometheus_client import Counter, Histogram
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.telemetry import tracing
from services.telemetry.context import REQUEST_ID, accepted_request_id, bind, bound, unbind
from services.telemetry.metrics import HTTP_DURATION, HTTP_IN_PROGRESS, HTTP_REQUESTS
from services.web.problems import answer_of

log = logging.getLogger("sparsewell.access")

HEADER: Final = b"x-request-id"
UNMATCHED: Final = "unmatched"
_METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"})
# (a name that no index can have is not repeated in logs)
_INDEX: Final = re.compile(r"/v1/indexes/([a-z0-9][a-z0-9_-]{0,99})(?:/|$)")
_NOT_SENT: Final = 499  # nginx's word for a client that left before its answer began


class Observed:
    """ASGI middleware. `log_requests`: a line for each answer."""

    def __init__(self, app: ASGIApp, *, log_requests: bool = False) -> None:
        self._app = app
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        given = next((value for name, value in scope["headers"] if name == HEADER), None)
        request_id = accepted_request_id(None if given is None else given.decode("latin-1"))
        names = {REQUEST_ID: request_id}
        if found := _INDEX.match(scope["path"]):
            names["index"] = found[1]
        status = _NOT_SENT

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (HEADER, request_id.encode())]
            await send(message)

        token = bind(names)
        HTTP_IN_PROGRESS.inc()
        with tracing.span("request", "server", parent=_carrier(scope) if tracing.on() else None) as span:
            try:
                await self._app(scope, receive, named)
            except Exception as error:
                if status == _NOT_SENT:
                    await (await answer_of(Request(scope), error))(scope, receive, named)
                status = 500
                raise
            finally:
                HTTP_IN_PROGRESS.dec()
                self._answered(scope, status, time.perf_counter() - began, span)
                unbind(token)

    def _answered(self, scope: Scope, status: int, seconds: float, span: Span) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = template(scope)
        trace = tracing.trace_id()
        _requests(method, route, status).inc()
        _duration(method, route).observe(seconds, None if trace is None else {"trace_id": trace})
        if trace is not None:
            span.update_name(f"{method} {route}")
            said = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
            span.set_attributes({**said, **bound()})
            if status >= 500:
                tracing.fail(span, str(status))
        if self._log_requests:
            log.info(
                "%s %s %d %.1f ms", method, route, status, seconds * 1000,
                extra={"method": method, "route": route, "status": status, "ms": round(seconds * 1000, 3)},
            )  # fmt: skip


# The library makes a tuple and takes a lock for each look-up: some microseconds of a request, for a few hundred series.
@cache
def _requests(method: str, route: str, status: int) -> Counter:
    return HTTP_REQUESTS.labels(method, route, str(status))


@cache
def _duration(method: str, route: str) -> Histogram:
    return HTTP_DURATION.labels(method, route)


def _carrier(scope: Scope) -> dict[str, str]:
    """What a client says of its own trace. Of a header that comes twice the last one is believed."""
    wanted = (tracing.PARENT, tracing.STATE)
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
            if name.decode("latin-1") in wanted}  # fmt: skip


def template(scope: Scope) -> str:
    """The template of the route that answered, `unmatched` where none did."""
    route = scope.get("route")
    return str(getattr(route, "path_format", None) or getattr(route, "path", UNMATCHED))
