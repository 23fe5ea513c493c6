"""Refuses large bodies where none is expected, before a framework buffers them."""

import asyncio
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.errors import InvalidInput, TooLarge, TooSlow
from services.web.problems import problem_of

SMALL_BODY = 1024**2
# For all of it to arrive: a megabyte on a slow line of 300 kbit/s.
SECONDS = 30.0
# Each wrong value is worded, 12 microseconds apiece: a megabyte of them would hold the event loop for eight seconds.
MOST_VALUES = 50_000


class BodyLimit:
    """ASGI middleware: paths of the pattern `large` limit themselves, all others take 1 MiB, and of JSON `values`."""

    def __init__(
        self,
        app: ASGIApp,
        large: re.Pattern[str] | None = None,
        seconds: float = SECONDS,
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
        error = TooLarge("body_too_large", f"The body may have {SMALL_BODY:,} bytes.", limit=SMALL_BODY)
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > SMALL_BODY:
            await problem_of(error)(scope, receive, send)
            return
        # The body is read here, not by the framework: an error raised inside its reading would come out as its own.
        messages: list[Message] = []
        try:
            async with asyncio.timeout(self._seconds):
                whole = await _read(receive, messages)
        except TimeoutError:
            slow = TooSlow("body_timeout", f"The body did not arrive in {self._seconds:g} s.")
            await problem_of(slow)(scope, receive, send)
            return
        if not whole:
            await problem_of(error)(scope, receive, send)
            return
        if self._values is not None and sum(one.get("body", b"").count(b",") for one in messages) > self._values:
            many = InvalidInput("too_many_values", f"The body may have {self._values:,} values.", limit=self._values)
            await problem_of(many)(scope, receive, send)
            return
        replay = iter(messages)

        async def replayed() -> Message:
            return next(replay, None) or await receive()

        await self._app(scope, replayed, send)


async def _read(receive: Receive, messages: list[Message]) -> bool:
    """Reads the body; whether it is small enough."""
    received = 0
    while True:
        message = await receive()
        messages.append(message)
        received += len(message.get("body", b""))
        if received > SMALL_BODY:
            return False
        if not message.get("more_body", False):
            return True
