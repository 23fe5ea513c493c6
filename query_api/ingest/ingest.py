"""Journals documents, then enqueues them: nothing is acknowledged before OpenSearch has it on disk.

The two doors for documents, POST of many and PUT of one: what is asked of a request before anything is journalled.

In this order: the key, a place in flight, the index, the backlog, the body, and what the key stands for.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from fastapi import Request
from starlette.requests import ClientDisconnect

from query_api.app_state import AppState
from query_api.ingest import request_body
from query_api.ingest.backpressure import ParsedDocument
from query_api.ingest.idempotency import KEY_HEADER, claim_key, parse_idempotency_key, settle_job
from query_api.ingest.request_body import BodyForm, BodyReceiver, client_disconnected
from services.documents.document import Document, parse_document, parse_document_bytes
from services.documents.intake import Intake
from services.errors import (
    BackendUnavailable,
    Conflict,
    InvalidInput,
    NotFound,
    Overloaded,
    SparsewellError,
    TooLarge,
    TooSlow,
)
from services.index_spec import Generation
from services.opensearch.bulk import OVERLOADED_CODE, Verdict, Write, write_bulk_async
from services.opensearch.jobs import IdempotencyRecord, JobRecord, request_digest
from services.opensearch.journal import LostAnswerCheck
from services.queue.messages import encode_messages
from services.telemetry.logs import add_log_context
from services.telemetry.metrics import FAILED_ENQUEUES, PROBLEMS, count_ingested
from services.web.problems import problem_members

log = logging.getLogger(__name__)

# Documents that are journalled together, unless their bytes reach the limit of a bulk request before.
FLUSH_DOCUMENTS = 500


class Ingestion:
    """One execution of a request that brings documents, in the form of `bodies.Form`.

    With the record of an idempotency key it writes under that record's job and version, as every other execution of
    the same request does.
    """

    def __init__(
        self, app: AppState, generation: Generation, form: BodyForm, record: IdempotencyRecord | None = None
    ) -> None:
        self._app = app
        self._generation = generation
        self._form = form
        self.job = JobRecord(record.job if record else uuid.uuid4().hex, generation.index)
        add_log_context(job=self.job.id)
        self._intake = Intake(
            generation, self.job.id, app.clock, app.settings.lease_seconds, record.version if record else None
        )
        self._queued = True
        self._bytes = 0
        self._last = 0

    @property
    def final(self) -> bool:
        """Whether the same request would end the same way: nothing was left out for a reason that may pass."""
        return all(rejection.code != "not_stored" for rejection in self._intake.rejections)

    async def acceptable(self, position: int, item: object) -> bool:
        """Receives one item without journalling; whether there is anything to journal by now."""
        await self._received(position, item)
        return self._intake.waiting > 0

    async def take(self, position: int, item: object) -> None:
        """Receives one item: a decoded value of an array, or a line, None standing for one over the limit, or
        what was read before."""
        self._bytes += await self._received(position, item)
        if self._intake.waiting >= FLUSH_DOCUMENTS or self._bytes >= self._app.settings.journal_bytes:
            await self._flush()

    async def _received(self, position: int, item: object) -> int:
        """Bytes that the item takes in memory. A value is held against the same limit as a line of its JSON."""
        limits, spec = self._app.settings.document_limits, self._generation.spec
        size, parse = self._reading(item)
        # (what takes long, takes it because of a transcript)
        receive = partial(self._intake.receive, position, parse)
        await self._app.long_reading.run(receive, 0 if spec.talk is None else size)
        self._last = position
        return size if size <= limits.longest(spec) else 0

    def _reading(self, item: object) -> tuple[int, Callable[[], Document]]:
        """The bytes of an item's JSON, and what reads it."""
        if isinstance(item, ParsedDocument):
            return item.size, lambda: item.document
        limits, spec = self._app.settings.document_limits, self._generation.spec
        if self._form == "array":
            size = len(orjson.dumps(item))
            return size, partial(parse_document, item, spec, limits, size)
        if isinstance(item, bytes):
            return len(item), partial(parse_document_bytes, item, spec, limits)
        return limits.longest(spec) + 1, partial(parse_document, None, spec, limits, limits.longest(spec) + 1)

    async def finish(self, failure: SparsewellError | None = None) -> dict[str, Any]:
        """Journals what is left and saves the job; the answer. Raises as `answer` does."""
        await self.journal()
        answer = self.answer(failure)
        await self._app.search.send(self.job.save_call(self._app.names))
        return answer

    async def journal(self) -> None:
        """Journals what is left; the job's record is complete, and not saved."""
        await self._flush(streaming=False)
        job, intake = self.job, self._intake
        job.accepted, job.rejected = len(intake.accepted), len(intake.rejections)
        job.rejections, job.complete = intake.rejections, True
        count_ingested(job.accepted, job.rejected)

    def answer(self, failure: SparsewellError | None = None) -> dict[str, Any]:
        """The answer. Raises when no document was accepted: the failure, or InvalidInput with every reason."""
        intake = self._intake
        rejected = [rejection.as_json() for rejection in intake.rejections]
        if not intake.accepted:
            if failure is not None:
                raise failure
            if rejected and all(rejection.code == "not_stored" for rejection in intake.rejections):
                raise _nothing_stored(overloaded=intake.overloaded)
            detail = "No document was accepted; `rejected` says why." if rejected else "The body holds no document."
            raise InvalidInput("no_document_accepted", detail, rejected=rejected)
        answer: dict[str, Any] = {
            "job": {"id": self.job.id, "index": self.job.index},
            "accepted": intake.accepted,
            "rejected": rejected,
            "queued": self._queued,
        }
        if failure is not None:
            PROBLEMS.labels(failure.code).inc()
            answer["stopped"] = {"code": failure.code, "detail": failure.detail, "after": self._last}
            if "retry_after" in failure.extra:
                answer["stopped"]["retry_after"] = failure.extra["retry_after"]
        return answer

    async def _flush(self, *, streaming: bool = True) -> None:
        if not self._intake.waiting:
            return
        self._bytes = 0
        # A long stream has a job from its first batch on, even if its sender vanishes.
        if streaming and not self._intake.accepted:
            with suppress(Conflict):
                await self._app.search.send(self.job.begin_call(self._app.names))
        try:
            verdicts = await write_raw_documents(self._app, self._generation, self._intake.writes())
        except NotFound:
            self._app.forget(self._generation.index)
            raise
        for physical, ids in self._intake.settle(verdicts).items():
            self._app.backlog.journalled(len(ids))
            await self._enqueue(physical, ids)

    async def _enqueue(self, physical: str, ids: list[str]) -> None:
        """Asks for vectors of documents that the generation `physical` took.

        It may be another than the one that this ingestion began with: a stream lasts, and a write that met a swap was
        sent again. Redis may be away or full: the documents are safe, and the sweeper enqueues what stays pending.
        """
        if not self._queued:
            return
        settings, publisher = self._app.settings, self._app.publisher
        try:
            if physical != self._generation.physical:
                self._app.forget(self._generation.index)  # searches find the new one as well
                self._generation = await self._app.generation_of(self._generation.index, physical)
            one = self._generation
            for message in encode_messages(one.index, ids, settings.message_documents, one.number):
                await asyncio.to_thread(publisher.encode, one.encoder.name, message)
        except (BackendUnavailable, Overloaded, NotFound) as error:
            log.warning("%s: the sweeper will enqueue what stays pending", error.code)
            FAILED_ENQUEUES.inc()
            self._queued = False


def _nothing_stored(*, overloaded: bool) -> SparsewellError:
    if overloaded:
        return Overloaded(OVERLOADED_CODE, "OpenSearch is overloaded and stored no document; send them again.")
    return BackendUnavailable(
        "opensearch_unavailable", "OpenSearch did not store the documents in time; send them again."
    )


async def write_raw_documents(app: AppState, generation: Generation, writes: list[Write]) -> list[Verdict]:
    """Carry raw writes and tombstones. A write that was stored by a request whose answer was lost counts as stored.

    Raises NotFound (`index_not_found`).
    """
    settings = app.settings
    verdicts = await write_bulk_async(app.search, writes, settings.journal_bytes, settings.opensearch_timeout)
    check = LostAnswerCheck(generation.alias, writes, verdicts)
    call = check.call()
    return verdicts if call is None else check.settle(await app.search.send(call))


_ARRAY_ADVICE = "; send more in several requests or as application/x-ndjson"
_KEY_ADVICE = " with an Idempotency-Key, because all of it is read first; send several, each with a key of its own"

NumberedItems = Iterable[tuple[int, object]]


@dataclass(frozen=True, slots=True)
class IngestResponse:
    """What a request is answered with; `replayed`: as an earlier one with the same key was."""

    body: dict[str, Any]
    status: int = 202
    replayed: bool = False


async def ingest_documents(app: AppState, index: str, request: Request) -> IngestResponse:
    """A JSON array, or NDJSON that is journalled while it arrives."""
    form = request_body.detect_body_form(request)
    key = parse_idempotency_key(request.headers.getlist(KEY_HEADER))
    settings = app.settings
    with app.in_flight.slot() as slot:
        generation = await app.generation(index)
        await app.backlog.admit(generation.encoder.name)
        receiving = BodyReceiver(request, slot, settings.body_timeout)
        if form == "lines" and key is None:
            return IngestResponse(await _ingest_stream(app, generation, receiving))
        raw = await request_body.read_whole_body(
            receiving, settings.max_body_bytes, _ARRAY_ADVICE if key is None else _KEY_ADVICE
        )
        items: NumberedItems
        if form == "lines":
            items = request_body.split_lines(raw, settings.document_limits.longest(generation.spec))
        else:
            items = list(enumerate(request_body.decode_json_array(raw), 1))
        return await _ingest_items(app, generation, form, items, (key, request_digest(form, raw)) if key else None)


async def ingest_document(app: AppState, index: str, document_id: str, request: Request) -> IngestResponse:
    """One document. Raises the reason itself when it is refused."""
    if request_body.detect_body_form(request) != "array":
        raise InvalidInput("not_an_object", "PUT takes one document as application/json.")
    key = parse_idempotency_key(request.headers.getlist(KEY_HEADER))
    with app.in_flight.slot() as slot:
        generation = await app.generation(index)
        await app.backlog.admit(generation.encoder.name)
        receiving = BodyReceiver(request, slot, app.settings.body_timeout)
        limits = app.settings.document_limits
        raw = await request_body.read_whole_body(receiving, limits.longest(generation.spec))
        item = request_body.decode_json(raw)
        if isinstance(item, dict) and item.setdefault("id", document_id) != document_id:
            raise InvalidInput("id_mismatch", "The body's `id` is not the path's.")
        read = partial(parse_document, item, generation.spec, limits, len(raw))
        document = await app.long_reading.run(read, 0 if generation.spec.talk is None else len(raw))
        # the path says what is written, so it is part of the request
        same = request_digest("document", orjson.dumps(document_id) + raw) if key else ""
        return await _ingest_items(
            app, generation, "array", [(1, ParsedDocument(document, len(raw)))], (key, same) if key else None
        )


async def _ingest_stream(app: AppState, generation: Generation, receiving: BodyReceiver) -> dict[str, Any]:
    """Journals lines while they arrive. What ends it half-way is said in the answer: what came before is kept."""
    settings, ingestion = app.settings, Ingestion(app, generation, "lines")
    # of a stream as much is in memory as is journalled at once, and a line
    longest = settings.document_limits.longest(generation.spec)
    kept = settings.journal_bytes + longest
    receiving.reserve(min(kept, kept if receiving.declared() is None else receiving.declared() or 0))
    try:
        async for chunk in request_body.stream_lines(receiving, settings.max_stream_bytes, longest):
            for number, raw in chunk:
                await ingestion.take(number, raw)
            await app.backlog.admit(generation.encoder.name)
    except (TooLarge, TooSlow, Overloaded) as error:
        return await ingestion.finish(error)
    except ClientDisconnect:
        # Nobody reads the answer, but the job tells what was stored.
        return await ingestion.finish(client_disconnected())
    return await ingestion.finish()


async def _ingest_items(
    app: AppState,
    generation: Generation,
    form: request_body.BodyForm,
    items: NumberedItems,
    key: tuple[str, str] | None,
) -> IngestResponse:
    """Journals what is all there; with a key (and the digest of its request) once, whatever happens."""
    if key is None:
        ingestion = Ingestion(app, generation, form)
        for position, item in items:
            await ingestion.take(position, item)
        return IngestResponse(await ingestion.finish())
    probe = Ingestion(app, generation, form)
    if not await _has_acceptable(probe, items):
        # Nothing of it can be written, so the key is left for the corrected request.
        return IngestResponse(await probe.finish())
    claimed = await claim_key(app, generation, *key)
    if claimed.outcome is not None:
        add_log_context(job=claimed.record.job)  # (not that of the probe, which never was one)
        return IngestResponse(claimed.outcome["body"], claimed.outcome["status"], replayed=True)
    ingestion = Ingestion(app, generation, form, claimed.record)
    for position, item in items:
        await ingestion.take(position, item)
    await ingestion.journal()
    try:
        answer = IngestResponse(ingestion.answer())
    except InvalidInput as error:  # stale versions, all of them: final as well
        answer = IngestResponse(problem_members(error), error.status)
    outcome = {"status": answer.status, "body": answer.body}
    earlier = await settle_job(app, ingestion.job, outcome if ingestion.final else None)
    return answer if earlier is None else IngestResponse(earlier["body"], earlier["status"], replayed=True)


async def _has_acceptable(probe: Ingestion, items: NumberedItems) -> bool:
    for position, item in items:
        if await probe.acceptable(position, item):
            return True
    return False
