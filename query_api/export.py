"""One page of an export as a stream of lines: documents, then one line that says where the next page begins.

A page that lacks its last line was cut; it is asked for again with the same cursor. The snapshot is let go of by the
page after the last document, which has no others: it can be asked for twice as well.
"""

from collections.abc import AsyncIterator, Sequence

import orjson

from query_api.app_state import AppState
from query_api.search.page_state import PointInTime, close_point_in_time, open_point_in_time
from services.encoders.query_table import QueryTable
from services.errors import InvalidInput, NotFound, SparsewellError
from services.index_spec import Generation
from services.opensearch.generations import refresh_call
from services.opensearch.point_in_time import (
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

MAX_PAGE_DOCUMENTS = 10_000
# A page ends when it has this many bytes; what is asked of OpenSearch at a time is sized for a quarter of it, by the
# size of the documents before. That is a guess, so few are asked for: 64 of the largest that are accepted are 64 MiB.
MAX_PAGE_BYTES = 16 * 1024**2
_FIRST, _MOST = 20, 64
_FIRST_OF_TALK, _MOST_OF_TALK = 4, 16  # of which one may have 8 MiB


class ExportPage:
    """One request for a page."""

    def __init__(self, app: AppState, index: str, size: int) -> None:
        self._app = app
        self._index = index
        self._size = size
        self._key = b""

    async def stream(
        self, states: Sequence[str] | None, vectors: bool | None, cursor: str | None
    ) -> AsyncIterator[bytes]:
        """The lines. Whatever goes wrong before the first document raises here, not in the stream.

        Raises NotFound (`index_not_found`, `cursor_expired`), InvalidInput (`bad_cursor`), EncoderMismatch.
        """
        app = self._app
        generation = await app.generation(self._index)
        self._key = app.cursor_key("export", [generation])
        if cursor is None:
            place = await self._begin(generation, tuple(states or EXPORTED_STATES), bool(vectors))
        else:
            place = ExportPosition.read(cursor, self._key)
            if app.who.filter is not None:
                await app.generation_of(self._index, place.physical)  # (its filter is of this generation)
            if (states and set(states) != set(place.states)) or vectors not in (None, place.vectors):
                raise InvalidInput("bad_cursor", "A cursor keeps `state` and `vectors` of the first page.")
        if place.ended:
            return self._end(place, 0, last=True)
        try:
            table = await self._table(place) if place.vectors else None
            few = generation.spec.talk is not None
            at_first, at_most = (_FIRST_OF_TALK, _MOST_OF_TALK) if few else (_FIRST, _MOST)
            first = await self._documents(place, min(at_first, self._size), table)
        except SparsewellError:
            if cursor is None:
                await self._let_go(place)
            raise
        return self._lines(first, table, at_most, alone=cursor is None)

    async def _begin(self, generation: Generation, states: tuple[str, ...], vectors: bool) -> ExportPosition:
        search = self._app.search
        self._app.held.admit(self._app.who.id)
        try:
            # what was acknowledged before the export began is in it
            await search.send(refresh_call(generation.physical))
            snapshot = await open_point_in_time(search, [generation.physical], KEEP_ALIVE_SECONDS)
        except NotFound:
            self._app.forget(self._index)
            raise
        self._app.held.keep(snapshot, KEEP_ALIVE_SECONDS, self._app.who.id)
        total = read_export_count(await search.send(count_export_call(snapshot.id, states)))
        return ExportPosition(generation.physical, snapshot.id, snapshot.shards, total, states, vectors)

    async def _let_go(self, place: ExportPosition) -> None:
        self._app.held.drop(place.snapshot)
        await close_point_in_time(self._app.search, place.snapshot)

    async def _table(self, place: ExportPosition) -> QueryTable:
        generation = await self._app.generation_of(self._index, place.physical)
        return self._app.tables.of(generation)

    async def _documents(
        self, place: ExportPosition, size: int, table: QueryTable | None
    ) -> tuple[list[bytes], ExportPosition]:
        try:
            answer = await self._app.search.send(export_page_call(place, size))
        except NotFound:
            raise NotFound(
                "cursor_expired", "The snapshot of this export is gone: begin again, without a cursor."
            ) from None
        except InvalidInput:
            raise bad_export_cursor() from None
        hits, after = read_export_page(place, size, answer)
        self._app.held.drop(place.snapshot)
        self._app.held.keep(PointInTime(after.snapshot, after.shards), KEEP_ALIVE_SECONDS, self._app.who.id)
        return [orjson.dumps(format_exported_document(hit, table)) + b"\n" for hit in hits], after

    async def _lines(
        self, first: tuple[list[bytes], ExportPosition], table: QueryTable | None, at_most: int, *, alone: bool
    ) -> AsyncIterator[bytes]:
        lines, place = first
        documents = length = 0
        while True:
            size = sum(map(len, lines))
            documents, length = documents + len(lines), length + size
            if lines:
                yield b"".join(lines)
            if place.ended or documents >= self._size or length >= MAX_PAGE_BYTES:
                break
            fitting = MAX_PAGE_BYTES // 4 * len(lines) // size if size else _FIRST
            try:
                wanted = min(max(1, fitting), at_most, self._size - documents)
                lines, place = await self._documents(place, wanted, table)
            except SparsewellError:
                # The page ends here, whole; what is wrong is the answer to the next one.
                break
        # a first page without documents is the only one; no other closes what its own cursor needs
        async for line in self._end(place, documents, last=alone and place.ended and not documents):
            yield line

    async def _end(self, place: ExportPosition, documents: int, *, last: bool) -> AsyncIterator[bytes]:
        """The line after the documents. There is no cursor in the very last one."""
        if last:
            await self._let_go(place)
        told = {
            "index": self._index,
            "documents": documents,
            "exported": place.exported,
            "total": place.total,
            "cursor": None if last else place.cursor(self._key),
        }
        yield orjson.dumps({"export": told}) + b"\n"
