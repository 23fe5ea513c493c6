"""Dead letters: listing the documents that could not be encoded, and retrying them.

A retry puts documents back to pending with a compare-and-swap each. One request works for at most 10 s and returns a
cursor for the rest.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from query_api.app_state import AppState
from query_api.schemas.resources import RetryRequest
from services.documents.document import validate_document_id
from services.errors import BackendUnavailable, ConfigurationError, InvalidInput, NotFound, Overloaded
from services.index_spec import Generation
from services.opensearch.bulk import WriteOutcome, write_bulk_async
from services.opensearch.dead_letters import (
    DeadLetterCursor,
    list_dead_letters_call,
    parse_dead_letter_cursor,
    read_dead_letter_count,
    read_dead_letters,
    read_next_cursor,
)
from services.opensearch.generations import refresh_call
from services.opensearch.journal import (
    DEAD,
    DELETED,
    get_documents_call,
    read_stored_documents,
    read_stored_hits,
    retry_write,
)
from services.opensearch.stored_document import StoredDocument, WholeDocumentPages
from services.queue.messages import EncodeMessage
from services.telemetry.metrics import FAILED_ENQUEUES

log = logging.getLogger(__name__)

# A request starts no further page after this time, and reports how many documents remain.
RETRY_TIMEOUT_SECONDS = 10.0
# The answer names at most this many documents that were not retried, and counts all of them.
MAX_RETRY_IDS = 1000

_REASONS = {
    "document_not_found": "The index has no such document.",
    "not_dead": "The document is not dead ({state}).",
    "retries_exhausted": "The document has reached the limit of retries for one write; send it again.",
    "superseded": "Another request wrote, deleted or retried the document meanwhile; its change was kept.",
    "not_stored": "OpenSearch did not store the change in time; send the request again.",
    "refused_by_opensearch": "OpenSearch refused the change.",
    "not_reached": "The request ran out of time; send it again.",
}
_OUTCOME_CODES = {
    WriteOutcome.SUPERSEDED: "superseded",
    WriteOutcome.NOT_STORED: "not_stored",
    WriteOutcome.REFUSED: "refused_by_opensearch",
}


async def list_dead_letters(app: AppState, index: str, size: int, cursor: str | None) -> dict[str, Any]:
    """Return a page of an index's dead letters, the latest first.

    Raises NotFound (`index_not_found`) and InvalidInput (`bad_cursor`).
    """
    after = None if cursor is None else parse_dead_letter_cursor(cursor)

    async def list_page(generation: Generation) -> dict[str, Any]:
        answer = await app.search.send(list_dead_letters_call(generation.physical, size, after))
        next_cursor = read_next_cursor(answer, size)
        return {
            "index": index,
            "total": read_dead_letter_count(answer),
            "dead": read_dead_letters(answer),
            "cursor": None if next_cursor is None else str(next_cursor),
        }

    return await _act_on_generation(app, index, list_page)


async def retry_dead_letters(app: AppState, index: str, request: RetryRequest) -> dict[str, Any]:
    """Put some or all dead letters back to pending.

    Raises NotFound (`index_not_found`), InvalidInput (`bad_cursor`) and BackendUnavailable.
    """
    after = None if request.cursor is None else parse_dead_letter_cursor(request.cursor)

    async def run(generation: Generation) -> dict[str, Any]:
        retry = DeadLetterRetry(app, generation)
        return await (retry.retry_all(after) if request.all else retry.retry_ids(request.ids or ()))

    return await _act_on_generation(app, index, run)


@dataclass
class DeadLetterRetry:
    """A request that puts dead letters back to pending."""

    app: AppState
    generation: Generation
    began: float = field(default_factory=time.monotonic)
    retried: list[str] = field(default_factory=list)
    not_retried: list[dict[str, str]] = field(default_factory=list)
    failed: int = 0
    queued: bool = True

    async def retry_ids(self, ids: Sequence[str]) -> dict[str, Any]:
        """Retry the documents with these ids, read in real time."""
        valid = [document_id for document_id in dict.fromkeys(ids) if self._check_id(document_id)]
        step = self.app.settings.message_documents
        for at in range(0, len(valid), step):
            page = valid[at : at + step]
            if at and not self._in_time:
                for document_id in valid[at:]:
                    self._record_failure(document_id, "not_reached")
                break
            await self._retry_documents(page)
        return await self._answer(0, None)

    async def retry_all(self, after: DeadLetterCursor | None) -> dict[str, Any]:
        """Retry all documents that a search finds dead, from a cursor on, until the time is over."""
        step = self.app.settings.message_documents
        seen, total = 0, None
        while True:
            page = await self.app.search.send(list_dead_letters_call(self.generation.physical, step, after, ids=True))
            dead = read_stored_hits(page)
            total = read_dead_letter_count(page) if total is None else total
            seen += len(dead)
            await self._retry_documents([stored.id for stored in dead], listed=True)
            next_cursor = read_next_cursor(page, step)
            if next_cursor is None:
                return await self._answer(0, None)
            after = next_cursor
            if not self._in_time:
                return await self._answer(max(1, total - seen), after)

    async def _retry_documents(self, ids: Sequence[str], *, listed: bool = False) -> None:
        """Retry documents, read whole in real time and a few at a time.

        `listed`: a search found them dead, so another request has changed those that are not dead any more.
        """
        pages = WholeDocumentPages()
        while ids:
            page, ids = pages.take(ids)
            async with self.app.whole_document_reads:
                answer = await self.app.search.send(get_documents_call(self.generation.physical, page))
                documents = {stored.id: stored for stored in read_stored_documents(answer)}
                pages.record(documents.values())
                dead = []
                for name in page:
                    stored = documents.get(name)
                    if stored is not None and stored.state == DEAD:
                        dead.append(stored)
                    elif listed:
                        self._record_failure(name, "superseded")
                    else:
                        self._record_not_dead(name, stored)
                await self._retry_page(dead)

    @property
    def _in_time(self) -> bool:
        return time.monotonic() - self.began < RETRY_TIMEOUT_SECONDS

    def _record_failure(self, document_id: str, code: str, **details: str) -> None:
        self.failed += 1
        if len(self.not_retried) < MAX_RETRY_IDS:
            self.not_retried.append({"id": document_id, "code": code, "reason": _REASONS[code].format(**details)})

    def _check_id(self, document_id: str) -> bool:
        try:
            validate_document_id(document_id)
        except InvalidInput:
            self._record_failure(document_id, "document_not_found")
            return False
        return True

    def _record_not_dead(self, document_id: str, stored: StoredDocument | None) -> None:
        if stored is None or stored.state == DELETED:
            self._record_failure(document_id, "document_not_found")
        else:
            self._record_failure(document_id, "not_dead", state=stored.state)

    async def _retry_page(self, dead: Sequence[StoredDocument]) -> None:
        settings = self.app.settings
        retryable = []
        for stored in dead:
            if stored.may_be_retried:
                retryable.append(stored)
            else:
                self._record_failure(stored.id, "retries_exhausted")
        writes = [retry_write(self.generation, stored, settings.lease_seconds) for stored in retryable]
        verdicts = await write_bulk_async(self.app.search, writes, settings.journal_bytes, RETRY_TIMEOUT_SECONDS)
        pending = []
        for stored, verdict in zip(retryable, verdicts, strict=True):
            if verdict.outcome is WriteOutcome.STORED:
                pending.append(stored.id)
            else:
                self._record_failure(stored.id, _OUTCOME_CODES[verdict.outcome])
        self.retried += pending
        if pending and self.queued:
            await self._enqueue(pending)

    async def _enqueue(self, ids: list[str]) -> None:
        """Enqueue documents. While Redis is away, the sweeper does it when their leases end."""
        message = EncodeMessage(index=self.generation.index, ids=tuple(ids), generation=self.generation.number)
        try:
            await self.app.enqueue(self.generation, message)
        except (BackendUnavailable, ConfigurationError, Overloaded) as error:
            log.warning("%s: the sweeper will enqueue the retried documents", error.code)
            FAILED_ENQUEUES.inc()
            self.queued = False

    async def _answer(self, remaining: int, next_cursor: DeadLetterCursor | None) -> dict[str, Any]:
        if self.retried:  # The next listing must not show the retried documents.
            await self.app.search.send(refresh_call(self.generation.physical))
        return {
            "index": self.generation.index,
            "retried": self.retried,
            "not_retried": self.not_retried,
            "failed": self.failed,
            "queued": self.queued,
            "remaining": remaining,
            "cursor": None if next_cursor is None else str(next_cursor),
        }


async def _act_on_generation(
    app: AppState, index: str, act: Callable[[Generation], Awaitable[dict[str, Any]]]
) -> dict[str, Any]:
    """Call `act` with the index's generation, and once more when a swap removed the cached generation."""
    try:
        return await act(await app.generation(index))
    except NotFound as error:
        if error.code != "index_not_found":
            raise
        app.forget(index)
        return await act(await app.generation(index))
