"""A body of documents on its way in: held against a clock, and against what all bodies together may hold in memory."""

import asyncio
import time
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.datastructures import Headers

from query_api.admission import Slot
from services.errors import InvalidInput, TooSlow

# The time for a body begins anew with each of these: a long one may take long, as long as it moves.
STEP_BYTES = 1024**2


class Receiving:
    """The body of one request. Only waiting for the sender counts as its time, not what is done with what it sent."""

    def __init__(self, request: Request, slot: Slot, timeout: float) -> None:
        self._request = request
        self._slot = slot
        self._timeout = timeout

    @property
    def headers(self) -> Headers:
        return self._request.headers

    def declared(self) -> int | None:
        """The length that the sender announced, if it did."""
        length = self._request.headers.get("content-length", "")
        return int(length) if length.isdigit() else None

    def reserve(self, size: int) -> None:
        """Says how many bytes of the body are kept. Raises Overloaded (`too_many_bytes`)."""
        self._slot.reserve(size)

    async def stream(self) -> AsyncIterator[bytes]:
        """The body's chunks. Raises TooSlow (`body_timeout`) and ClientDisconnect."""
        chunks = aiter(self._request.stream())
        left, step = self._timeout, 0
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(left):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise TooSlow(
                    "body_timeout",
                    f"The body did not arrive in time: {self._timeout:g} s for each {STEP_BYTES // 1024**2} MiB.",
                ) from None
            left -= time.monotonic() - began
            step += len(chunk)
            if step >= STEP_BYTES:
                left, step = self._timeout, 0
            yield chunk


def disconnected() -> InvalidInput:
    """What is said of a sender that went away; it does not hear it, but a job may."""
    return InvalidInput("client_disconnected", "The sender ended the stream half-way.")
