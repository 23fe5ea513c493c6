"""Refuses large bodies where none is expected, before a framework buffers them."""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.errors import TooLarge
from services.web.problems import problem_of

SMALL_BODY = 1024**2


class BodyLimit:
    """ASGI middleware: paths of the pattern `large` limit themselves, all others take 1 MiB."""

    def __init__(self, app: ASGIApp, large: re.Pattern[str] | None = None) -> None:
        self._app = app
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
        received = 0
        while True:
            message = await receive()
            messages.append(message)
            received += len(message.get("body", b""))
            if received > SMALL_BODY:
                await problem_of(error)(scope, receive, send)
                return
            if not message.get("more_body", False):
                break
        replay = iter(messages)

        async def replayed() -> Message:
            return next(replay, None) or await receive()

        await self._app(scope, replayed, send)
