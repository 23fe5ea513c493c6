"""Request bodies of documents: a buffered JSON array, or NDJSON that is processed line by line.

`BodyReceiver` receives a body within a time limit (per MiB) and within the memory that all bodies together may use.
`LineSplitter` splits a stream into lines and holds at most one of them. A body is split in small blocks, so that its
reader can let other requests run in between.
"""

import asyncio
import codecs
import time
from collections.abc import AsyncIterator, Iterator
from typing import Literal

from fastapi import Request
from starlette.requests import ClientDisconnect

from query_api.ingest.backpressure import RequestSlot
from services.errors import InvalidInput, TooLarge, TooSlow, UnsupportedMediaType
from services.text_encoding import detect_wide_encoding, strip_byte_order_mark
from services.web.json_bodies import (
    describe_media_type,
    is_json_type,
    read_media_type,
    refuse_declared_compression,
    refuse_undeclared_compression,
)

# The time limit of a body begins anew with each step, so a long body may take long as long as it makes progress.
RESERVATION_STEP_BYTES = 1024**2

# A block of line breaks only takes about 3 ms to split.
_BLOCK_BYTES = 8 * 1024

BodyForm = Literal["array", "lines"]
# Lines as (number from 1, text). None stands for a line over the limit.
NumberedLines = list[tuple[int, bytes | None]]

_LINES_MEDIA_TYPES = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}
)


class BodyReceiver:
    """The body of one request while it arrives. Only the time spent waiting for the client counts for its timeout."""

    def __init__(self, request: Request, slot: RequestSlot, timeout: float) -> None:
        """`timeout`: seconds for each step of RESERVATION_STEP_BYTES."""
        self._request = request
        self._slot = slot
        self._timeout = timeout

    def declared_length(self) -> int | None:
        """Return the body's length from the Content-Length header, None without it."""
        length = self._request.headers.get("content-length", "")
        return int(length) if length.isdigit() else None

    def reserve(self, size: int) -> None:
        """Reserve memory for `size` bytes of the body. Raises Overloaded (`too_many_bytes`)."""
        self._slot.reserve(size)

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the chunks of the body. Raises TooSlow (`body_timeout`) and ClientDisconnect."""
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
                mebibytes = RESERVATION_STEP_BYTES // 1024**2
                raise TooSlow(
                    "body_timeout", f"The body did not arrive in time: {self._timeout:g} s for each {mebibytes} MiB."
                ) from None
            left -= time.monotonic() - began
            step += len(chunk)
            if step >= RESERVATION_STEP_BYTES:
                left, step = self._timeout, 0
            yield chunk


def detect_body_form(request: Request) -> BodyForm:
    """Determine the form of a body from its media type.

    Raises UnsupportedMediaType (`unsupported_encoding`, `unsupported_media_type`).
    """
    refuse_declared_compression(request.headers)
    media_type = read_media_type(request.headers)
    if is_json_type(media_type):
        return "array"
    if media_type in _LINES_MEDIA_TYPES:
        return "lines"
    raise UnsupportedMediaType(
        "unsupported_media_type",
        "Send a JSON array with the header `content-type: application/json`, or one document a line with "
        f"`content-type: application/x-ndjson`, {describe_media_type(media_type)}.",
    )


async def read_whole_body(receiver: BodyReceiver, limit: int, advice: str = "") -> bytearray:
    """Read a body of at most `limit` bytes.

    Return it without a byte order mark. Raises TooLarge (`body_too_large`) as early as possible, Overloaded
    (`too_many_bytes`), TooSlow (`body_timeout`), InvalidInput (`client_disconnected`) and as `refuse_foreign_text`.
    """
    declared = receiver.declared_length() or 0
    if declared > limit:
        raise _body_too_large(limit, advice)
    receiver.reserve(declared)
    received = bytearray()
    try:
        async for chunk in receiver.stream():
            received += chunk
            if len(received) > limit:
                raise _body_too_large(limit, advice)
            receiver.reserve(len(received))
    except ClientDisconnect:
        raise client_disconnected() from None
    refuse_foreign_text(received)
    if received.startswith(codecs.BOM_UTF8):
        del received[: len(codecs.BOM_UTF8)]
    return received


def refuse_foreign_text(begin: bytes | bytearray) -> None:
    """Refuse a body that begins as compressed data or as UTF-16.

    Raises UnsupportedMediaType (`unsupported_encoding`), InvalidInput (`invalid_json`).
    """
    refuse_undeclared_compression(begin)
    encoding = detect_wide_encoding(bytes(begin[:512]))
    if encoding is not None:
        raise InvalidInput("invalid_json", f"The body is not JSON in UTF-8: it is {encoding}. Send it as UTF-8.")


def client_disconnected() -> InvalidInput:
    """Return the error of a client that disconnected. The client does not see it, but its job records it."""
    return InvalidInput("client_disconnected", "The client disconnected before the end of the body.")


def _body_too_large(limit: int, advice: str) -> TooLarge:
    return TooLarge("body_too_large", f"The body may have {limit:,} bytes{advice}.", limit=limit)


class LineSplitter:
    """A splitter of a byte stream into lines. It holds at most one line; a line over the limit is not kept."""

    def __init__(self, max_line_bytes: int) -> None:
        self._limit = max_line_bytes
        self._rest = bytearray()
        self._skipping = False
        self._number = 0

    def feed(self, chunk: bytes) -> NumberedLines:
        """Add a chunk. Return the lines completed by it as (number from 1, line); None for a line that is too long."""
        lines: NumberedLines = []
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._append(end)
            number, line = self._complete_line()
            if line is None or line.strip():
                lines.append((number, line))
        self._append(rest)
        return lines

    def finish(self) -> NumberedLines:
        """Return the last line when the stream does not end with a line break."""
        if not self._rest.strip() and not self._skipping:
            return []
        return [self._complete_line()]

    def _append(self, piece: bytes) -> None:
        if self._skipping:
            return
        self._rest += piece
        if len(self._rest) > self._limit:
            self._skipping = True
            self._rest.clear()

    def _complete_line(self) -> tuple[int, bytes | None]:
        self._number += 1
        line = None if self._skipping else bytes(self._rest)
        if self._number == 1 and line is not None:
            line = strip_byte_order_mark(line)
        self._rest.clear()
        self._skipping = False
        return self._number, line


def split_lines(body: bytearray, max_line_bytes: int) -> Iterator[NumberedLines]:
    """Split a complete body block by block into lines, as `LineSplitter.feed` returns them."""
    splitter, view = LineSplitter(max_line_bytes), memoryview(body)
    for offset in range(0, len(body), _BLOCK_BYTES):
        yield splitter.feed(bytes(view[offset : offset + _BLOCK_BYTES]))
    yield splitter.finish()


async def stream_lines(receiver: BodyReceiver, limit: int, max_line_bytes: int) -> AsyncIterator[NumberedLines]:
    """Yield the lines of a body while it arrives, block by block.

    Raises TooLarge (`body_too_large`) past `limit`, after all earlier chunks were yielded, and the errors of
    `BodyReceiver.stream` and `refuse_foreign_text`.
    """
    splitter, received = LineSplitter(max_line_bytes), 0
    async for chunk in receiver.stream():
        if not received:
            refuse_foreign_text(chunk)
        received += len(chunk)
        if received > limit:
            raise _body_too_large(limit, " in one stream; send the rest in another")
        for offset in range(0, len(chunk), _BLOCK_BYTES):
            yield splitter.feed(chunk[offset : offset + _BLOCK_BYTES])
    yield splitter.finish()


def too_many_documents(limit: int, advice: str) -> TooLarge:
    """Return the error of a body with more than `limit` documents."""
    return TooLarge("too_many_documents", f"A request may have {limit:,} documents{advice}.", limit=limit)
