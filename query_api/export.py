"""The export of an index: pages of NDJSON over one point in time.

`ExportPage` streams the documents of a page and then one line with the cursor of the next page. A page without that
line was cut; the client requests it again with the same cursor. The point in time is closed by the empty page after
the last document, so every page can be requested twice.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import orjson

from query_api.app_state import AppState
from query_api.points_in_time import PointInTime, close_point_in_time, open_point_in_time
from services.encoders.query_table import QueryTable
from services.errors import InvalidInput, NotFound, SparsewellError
from services.index_spec import Generation
from services.opensearch.export import (
    EXPORTED_STATES,
    KEEP_ALIVE_SECONDS,
    ExportPosition,
    bad_export_cursor,
    count_export_call,
    export_page_call,
    format_exported_document,
    read_export_count,
    read_export_page,
)
from services.opensearch.generations import refresh_call

MAX_PAGE_DOCUMENTS = 10_000
# A page ends at this size. Each request to OpenSearch is sized for a quarter of it, by the documents before. That is an
# estimate, so a request has a maximum: 64 documents of the largest accepted size are 64 MiB.
MAX_PAGE_BYTES = 16 * 1024**2
_FIRST_REQUEST, _MAX_REQUEST = 20, 64
# Longer answers are sent document by document: to copy 115 MB at once takes .1 s.
_JOINED_BYTES = 1024**2
# A talk may have 8 MiB.
_FIRST_TALK_REQUEST, _MAX_TALK_REQUEST = 4, 16


class ExportPage:
    """A request for one page of an export, of at most `size` documents."""

    def __init__(self, app: AppState, index: str, size: int) -> None:
        self._app = app
        self._index = index
        self._size = size
        self._key = b""

    async def stream(
        self, states: Sequence[str] | None, vectors: bool | None, cursor: str | None
    ) -> AsyncIterator[bytes]:
        """Return the lines of the page. Errors before the first document raise here, not in the stream.

        Raises NotFound (`index_not_found`, `cursor_expired`), InvalidInput (`bad_cursor`), EncoderMismatch.
        """
        app = self._app
        generation = await app.generation(self._index)
        self._key = app.cursor_key("export", [generation])
        if cursor is None:
            position = await self._begin(generation, tuple(states or EXPORTED_STATES), bool(vectors))
        else:
            position = ExportPosition.read(cursor, self._key)
            if app.principal.filter is not None:
                # Applies the principal's filter to the exported generation, which may not be the active one.
                await app.generation_of(self._index, position.physical)
            if (states and set(states) != set(position.states)) or vectors not in (None, position.vectors):
                raise InvalidInput("bad_cursor", "A cursor keeps `state` and `vectors` of the first page.")
        if position.ended:
            return self._last_line(position, 0, closing=True)
        try:
            table = await self._query_table(position) if position.vectors else None
            is_talk = generation.spec.talk is not None
            first_size, max_size = (
                (_FIRST_TALK_REQUEST, _MAX_TALK_REQUEST) if is_talk else (_FIRST_REQUEST, _MAX_REQUEST)
            )
            first = await self._read_documents(position, min(first_size, self._size), table)
        except SparsewellError:
            if cursor is None:
                await self._close(position)
            raise
        return self._lines(first, table, max_size, first_page=cursor is None)

    async def _begin(self, generation: Generation, states: tuple[str, ...], vectors: bool) -> ExportPosition:
        search = self._app.search
        self._app.points_in_time.check_room(self._app.principal.id)
        try:
            # The refresh makes all documents visible that were acknowledged before the export began.
            await search.send(refresh_call(generation.physical))
            point_in_time = await open_point_in_time(search, [generation.physical], KEEP_ALIVE_SECONDS)
        except NotFound:
            self._app.forget(self._index)
            raise
        self._app.points_in_time.record(point_in_time, KEEP_ALIVE_SECONDS, self._app.principal.id)
        total = read_export_count(await search.send(count_export_call(point_in_time.id, states)))
        return ExportPosition(generation.physical, point_in_time.id, point_in_time.shards, total, states, vectors)

    async def _close(self, position: ExportPosition) -> None:
        self._app.points_in_time.remove(position.point_in_time)
        await close_point_in_time(self._app.search, position.point_in_time)

    async def _query_table(self, position: ExportPosition) -> QueryTable:
        generation = await self._app.generation_of(self._index, position.physical)
        return self._app.tables.of(generation)

    async def _read_documents(
        self, position: ExportPosition, size: int, table: QueryTable | None
    ) -> tuple[list[bytes], ExportPosition]:
        """Read the next documents. Return their lines and the position after them."""
        try:
            answer = await self._app.search.send(export_page_call(position, size))
        except NotFound:
            raise NotFound(
                "cursor_expired", "The point in time of this export has expired: begin again, without a cursor."
            ) from None
        except InvalidInput:
            raise bad_export_cursor() from None
        hits, after = read_export_page(position, size, answer)
        self._app.points_in_time.remove(position.point_in_time)
        self._app.points_in_time.record(
            PointInTime(after.point_in_time, after.shards), KEEP_ALIVE_SECONDS, self._app.principal.id
        )
        # A text of 1 MiB with the vectors of its 1,200 windows takes .15 s.
        return await asyncio.to_thread(_format_lines, hits, table), after

    async def _lines(
        self, first: tuple[list[bytes], ExportPosition], table: QueryTable | None, max_size: int, *, first_page: bool
    ) -> AsyncIterator[bytes]:
        lines, position = first
        documents = length = 0
        while True:
            size = sum(map(len, lines))
            documents, length = documents + len(lines), length + size
            for piece in lines if size > _JOINED_BYTES else filter(None, [b"".join(lines)]):
                yield piece
            if position.ended or documents >= self._size or length >= MAX_PAGE_BYTES:
                break
            fitting = MAX_PAGE_BYTES // 4 * len(lines) // size if size else _FIRST_REQUEST
            try:
                next_size = min(max(1, fitting), max_size, self._size - documents)
                lines, position = await self._read_documents(position, next_size, table)
            except SparsewellError:
                # The page ends here and is complete. The request for the next page gets the error.
                break
        # An empty first page is the only page. Any other page keeps the point in time, because its cursor needs it.
        closing = first_page and position.ended and not documents
        async for line in self._last_line(position, documents, closing=closing):
            yield line

    async def _last_line(self, position: ExportPosition, documents: int, *, closing: bool) -> AsyncIterator[bytes]:
        """Yield the line after the documents. The last page closes the point in time and has no cursor."""
        if closing:
            await self._close(position)
        summary = {
            "index": self._index,
            "documents": documents,
            "exported": position.exported,
            "total": position.total,
            "cursor": None if closing else position.cursor(self._key),
        }
        yield orjson.dumps({"export": summary}) + b"\n"


def _format_lines(hits: Sequence[Mapping[str, Any]], table: QueryTable | None) -> list[bytes]:
    return [orjson.dumps(format_exported_document(hit, table)) + b"\n" for hit in hits]
