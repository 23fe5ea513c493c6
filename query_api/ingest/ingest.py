"""Ingestion of documents by the API: journal them in OpenSearch, then enqueue them for the workers.

`ingest_documents` handles POST of many documents, `ingest_document` PUT of one. Both check, in this order: the
idempotency key, a slot in flight, the index, the backlog and the body. No document is acknowledged before OpenSearch
has it on disk. While Redis is away, the sweeper enqueues pending documents.
"""

import logging
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import orjson
from fastapi import Request
from starlette.requests import ClientDisconnect

from query_api.app_state import AppState
from query_api.ingest import request_body
from query_api.ingest.backpressure import ParsedDocument
from query_api.ingest.idempotency import (
    KEY_HEADER,
    IdempotencyClaim,
    claim_key,
    idempotency_digest,
    parse_idempotency_key,
    store_job_outcome,
)
from query_api.ingest.item_blocks import (
    LONG_JSON_BYTES,
    ItemBlocks,
    LoopTurns,
    check_items,
    decode_beside_loop,
    parse_item,
    take_turns,
)
from query_api.ingest.journal_writer import JournalWriter
from query_api.ingest.request_body import BodyForm, BodyReceiver, client_disconnected, too_many_documents
from services.documents.document import Document, parse_document
from services.documents.intake import Intake, count_ingested, nothing_stored, rejection_error
from services.documents.json_structure import BLOCK_BYTES, ArraySplitter
from services.errors import (
    BackendUnavailable,
    ConfigurationError,
    Conflict,
    InvalidInput,
    NotFound,
    Overloaded,
    SparsewellError,
    TooLarge,
    TooSlow,
)
from services.index_spec import Generation
from services.opensearch.jobs import JobRecord
from services.queue.lanes import is_interactive
from services.queue.messages import encode_messages
from services.telemetry.logs import add_log_context
from services.telemetry.metrics import FAILED_ENQUEUES, PROBLEMS
from services.web.problems import problem_members

log = logging.getLogger(__name__)

# Documents of one bulk request, unless its bytes reach `journal_bytes` first.
FLUSH_DOCUMENTS = 500
# A write is repeated when another write of the same document was faster, or when a swap retired the generation.
MAX_WRITES = 5
# A document of a bulk request is in memory as values, as a write and in the body of the bulk request.
_WRITE_COPIES = 3

_ARRAY_ADVICE = "; send more in several requests or as application/x-ndjson"
_KEY_ADVICE = (
    " with an Idempotency-Key, because the API reads it whole first; send several requests, each with its own key"
)

IngestForm = BodyForm | Literal["document"]
# Memory of an accepted id, in the answer and among the ids seen so far: measured 130 bytes for a short id.
_ID_BYTES = 200


@dataclass(frozen=True, slots=True)
class IngestResponse:
    """The answer to an ingestion request. `replayed`: it is the answer of an earlier request with the same key."""

    body: dict[str, Any]
    status: int = 202
    replayed: bool = False


async def ingest_documents(app: AppState, index: str, request: Request) -> IngestResponse:
    """Ingest a JSON array, or NDJSON that is journalled while it arrives.

    Raises the errors of `Ingestion.answer`, `request_body`, `claim_key` and the limits in `backpressure`.
    """
    form = request_body.detect_body_form(request)
    key = parse_idempotency_key(headers) if (headers := request.headers.getlist(KEY_HEADER)) else None
    settings = app.settings
    with app.in_flight.slot() as slot:
        generation = await app.generation(index)
        await app.admit_documents(generation)
        receiver = BodyReceiver(request, slot, settings.body_timeout)
        if form == "lines" and key is None:
            return IngestResponse(await _ingest_stream(app, generation, receiver))
        raw = await request_body.read_whole_body(
            receiver, settings.max_body_bytes, _ARRAY_ADVICE if key is None else _KEY_ADVICE
        )
        longest = app.document_limits.longest(generation.spec)
        blocks: ItemBlocks = (
            partial(request_body.split_lines, raw, longest) if form == "lines" else ArraySplitter(raw).blocks
        )
        count = await check_items(form, blocks, settings.max_request_documents, app.background_reader)
        buffered = min(len(raw), settings.journal_bytes + longest)
        receiver.reserve(len(raw) + _WRITE_COPIES * buffered + _ID_BYTES * count)
        app.limiter.charge_writes(app.principal, count, len(raw))
        return await _ingest_items(app, generation, form, blocks, (key, idempotency_digest(form, raw)) if key else None)


async def ingest_document(app: AppState, index: str, document_id: str, request: Request) -> IngestResponse:
    """Ingest one document. Raises the reason itself when the document is rejected."""
    if request_body.detect_body_form(request) != "array":
        raise InvalidInput("not_an_object", "PUT takes one document as application/json.")
    key = parse_idempotency_key(headers) if (headers := request.headers.getlist(KEY_HEADER)) else None
    with app.in_flight.slot() as slot:
        generation = await app.generation(index)
        await app.admit_documents(generation)
        receiver = BodyReceiver(request, slot, app.settings.body_timeout)
        limits = app.document_limits
        raw = await request_body.read_whole_body(receiver, limits.longest(generation.spec))
        app.limiter.charge_writes(app.principal, 1, len(raw))
        value = await decode_beside_loop(raw, "The body is not JSON in UTF-8", app.background_reader)
        if isinstance(value, dict) and value.setdefault("id", document_id) != document_id:
            raise InvalidInput("id_mismatch", "The body's `id` differs from the path's.")
        parse = partial(parse_document, value, generation.spec, limits, len(raw))
        document = await app.background_reader.run(parse, 0 if generation.spec.talk is None else len(raw))
        # The path names the document, so it is part of the request that the key stands for.
        digest = idempotency_digest("document", orjson.dumps(document_id) + raw) if key else ""
        return await _ingest_items(
            app,
            generation,
            "document",
            lambda: [[(1, ParsedDocument(document, len(raw)))]],
            (key, digest) if key else None,
        )


class Ingestion:
    """Execution of an ingestion request, whose body has the form `form`.

    With the claim of an idempotency key it uses the record's job and version, as every execution of the same
    request does.
    """

    def __init__(
        self, app: AppState, generation: Generation, form: IngestForm, claim: IdempotencyClaim | None = None
    ) -> None:
        self._app = app
        self._generation = generation
        self._form = form
        self.job = JobRecord(claim.record.job if claim else uuid.uuid4().hex, generation.index)
        add_log_context(job=self.job.id)
        version, first = (claim.record.version, claim.first) if claim else (None, False)
        self._intake = Intake(generation, self.job.id, app.clock, app.settings.lease_seconds, version, first)
        self._journal = JournalWriter(app, self._intake, self._enqueue_stored)
        self._queued = True
        self._bytes = 0
        self._total_bytes = 0
        self._last_position = 0

    @property
    def final(self) -> bool:
        """Return whether a repetition would end the same way: no document was left out for a temporary reason."""
        return not self._intake.not_stored

    async def accepts(self, position: int, item: object) -> bool:
        """Parse one item without journalling it. Return whether any item so far is acceptable."""
        await self._receive(position, item)
        return self._intake.waiting > 0

    async def add(self, position: int, item: object) -> None:
        """Parse one item, and journal when a bulk request is full.

        An item is the text of an item of an array, a line (None for a line over the limit) or a `ParsedDocument`.
        """
        size = await self._receive(position, item)
        self._bytes += size
        self._total_bytes += size
        if self._intake.held >= FLUSH_DOCUMENTS or self._bytes >= self._app.settings.journal_bytes:
            await self._flush()

    async def _receive(self, position: int, item: object) -> int:
        """Parse an item and return its bytes of JSON; 0 if it is rejected, because it is not kept."""
        spec, held = self._generation.spec, self._intake.held
        size, parse = self._parser(item)
        receive = partial(self._intake.receive, position, parse)
        # Only a transcript takes long to parse, or an item with a megabyte of spaces and escapes.
        long = spec.talk is not None or size >= LONG_JSON_BYTES
        await self._app.background_reader.run(receive, size if long else 0)
        self._last_position = position
        return size if self._intake.held > held else 0

    def _parser(self, item: object) -> tuple[int, Callable[[], Document]]:
        """Return the bytes of an item's JSON and the function that parses it."""
        if isinstance(item, ParsedDocument):
            return item.size, lambda: item.document
        limits, spec = self._app.document_limits, self._generation.spec
        longest = limits.longest(spec)
        if not isinstance(item, bytes):
            return longest + 1, partial(parse_document, None, spec, limits, longest + 1)
        return len(item), partial(parse_item, self._form, item, spec, limits)

    async def finish(self, failure: SparsewellError | None = None) -> dict[str, Any]:
        """Journal the rest, save the job and return the answer. Raises as `answer`."""
        await self.journal()
        answer = self.answer(failure)
        await self._app.search.send(self.job.save_call(self._app.names))
        return answer

    async def journal(self) -> None:
        """Journal the rest and complete the job's record, without saving the record."""
        await self._flush(streaming=False)
        job, intake = self.job, self._intake
        job.accepted, job.rejected = intake.accepted_count, intake.rejected
        job.rejections, job.complete = intake.rejections, True
        count_ingested(job.accepted, job.rejected)

    def answer(self, failure: SparsewellError | None = None) -> dict[str, Any]:
        """Return the answer. `failure` ended the body early.

        Raises when no document was accepted: the failure, Overloaded or BackendUnavailable when OpenSearch stored none,
        Conflict (`stale_version`) for a single document, else InvalidInput (`no_document_accepted`) with every reason.
        """
        intake = self._intake
        rejected = [rejection.as_json() for rejection in intake.rejections]
        if not intake.accepted_count:
            if failure is not None:
                raise failure
            if rejected and intake.not_stored == intake.rejected:
                raise nothing_stored(overloaded=intake.overloaded)
            if self._form == "document" and rejected:
                raise rejection_error(intake.rejections[0])
            detail = "No document was accepted; `rejected` says why." if rejected else "The body holds no document."
            raise InvalidInput("no_document_accepted", detail, rejected=rejected, rejected_count=intake.rejected)
        answer: dict[str, Any] = {
            "job": {"id": self.job.id, "index": self.job.index},
            "accepted": intake.accepted,
            "rejected": rejected,
            "rejected_count": intake.rejected,
            "queued": self._queued,
        }
        if failure is not None:
            PROBLEMS.labels(failure.code).inc()
            answer["stopped"] = {"code": failure.code, "detail": failure.detail, "after": self._last_position}
            if "retry_after" in failure.extra:
                answer["stopped"]["retry_after"] = failure.extra["retry_after"]
        return answer

    async def _flush(self, *, streaming: bool = True) -> None:
        if not self._intake.waiting:
            return
        self._bytes = 0
        # A long stream has a job from its first bulk request on, so that the job exists if the client disconnects.
        if streaming and not self._intake.accepted_count:
            with suppress(Conflict):
                await self._app.search.send(self.job.begin_call(self._app.names))
        attempt = 0
        # After MAX_WRITES, each round ends with a verdict for each document. Only a lower version of a refused document
        # waits for one more round.
        while self._intake.waiting:
            attempt += 1
            try:
                await self._journal.write_waiting(self._generation, again=attempt < MAX_WRITES)
            except NotFound:
                # The generation was retired by a swap, so its vectors are not those of the searched one.
                if attempt >= MAX_WRITES or not await self._follow_swap():
                    raise

    async def _follow_swap(self) -> bool:
        """Take the generation that the index has now. Return whether it is another one."""
        before = self._generation
        self._app.forget(before.index)
        self._generation = self._intake.generation = await self._app.generation(before.index)
        return self._generation.token != before.token

    def _is_interactive(self) -> bool:
        """Tell whether the documents pass those of loads: the request is small, and its index is not being loaded."""
        pending = self._app.backlog.pending_of(self._generation.physical)
        return is_interactive(self._last_position, self._total_bytes, pending)

    async def _enqueue_stored(self, physical: str, ids: list[str]) -> None:
        self._app.backlog.journalled(physical, len(ids))
        await self._enqueue(physical, ids)

    async def _enqueue(self, physical: str, ids: list[str]) -> None:
        """Enqueue documents that the generation `physical` stored.

        A swap during a long stream redirects writes to another generation. While Redis is away or full, the documents
        stay pending and the sweeper enqueues them.
        """
        if not self._queued:
            return
        try:
            if physical != self._generation.physical:
                self._app.forget(self._generation.index)  # Searches then find the new generation as well.
                self._generation = await self._app.generation_of(self._generation.index, physical)
            generation = self._generation
            interactive = self._is_interactive()
            size = self._app.settings.message_documents
            for message in encode_messages(generation.index, ids, size, generation.number):
                await self._app.enqueue(generation, message, interactive=interactive)
        except (BackendUnavailable, ConfigurationError, Overloaded, NotFound) as error:
            log.warning("%s: the sweeper will enqueue the pending documents", error.code)
            FAILED_ENQUEUES.inc()
            self._queued = False


async def _ingest_stream(app: AppState, generation: Generation, receiver: BodyReceiver) -> dict[str, Any]:
    """Journal lines while they arrive. An error half-way ends the stream; the answer has it and the stored lines."""
    settings, ingestion = app.settings, Ingestion(app, generation, "lines")
    # A stream holds one bulk request and one line in memory, and the ids of its documents.
    longest = app.document_limits.longest(generation.spec)
    buffered = settings.journal_bytes + longest
    declared = receiver.declared_length()
    held = (1 + _WRITE_COPIES) * (buffered if declared is None else min(buffered, declared))
    receiver.reserve(held)
    turns, count = LoopTurns(), 0
    try:
        async for lines in request_body.stream_lines(receiver, settings.max_stream_bytes, longest):
            await turns.count(BLOCK_BYTES)
            app.limiter.charge_writes(app.principal, len(lines), sum(len(raw or b"") for _, raw in lines))
            for number, raw in lines:
                await turns.count(len(raw or b""))
                count += 1
                if count > settings.max_request_documents:
                    raise too_many_documents(settings.max_request_documents, " in one stream; send the rest in another")
                await ingestion.add(number, raw)
            receiver.reserve(held + _ID_BYTES * count)
            await app.admit_documents(generation)
    except (TooLarge, TooSlow, Overloaded) as error:
        return await ingestion.finish(error)
    except ClientDisconnect:
        # The client does not read the answer, but the job records what was stored.
        return await ingestion.finish(client_disconnected())
    return await ingestion.finish()


async def _ingest_items(
    app: AppState,
    generation: Generation,
    form: IngestForm,
    blocks: ItemBlocks,
    key: tuple[str, str] | None,
) -> IngestResponse:
    """Journal a complete body; with an idempotency key (and the digest of its request) exactly once."""
    if key is None:
        ingestion = Ingestion(app, generation, form)
        async for position, item in take_turns(blocks):
            await ingestion.add(position, item)
        return IngestResponse(await ingestion.finish())
    probe = Ingestion(app, generation, form)
    if not await _has_acceptable(probe, blocks):
        # No document is acceptable, so the key stays free for the corrected request.
        return IngestResponse(await probe.finish())
    claimed = await claim_key(app, generation, *key)
    if claimed.outcome is not None:
        add_log_context(job=claimed.record.job)  # The probe has set its own job, which was never saved.
        return IngestResponse(claimed.outcome["body"], claimed.outcome["status"], replayed=True)
    ingestion = Ingestion(app, generation, form, claimed)
    async for position, item in take_turns(blocks):
        await ingestion.add(position, item)
    await ingestion.journal()
    try:
        answer = IngestResponse(ingestion.answer())
    except (Conflict, InvalidInput) as error:  # All versions are stale. A repetition would end the same way.
        answer = IngestResponse(problem_members(error), error.status)
    outcome = {"status": answer.status, "body": answer.body}
    earlier = await store_job_outcome(app, ingestion.job, outcome if ingestion.final else None)
    return answer if earlier is None else IngestResponse(earlier["body"], earlier["status"], replayed=True)


async def _has_acceptable(probe: Ingestion, blocks: ItemBlocks) -> bool:
    async for position, item in take_turns(blocks):
        if await probe.accepts(position, item):
            return True
    return False
