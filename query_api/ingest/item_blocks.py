"""The items of a body, block by block, with turns of the event loop for other requests.

A body of a few hundred kilobytes may have hundreds of thousands of items. Only one of them becomes values at a time,
and other requests run after every 128 items (docs/decisions/0250). `check_items` reads a whole body before anything of
it is journalled, so a body with an error in its JSON is refused as a whole.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Literal

import orjson

from query_api.ingest.backpressure import BackgroundReader
from query_api.ingest.request_body import BodyForm, too_many_documents
from services.documents.document import Document, decode_document, parse_document, parse_document_bytes
from services.documents.json_structure import BLOCK_BYTES
from services.errors import InvalidInput
from services.index_spec import DocumentLimits, IndexSpec

TURN_ITEMS: Final = 128
TURN_BYTES: Final = 64 * 1024
# Counting the values of a shorter text and decoding it takes 25 ms at most.
LONG_JSON_BYTES: Final = 1024**2

# Items as (number from 1, text or `ParsedDocument`), block by block. Each call begins anew.
ItemBlocks = Callable[[], Iterable[Sequence[tuple[int, object]]]]


class LoopTurns:
    """Turns of the event loop for other requests, during work on many small items.

    Awaiting data that has already arrived gives no turn. A turn follows after 128 items, which take about 1 ms to
    refuse and 3 ms to accept, or after 64 KiB.
    """

    def __init__(self) -> None:
        self._items = 0
        self._bytes = 0

    async def count(self, size: int) -> None:
        """Count an item of `size` bytes, and let other tasks run when a turn is due."""
        self._items += 1
        self._bytes += size
        if self._items >= TURN_ITEMS or self._bytes >= TURN_BYTES:
            self._items = self._bytes = 0
            await asyncio.sleep(0)


async def take_turns(blocks: ItemBlocks) -> AsyncIterator[tuple[int, object]]:
    """Yield the items of all blocks, and let other requests run in between.

    A block without items counts as well: it may be a part of a long item, or consist of empty lines.
    """
    turns = LoopTurns()
    for block in blocks():
        await turns.count(BLOCK_BYTES)
        for position, item in block:
            await turns.count(len(item) if isinstance(item, bytes) else 0)
            yield position, item


async def decode_beside_loop(raw: bytes | bytearray, complaint: str, reader: BackgroundReader) -> Any:
    """Decode the JSON text of a document, in the thread of `reader` if it is long. Raises as `decode_document`."""
    if len(raw) < LONG_JSON_BYTES:
        return decode_document(raw, complaint)
    return await reader.run(partial(decode_document, raw, complaint), len(raw))


async def check_items(form: BodyForm, blocks: ItemBlocks, limit: int, reader: BackgroundReader) -> int:
    """Check the items of a body, long ones by `reader`. Return their number.

    Raises InvalidInput (`invalid_json`, `not_an_array`), and TooLarge (`too_many_documents`) for more than `limit`.
    """
    count = 0
    async for position, item in take_turns(blocks):
        count += 1
        if count > limit:
            raise too_many_documents(limit, "; send more in several requests")
        if form == "array" and isinstance(item, bytes):
            try:
                await decode_beside_loop(item, f"The body is not JSON in UTF-8: item {position:,}", reader)
            except InvalidInput as error:
                if error.code == "invalid_json":  # An item with too many values is rejected alone.
                    raise
    return count


def parse_item(form: BodyForm | Literal["document"], raw: bytes, spec: IndexSpec, limits: DocumentLimits) -> Document:
    """Parse an item of an array or a line. Spaces and escapes of an item do not count for its size.

    Raises as `parse_document_bytes`.
    """
    if form != "array" or len(raw) <= limits.document:
        return parse_document_bytes(raw, spec, limits)
    value = decode_document(raw)
    return parse_document(value, spec, limits, len(orjson.dumps(value)))
