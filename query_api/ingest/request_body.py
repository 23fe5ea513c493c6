"""Reads documents from a request body: a JSON array that is buffered, or NDJSON line by line that never is.

A body of documents on its way in: held against a clock, and against what all bodies together may hold in memory.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Literal

import orjson
from fastapi import Request
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from query_api.ingest.backpressure import RequestSlot
from services.errors import InvalidInput, TooLarge, TooSlow, UnsupportedMediaType

# The time for a body begins anew with each of these: a long one may take long, as long as it moves.
RESERVATION_STEP_BYTES = 1024**2


class BodyReceiver:
    """The body of one request. Only waiting for the sender counts as its time, not what is done with what it sent."""

    def __init__(self, request: Request, slot: RequestSlot, timeout: float) -> None:
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
                    f"The body did not arrive in time: {self._timeout:g} s for each {RESERVATION_STEP_BYTES // 1024**2} MiB.",
                ) from None
            left -= time.monotonic() - began
            step += len(chunk)
            if step >= RESERVATION_STEP_BYTES:
                left, step = self._timeout, 0
            yield chunk


def client_disconnected() -> InvalidInput:
    """What is said of a sender that went away; it does not hear it, but a job may."""
    return InvalidInput("client_disconnected", "The sender ended the stream half-way.")


_ARRAY_MEDIA_TYPES = frozenset({"application/json"})
_LINES_MEDIA_TYPES = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}
)

BodyForm = Literal["array", "lines"]


def detect_body_form(request: Request) -> BodyForm:
    """Which of the two a request sends. Raises UnsupportedMediaType."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise UnsupportedMediaType("unsupported_encoding", f"Send the body uncompressed, not as {coding[:40]!r}.")
    if kind in _ARRAY_MEDIA_TYPES:
        return "array"
    if kind in _LINES_MEDIA_TYPES:
        return "lines"
    raise UnsupportedMediaType(
        "unsupported_media_type",
        f"Send a JSON array as application/json or one document a line as application/x-ndjson, not {kind[:80]!r}.",
    )


def _body_too_large(limit: int, advice: str) -> TooLarge:
    return TooLarge("body_too_large", f"The body may have {limit:,} bytes{advice}.", limit=limit)


async def read_whole_body(receiving: BodyReceiver, limit: int, advice: str = "") -> bytes:
    """The body, refused as soon as it is known to be too large. Raises TooLarge (`body_too_large`)."""
    declared = receiving.declared() or 0
    if declared > limit:
        raise _body_too_large(limit, advice)
    receiving.reserve(declared)
    received = bytearray()
    try:
        async for chunk in receiving.stream():
            received += chunk
            if len(received) > limit:
                raise _body_too_large(limit, advice)
            receiving.reserve(len(received))
    except ClientDisconnect:
        raise client_disconnected() from None
    return bytes(received)


def decode_json(body: bytes) -> object:
    """The decoded JSON. Raises InvalidInput (`invalid_json`)."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("invalid_json", f"The body is not JSON in UTF-8: {error}.") from None


def decode_json_array(body: bytes) -> list[object]:
    """The items of a JSON array. Raises InvalidInput (`invalid_json`, `not_an_array`)."""
    items = decode_json(body)
    if not isinstance(items, list):
        raise InvalidInput("not_an_array", "The body must be a JSON array of documents.")
    return items


class LineSplitter:
    """Cuts a stream of bytes into lines, holding at most one. A line over the limit is reported, not kept."""

    def __init__(self, max_line_bytes: int) -> None:
        self._limit = max_line_bytes
        self._rest = bytearray()
        self._skipping = False
        self._number = 0

    def feed(self, chunk: bytes) -> list[tuple[int, bytes | None]]:
        """Whole lines of the stream so far as (number from 1, line), None for one that is too long."""
        found: list[tuple[int, bytes | None]] = []
        *ends, rest = chunk.split(b"\n")
        for part in ends:
            self._take(part)
            found.append(self._line())
        self._take(rest)
        return [(number, line) for number, line in found if line is None or line.strip()]

    def finish(self) -> list[tuple[int, bytes | None]]:
        """The last line, when the stream does not end with a line break."""
        if not self._rest.strip() and not self._skipping:
            return []
        return [self._line()]

    def _take(self, part: bytes) -> None:
        if self._skipping:
            return
        self._rest += part
        if len(self._rest) > self._limit:
            self._skipping = True
            self._rest.clear()

    def _line(self) -> tuple[int, bytes | None]:
        self._number += 1
        line = None if self._skipping else bytes(self._rest)
        self._rest.clear()
        self._skipping = False
        return self._number, line


def split_lines(body: bytes, max_line_bytes: int) -> list[tuple[int, bytes | None]]:
    """The lines of a body that is all there."""
    cutter = LineSplitter(max_line_bytes)
    return cutter.feed(body) + cutter.finish()


async def stream_lines(
    receiving: BodyReceiver, limit: int, max_line_bytes: int
) -> AsyncIterator[list[tuple[int, bytes | None]]]:
    """Chunks of lines as they arrive. Raises TooLarge past `limit`, after what came before was handed out."""
    cutter, received = LineSplitter(max_line_bytes), 0
    async for chunk in receiving.stream():
        received += len(chunk)
        if received > limit:
            raise _body_too_large(limit, " in one stream; send the rest in another")
        yield cutter.feed(chunk)
    yield cutter.finish()
