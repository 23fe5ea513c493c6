"""Lists dead documents and puts them back to pending: bounded work for each request, each document judged alone."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from query_api.app_state import AppState
from query_api.schemas.resources import RetryRequest
from services.documents.document import validate_document_id
from services.errors import BackendUnavailable, InvalidInput, NotFound, Overloaded
from services.index_spec import Generation
from services.opensearch.bulk import WriteOutcome, write_bulk_async
from services.opensearch.generations import refresh_call
from services.opensearch.journal import (
    DEAD,
    DELETED,
    StoredDocument,
    get_documents_call,
    read_stored_documents,
    read_stored_hits,
    retry_write,
)
from services.opensearch.maintenance import (
    DeadLetterCursor,
    list_dead_letters_call,
    parse_dead_letter_cursor,
    read_dead_letter_count,
    read_dead_letters,
    read_next_cursor,
)
from services.queue.messages import EncodeMessage
from services.telemetry.metrics import FAILED_ENQUEUES

log = logging.getLogger(__name__)

# A request begins no further page after this long, and says what remains.
RETRY_TIMEOUT_SECONDS = 10.0
# Of the documents that "all" did not retry, this many are named; all are counted.
MAX_RETRY_IDS = 1000

_REASONS = {
    "document_not_found": "The index has no such document.",
    "not_dead": "The document is not dead ({state}).",
    "retries_exhausted": "It was retried as often as one write can be; send the document again.",
    "superseded": "It was written, deleted or retried by somebody else meanwhile; that was kept.",
    "not_stored": "OpenSearch did not store the change in time; ask again.",
    "refused_by_opensearch": "OpenSearch refused the change.",
    "not_reached": "The time of this request did not suffice; ask again.",
}
_OUTCOME_CODES = {
    WriteOutcome.SUPERSEDED: "superseded",
    WriteOutcome.NOT_STORED: "not_stored",
    WriteOutcome.REFUSED: "refused_by_opensearch",
}


async def list_dead_letters(app: AppState, index: str, size: int, cursor: str | None) -> dict[str, Any]:
    """One page of an index's dead documents. Raises NotFound and InvalidInput (`bad_cursor`)."""
    after = None if cursor is None else parse_dead_letter_cursor(cursor)

    async def listed(generation: Generation) -> dict[str, Any]:
        answer = await app.search.send(list_dead_letters_call(generation.physical, size, after))
        following = read_next_cursor(answer, size)
        return {
            "index": index,
            "total": read_dead_letter_count(answer),
            "dead": read_dead_letters(answer),
            "cursor": None if following is None else str(following),
        }

    return await _act_on_generation(app, index, listed)


@dataclass
class DeadLetterRetry:
    """One request that puts dead documents back to pending."""

    app: AppState
    generation: Generation
    began: float = field(default_factory=time.monotonic)
    retried: list[str] = field(default_factory=list)
    not_retried: list[dict[str, str]] = field(default_factory=list)
    failed: int = 0
    queued: bool = True

    async def these(self, ids: Sequence[str]) -> dict[str, Any]:
        """The documents of these ids, as they are stored at this moment."""
        checked = [one for one in dict.fromkeys(ids) if self._is_id(one)]
        step = self.app.settings.message_documents
        for at in range(0, len(checked), step):
            page = checked[at : at + step]
            if at and not self._in_time:
                for document_id in checked[at:]:
                    self._leave(document_id, "not_reached")
                break
            answer = await self.app.search.send(get_documents_call(self.generation.physical, page))
            found = {stored.id: stored for stored in read_stored_documents(answer)}
            await self._page([found[one] for one in page if self._is_dead(one, found.get(one))])
        return await self._answer(0, None)

    async def all(self, after: DeadLetterCursor | None) -> dict[str, Any]:
        """All that searches see as dead, from a place in the list on, until the time is over."""
        step = self.app.settings.message_documents
        seen, total = 0, None
        while True:
            page = await self.app.search.send(list_dead_letters_call(self.generation.physical, step, after, whole=True))
            found = read_stored_hits(page)
            total = read_dead_letter_count(page) if total is None else total
            seen += len(found)
            await self._page(found)
            following = read_next_cursor(page, step)
            if following is None:
                return await self._answer(0, None)
            after = following
            if not self._in_time:
                return await self._answer(max(1, total - seen), after)

    @property
    def _in_time(self) -> bool:
        return time.monotonic() - self.began < RETRY_TIMEOUT_SECONDS

    def _leave(self, document_id: str, code: str, **details: str) -> None:
        self.failed += 1
        if len(self.not_retried) < MAX_RETRY_IDS:
            self.not_retried.append({"id": document_id, "code": code, "reason": _REASONS[code].format(**details)})

    def _is_id(self, document_id: str) -> bool:
        try:
            validate_document_id(document_id)
        except InvalidInput:
            self._leave(document_id, "document_not_found")
            return False
        return True

    def _is_dead(self, document_id: str, stored: StoredDocument | None) -> bool:
        if stored is None or stored.state == DELETED:
            self._leave(document_id, "document_not_found")
            return False
        if stored.state != DEAD:
            self._leave(document_id, "not_dead", state=stored.state)
            return False
        return True

    async def _page(self, dead: Sequence[StoredDocument]) -> None:
        settings = self.app.settings
        able = []
        for stored in dead:
            if stored.may_be_retried:
                able.append(stored)
            else:
                self._leave(stored.id, "retries_exhausted")
        writes = [retry_write(self.generation, stored, settings.lease_seconds) for stored in able]
        verdicts = await write_bulk_async(self.app.search, writes, settings.journal_bytes, RETRY_TIMEOUT_SECONDS)
        won = []
        for stored, verdict in zip(able, verdicts, strict=True):
            if verdict.outcome is WriteOutcome.STORED:
                won.append(stored.id)
            else:
                self._leave(stored.id, _OUTCOME_CODES[verdict.outcome])
        self.retried += won
        if won and self.queued:
            await self._enqueue(won)

    async def _enqueue(self, ids: list[str]) -> None:
        """Redis may be away: the sweeper enqueues what is still pending when its lease is over."""
        message = EncodeMessage(index=self.generation.index, ids=tuple(ids), generation=self.generation.number)
        try:
            await asyncio.to_thread(self.app.publisher.encode, self.generation.encoder.name, message)
        except (BackendUnavailable, Overloaded) as error:
            log.warning("%s: the sweeper will enqueue what was retried", error.code)
            FAILED_ENQUEUES.inc()
            self.queued = False

    async def _answer(self, remaining: int, following: DeadLetterCursor | None) -> dict[str, Any]:
        if self.retried:  # the next look at the list shall not show them
            await self.app.search.send(refresh_call(self.generation.physical))
        return {
            "index": self.generation.index,
            "retried": self.retried,
            "not_retried": self.not_retried,
            "failed": self.failed,
            "queued": self.queued,
            "remaining": remaining,
            "cursor": None if following is None else str(following),
        }


async def retry_dead_letters(app: AppState, index: str, request: RetryRequest) -> dict[str, Any]:
    """Puts some or all dead documents back to pending. Raises NotFound, InvalidInput and BackendUnavailable."""
    after = None if request.cursor is None else parse_dead_letter_cursor(request.cursor)

    async def retried(generation: Generation) -> dict[str, Any]:
        retry = DeadLetterRetry(app, generation)
        return await (retry.all(after) if request.all else retry.these(request.ids or ()))

    return await _act_on_generation(app, index, retried)


async def _act_on_generation(
    app: AppState, index: str, act: Callable[[Generation], Awaitable[dict[str, Any]]]
) -> dict[str, Any]:
    """Acts on the index's generation; one that was swapped and removed meanwhile is looked up once more."""
    try:
        return await act(await app.generation(index))
    except NotFound as error:
        if error.code != "index_not_found":
            raise
        app.forget(index)
        return await act(await app.generation(index))
