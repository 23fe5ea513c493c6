"""Writes of journalled documents by the API.

`JournalWriter` writes the waiting documents of an `Intake` with the vectors of their stored versions. It reads these
versions in pages, so that memory is bounded by their bytes and not by the request (docs/decisions/0247).
`write_raw_documents` sends raw writes and tombstones.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext

from query_api.app_state import AppState
from services.documents.intake import Intake
from services.index_spec import Generation
from services.opensearch.bulk import Verdict, Write, write_bulk_async
from services.opensearch.client import Call
from services.opensearch.journal import LostAnswerCheck, read_stored_documents
from services.opensearch.stored_document import PAGE_BYTES, StoredDocument, WholeDocumentPages
from services.opensearch.vector_reuse import split_by_stored_version, stored_states_call, stored_versions_call

# A request of a few documents reads their stored versions at once.
_FIRST_PAGE_DOCUMENTS = 4

# Receives the ids that a generation (by its physical name) stored and that wait for an encoder.
OnPending = Callable[[str, list[str]], Awaitable[None]]


class JournalWriter:
    """The writer of one ingestion request. `on_pending` receives the documents that need an encoder."""

    def __init__(self, app: AppState, intake: Intake, on_pending: OnPending) -> None:
        self._app = app
        self._intake = intake
        self._on_pending = on_pending
        self._pages = WholeDocumentPages(_FIRST_PAGE_DOCUMENTS)

    async def write_waiting(self, generation: Generation, *, again: bool) -> None:
        """Write the waiting documents once: first those without a stored version, then pages of the others.

        `again`: see `Intake.apply_verdicts`. Raises NotFound (`index_not_found`) for a retired generation.
        """
        moment = self._app.clock.next()
        ids: Sequence[str] = self._intake.waiting_ids
        if len(ids) > self._pages.size:
            states = await self._read(stored_states_call(generation, ids))
            without, ids = split_by_stored_version(ids, states)
            if without:
                await self._write(generation, without, states, moment, again=again)
        while ids:
            # The stored documents may take 128 MB, whatever the size of the request. A single one does not wait.
            async with self._app.whole_document_reads if len(ids) > 1 else nullcontext():
                stored: dict[str, StoredDocument] = {}
                read, waiting, size = 0, ids, 0
                # A bulk request for every 32 documents took a third of the speed of updates.
                while ids and size < PAGE_BYTES:
                    page, ids = self._pages.take(ids)
                    found = await self._read(stored_versions_call(generation, page))
                    size += self._pages.record(found.values())
                    stored |= found
                    read += len(page)
                await self._write(generation, waiting[:read], stored, moment, again=again)

    async def _write(
        self,
        generation: Generation,
        ids: Sequence[str],
        stored: Mapping[str, StoredDocument],
        moment: int,
        *,
        again: bool,
    ) -> None:
        verdicts = await write_raw_documents(self._app, generation, self._intake.writes(ids, stored, moment))
        for physical, pending in self._intake.apply_verdicts(verdicts, again=again).items():
            await self._on_pending(physical, pending)

    async def _read(self, call: Call) -> dict[str, StoredDocument]:
        """Return stored documents by id. A retired generation has none."""
        return {stored.id: stored for stored in read_stored_documents(await self._app.search.send(call))}


async def write_raw_documents(app: AppState, generation: Generation, writes: list[Write]) -> list[Verdict]:
    """Write raw documents and tombstones. A write whose answer was lost counts as stored when OpenSearch has it.

    Raises NotFound (`index_not_found`).
    """
    settings = app.settings
    verdicts = await write_bulk_async(app.search, writes, settings.journal_bytes, settings.opensearch_timeout)
    check = LostAnswerCheck(generation.alias, writes, verdicts)
    call = check.call()
    return verdicts if call is None else check.resolve(await app.search.send(call))
