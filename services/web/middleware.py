"""ASGI middleware: metrics, traces and logs of each request, and a limit on small bodies.

`ObservabilityMiddleware` wraps everything else. Requests are counted by route template, because clients choose the
path. It reads only the method, the id and the index in the path of a request. `BodyLimitMiddleware` refuses large
bodies before the framework buffers them.
"""

import asyncio
import logging
import re
import time
from collections.abc import Iterable
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

log = logging.getLogger("sparsewell.access")

REQUEST_ID_HEADER: Final = b"x-request-id"
UNMATCHED_ROUTE: Final = "unmatched"
_METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"})
# Only valid index names are logged.
_INDEX: Final = re.compile(r"/v1/indexes/([a-z0-9][a-z0-9_-]{0,99})(?:/|$)")
_CLIENT_CLOSED_STATUS: Final = 499  # nginx's status for a client that disconnected before the answer began

MAX_SMALL_BODY_BYTES = 1024**2
# Time for the whole body: 1 MiB at 300 kbit/s.
BODY_READ_SECONDS = 30.0
# An invalid value takes pydantic 1 to 3 microseconds and 370 bytes, and a body is validated in one step: 49,000 unknown
# members blocked the event loop for 44 to 135 ms and took 17 MiB. Rules have at most 256 KiB, about 29,000 words.
MAX_JSON_VALUES = 30_000


class ObservabilityMiddleware:
    """ASGI middleware that counts, times and traces each request and gives it an id.

    `log_requests`: log each answer.
    """

    def __init__(self, app: ASGIApp, *, log_requests: bool = False) -> None:
        self._app = app
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        client_id = next((value for name, value in scope["headers"] if name == REQUEST_ID_HEADER), None)
        request_id = accept_request_id(None if client_id is None else client_id.decode("latin-1"))
        log_fields = {REQUEST_ID_FIELD: request_id}
        if match := _INDEX.match(scope["path"]):
            log_fields["index"] = match[1]
        status = _CLIENT_CLOSED_STATUS

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (REQUEST_ID_HEADER, request_id.encode())]
            await send(message)

        token = bind_log_context(log_fields)
        HTTP_IN_PROGRESS.inc()
        with tracing.open_span("request", "server", parent=_carrier(scope) if tracing.is_tracing() else None) as span:
            try:
                await self._app(scope, receive, send_with_id)
            except Exception as error:
                if status == _CLIENT_CLOSED_STATUS:
                    await (await answer_error(Request(scope), error))(scope, receive, send_with_id)
                status = 500
                raise
            finally:
                HTTP_IN_PROGRESS.dec()
                self._record(scope, status, time.perf_counter() - began, span)
                unbind_log_context(token)

    def _record(self, scope: Scope, status: int, seconds: float, span: Span) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = route_template(scope)
        trace = tracing.current_trace_id()
        _requests(method, route, status).inc()
        _duration(method, route).observe(seconds, None if trace is None else {"trace_id": trace})
        if trace is not None:
            span.update_name(f"{method} {route}")
            attributes = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
            span.set_attributes({**attributes, **current_log_context()})
            if status >= 500:
                tracing.mark_span_failed(span, str(status))
        if self._log_requests:
            log.info(
                "%s %s %d %.1f ms", method, route, status, seconds * 1000,
                extra={"method": method, "route": route, "status": status, "ms": round(seconds * 1000, 3)},
            )  # fmt: skip


# prometheus_client builds a tuple and takes a lock for each look-up, some microseconds a request. There are a few
# hundred series, so they are cached.
@cache
def _requests(method: str, route: str, status: int) -> Counter:
    return HTTP_REQUESTS.labels(method, route, str(status))


@cache
def _duration(method: str, route: str) -> Histogram:
    return HTTP_DURATION.labels(method, route)


def _carrier(scope: Scope) -> dict[str, str]:
    """Return the trace headers of a request. The last of repeated headers counts."""
    names = (tracing.TRACEPARENT_HEADER, tracing.TRACESTATE_HEADER)
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
            if name.decode("latin-1") in names}  # fmt: skip


def route_template(scope: Scope) -> str:
    """Return the template of the route that answered, or `unmatched`."""
    route = scope.get("route")
    return str(getattr(route, "path_format", None) or getattr(route, "path", UNMATCHED_ROUTE))


class BodyLimitMiddleware:
    """ASGI middleware that limits bodies to 1 MiB, `seconds` and, for JSON, `values` values.

    Paths that match `large` have their own limits.
    """

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
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > MAX_SMALL_BODY_BYTES:
            await error_response(_too_large())(scope, receive, send)
            return
        # The body is read here because the framework would turn an error raised in `receive` into one of its own.
        messages: list[Message] = []
        try:
            async with asyncio.timeout(self._seconds):
                is_small = await _read_small_body(receive, messages)
        except TimeoutError:
            too_slow = TooSlow("body_timeout", f"The body did not arrive within {self._seconds:g} s.")
            await error_response(too_slow)(scope, receive, send)
            return
        if not is_small:
            await error_response(_too_large())(scope, receive, send)
            return
        commas = sum(message.get("body", b"").count(b",") for message in messages)
        if self._values is not None and commas > self._values:
            detail = f"The body may have at most {self._values:,} values."
            too_many = InvalidInput("too_many_values", detail, limit=self._values)
            await error_response(too_many)(scope, receive, send)
            return
        if len(messages) > 1 and messages[-1]["type"] == "http.request":
            # One message, even if the network split it: routes read it at once.
            body = b"".join(message.get("body", b"") for message in messages)
            messages = [{"type": "http.request", "body": body, "more_body": False}]
        await self._app(scope, replay(messages, receive), send)


def replay(messages: Iterable[Message], receive: Receive) -> Receive:
    """Return a channel that gives received messages once more, then the messages after them."""
    received = iter(messages)

    async def receive_again() -> Message:
        return next(received, None) or await receive()

    return receive_again


def _too_large() -> TooLarge:
    return TooLarge(
        "body_too_large", f"The body may have at most {MAX_SMALL_BODY_BYTES:,} bytes.", limit=MAX_SMALL_BODY_BYTES
    )


async def _read_small_body(receive: Receive, messages: list[Message]) -> bool:
    """Read the body into `messages`. Return False when it exceeds 1 MiB."""
    received = 0
    while True:
        message = await receive()
        messages.append(message)
        received += len(message.get("body", b""))
        if received > MAX_SMALL_BODY_BYTES:
            return False
        if not message.get("more_body", False):
            return True


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
