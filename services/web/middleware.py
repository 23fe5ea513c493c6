"""Counts, times and names each request, outside of everything else that handles it.

Routes are counted by their templates: a path is what a client makes up. Of a request nothing else is looked at but its
method and its id.

Refuses large bodies where none is expected, before a framework buffers them.
"""

import asyncio
import logging
import re
import time
from functools import cache
from typing import Final

from opentelemetry.trace import Span
from prometheus_client import Counter, Histogram
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.errors import InvalidInput, TooLarge, TooSlow
from services.telemetry import tracing
from services.telemetry.logs import (
    REQUEST_ID_FIELD,
    accept_request_id,
    bind_log_context,
    current_log_context,
    unbind_log_context,
)
from services.telemetry.metrics import HTTP_DURATION, HTTP_IN_PROGRESS, HTTP_REQUESTS
from services.web.problems import answer_error, error_response

MAX_SMALL_BODY_BYTES = 1024**2
# For all of it to arrive: a megabyte on a slow line of 300 kbit/s.
BODY_READ_SECONDS = 30.0
# Each wrong value is worded, 12 microseconds apiece: a megabyte of them would hold the event loop for eight seconds.
MAX_JSON_VALUES = 50_000


class BodyLimitMiddleware:
    """ASGI middleware: paths of the pattern `large` limit themselves, all others take 1 MiB, and of JSON `values`."""

    def __init__(
        self,
        app: ASGIApp,
        large: re.Pattern[str] | None = None,
        seconds: float = BODY_READ_SECONDS,
        values: int | None = None,
    ) -> None:
        self._app = app
        self._values = values
        self._seconds = seconds
        self._large = large

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (self._large and self._large.match(scope["path"])):
            await self._app(scope, receive, send)
            return
        error = TooLarge(
            "body_too_large", f"The body may have {MAX_SMALL_BODY_BYTES:,} bytes.", limit=MAX_SMALL_BODY_BYTES
        )
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > MAX_SMALL_BODY_BYTES:
            await error_response(error)(scope, receive, send)
            return
        # The body is read here, not by the framework: an error raised inside its reading would come out as its own.
        messages: list[Message] = []
        try:
            async with asyncio.timeout(self._seconds):
                whole = await _read_small_body(receive, messages)
        except TimeoutError:
            slow = TooSlow("body_timeout", f"The body did not arrive in {self._seconds:g} s.")
            await error_response(slow)(scope, receive, send)
            return
        if not whole:
            await error_response(error)(scope, receive, send)
            return
        if self._values is not None and sum(one.get("body", b"").count(b",") for one in messages) > self._values:
            many = InvalidInput("too_many_values", f"The body may have {self._values:,} values.", limit=self._values)
            await error_response(many)(scope, receive, send)
            return
        replay = iter(messages)

        async def replayed() -> Message:
            return next(replay, None) or await receive()

        await self._app(scope, replayed, send)


async def _read_small_body(receive: Receive, messages: list[Message]) -> bool:
    """Reads the body; whether it is small enough."""
    received = 0
    while True:
        message = await receive()
        messages.append(message)
        received += len(message.get("body", b""))
        if received > MAX_SMALL_BODY_BYTES:
            return False
        if not message.get("more_body", False):
            return True


log = logging.getLogger("sparsewell.access")

REQUEST_ID_HEADER: Final = b"x-request-id"
UNMATCHED_ROUTE: Final = "unmatched"
_METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"})
# (a name that no index can have is not repeated in logs)
_INDEX: Final = re.compile(r"/v1/indexes/([a-z0-9][a-z0-9_-]{0,99})(?:/|$)")
_CLIENT_CLOSED_STATUS: Final = 499  # nginx's word for a client that left before its answer began


class ObservabilityMiddleware:
    """ASGI middleware. `log_requests`: a line for each answer."""

    def __init__(self, app: ASGIApp, *, log_requests: bool = False) -> None:
        self._app = app
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        given = next((value for name, value in scope["headers"] if name == REQUEST_ID_HEADER), None)
        request_id = accept_request_id(None if given is None else given.decode("latin-1"))
        names = {REQUEST_ID_FIELD: request_id}
        if found := _INDEX.match(scope["path"]):
            names["index"] = found[1]
        status = _CLIENT_CLOSED_STATUS

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (REQUEST_ID_HEADER, request_id.encode())]
            await send(message)

        token = bind_log_context(names)
        HTTP_IN_PROGRESS.inc()
        with tracing.open_span("request", "server", parent=_carrier(scope) if tracing.is_tracing() else None) as span:
            try:
                await self._app(scope, receive, named)
            except Exception as error:
                if status == _CLIENT_CLOSED_STATUS:
                    await (await answer_error(Request(scope), error))(scope, receive, named)
                status = 500
                raise
            finally:
                HTTP_IN_PROGRESS.dec()
                self._answered(scope, status, time.perf_counter() - began, span)
                unbind_log_context(token)

    def _answered(self, scope: Scope, status: int, seconds: float, span: Span) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = route_template(scope)
        trace = tracing.current_trace_id()
        _requests(method, route, status).inc()
        _duration(method, route).observe(seconds, None if trace is None else {"trace_id": trace})
        if trace is not None:
            span.update_name(f"{method} {route}")
            said = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
            span.set_attributes({**said, **current_log_context()})
            if status >= 500:
                tracing.mark_span_failed(span, str(status))
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
    wanted = (tracing.TRACEPARENT_HEADER, tracing.TRACESTATE_HEADER)
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
            if name.decode("latin-1") in wanted}  # fmt: skip


def route_template(scope: Scope) -> str:
    """The template of the route that answered, `unmatched` where none did."""
    route = scope.get("route")
    return str(getattr(route, "path_format", None) or getattr(route, "path", UNMATCHED_ROUTE))
