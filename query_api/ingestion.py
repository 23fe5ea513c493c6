"""Journals documents, then enqueues them: nothing is acknowledged before OpenSearch has it on disk."""

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Any

from fastapi import Request

from query_api import bodies
from query_api.parts import Parts
from services.contracts import EncodeMessage
from services.documents import Document, parse_document, parse_document_bytes
from services.errors import BackendUnavailable, InvalidInput, NotFound, SparsewellError, TooLarge
from services.index_spec import Generation
from services.intake import Intake
from services.opensearch.bulk import write_async
from services.opensearch.jobs import JobRecord

log = logging.getLogger(__name__)

# Documents per bulk request of the journal; bytes are limited as well, and whichever comes first decides.
FLUSH_DOCUMENTS = 500


class Ingestion:
    """One request that brings documents."""

    def __init__(self, parts: Parts, generation: Generation) -> None:
        self._parts = parts
        self._generation = generation
        self._job = JobRecord(uuid.uuid4().hex, generation.index)
        self._intake = Intake(generation, self._job.id, parts.clock, parts.settings.lease_seconds)
        self._queued = True

    async def take(self, position: int, parse: Callable[[], Document]) -> None:
        """Receives one document; journals and enqueues when enough have come together."""
        self._intake.receive(position, parse)
        if self._intake.waiting >= FLUSH_DOCUMENTS:
            await self._flush()

    def value(self, item: object) -> Callable[[], Document]:
        return lambda: parse_document(item, self._generation.spec)

    def line(self, raw: bytes | None) -> Callable[[], Document]:
        limit = self._parts.settings.max_document_bytes

        def parse() -> Document:
            if raw is None:
                raise TooLarge("document_too_large", f"A document may have {limit:,} bytes of JSON; this has more.")
            return parse_document_bytes(raw, self._generation.spec, limit)

        return parse

    async def finish(self, failure: SparsewellError | None = None) -> dict[str, Any]:
        """The answer. Raises when no document was accepted: the failure, or InvalidInput with every reason."""
        await self._flush()
        intake = self._intake
        rejected = [rejection.as_json() for rejection in intake.rejections]
        if not intake.accepted:
            if failure is not None:
                raise failure
            if rejected and all(rejection.code == "not_stored" for rejection in intake.rejections):
                raise BackendUnavailable(
                    "opensearch_unavailable", "OpenSearch did not store the documents in time; send them again."
                )
            detail = "No document was accepted; `rejected` says why." if rejected else "The body holds no document."
            raise InvalidInput("no_document_accepted", detail, rejected=rejected)
        await self._save(complete=True)
        answer: dict[str, Any] = {
            "job": {"id": self._job.id, "index": self._job.index},
            "accepted": intake.accepted,
            "rejected": rejected,
            "queued": self._queued,
        }
        if failure is not None:
            answer["stopped"] = {"code": failure.code, "detail": failure.detail}
        return answer

    async def _save(self, *, complete: bool) -> None:
        job, intake = self._job, self._intake
        job.accepted, job.rejected = len(intake.accepted), len(intake.rejections)
        job.rejections, job.complete = intake.rejections, complete
        await self._parts.search.send(job.save_call(self._parts.names))

    async def _flush(self) -> None:
        if not self._intake.waiting:
            return
        settings = self._parts.settings
        first = not self._intake.accepted and self._intake.waiting >= FLUSH_DOCUMENTS
        if first:  # a long stream has a job from its first batch on, even if its sender vanishes
            await self._save(complete=False)
        try:
            verdicts = await write_async(
                self._parts.search, self._intake.writes(), settings.journal_bytes, settings.opensearch_timeout
            )
        except NotFound:
            self._parts.forget(self._generation.index)
            raise
        await self._enqueue(self._intake.settle(verdicts))

    async def _enqueue(self, ids: list[str]) -> None:
        """Redis may be away: the documents are safe, and the sweeper enqueues what stays pending."""
        step = self._parts.settings.message_documents
        for at in range(0, len(ids), step):
            if not self._queued:
                return
            message = EncodeMessage(index=self._generation.index, ids=tuple(ids[at : at + step]))
            try:
                await asyncio.to_thread(self._parts.publisher.encode, self._generation.encoder.name, message)
            except BackendUnavailable as error:
                log.warning("%s: the sweeper will enqueue what stays pending", error.code)
                self._queued = False


async def ingest_request(parts: Parts, index: str, request: Request) -> dict[str, Any]:
    """POST documents: a JSON array, or NDJSON that is journalled while it arrives."""
    form = bodies.form(request)
    ingestion = Ingestion(parts, await parts.generation(index))
    settings = parts.settings
    if form == "array":
        for position, item in enumerate(await bodies.array(request, settings.max_body_bytes), 1):
            await ingestion.take(position, ingestion.value(item))
        return await ingestion.finish()
    try:
        async for chunk in bodies.lines(request, settings.max_stream_bytes, settings.max_document_bytes):
            for number, raw in chunk:
                await ingestion.take(number, ingestion.line(raw))
    except TooLarge as error:
        # Documents of the stream were journalled already: they are acknowledged, and the answer says where it ended.
        return await ingestion.finish(error)
    return await ingestion.finish()


async def ingest_one(parts: Parts, index: str, item: object) -> dict[str, Any]:
    """PUT of one document. Raises the reason itself when it is refused."""
    generation = await parts.generation(index)
    ingestion = Ingestion(parts, generation)
    document = parse_document(item, generation.spec)
    await ingestion.take(1, lambda: document)
    return await ingestion.finish()
