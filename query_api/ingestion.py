"""Journals documents, then enqueues them: nothing is acknowledged before OpenSearch has it on disk."""

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Any

import orjson
from fastapi import Request
from starlette.requests import ClientDisconnect

from query_api import bodies
from query_api.parts import Parts
from services.contracts import EncodeMessage
from services.documents import Document, parse_document, parse_document_bytes
from services.errors import BackendUnavailable, InvalidInput, NotFound, SparsewellError, TooLarge
from services.index_spec import Generation
from services.intake import Intake
from services.opensearch.bulk import Verdict, Write, write_async
from services.opensearch.jobs import JobRecord
from services.opensearch.journal import read_many, read_many_call
from services.opensearch.own_writes import doubtful, forgiven

log = logging.getLogger(__name__)

# Documents that are journalled together, unless their bytes reach the limit of a bulk request before.
FLUSH_DOCUMENTS = 500


class Ingestion:
    """One request that brings documents."""

    def __init__(self, parts: Parts, generation: Generation) -> None:
        self._parts = parts
        self._generation = generation
        self._job = JobRecord(uuid.uuid4().hex, generation.index)
        self._intake = Intake(generation, self._job.id, parts.clock, parts.settings.lease_seconds)
        self._queued = True
        self._bytes = 0

    async def take_value(self, position: int, item: object) -> None:
        """Receives one decoded document, held against the same limit as a line of its JSON."""
        await self._take(position, len(orjson.dumps(item)), lambda: parse_document(item, self._generation.spec))

    async def take_line(self, position: int, raw: bytes | None) -> None:
        """Receives one line; None stands for a line over the limit."""
        limit = self._parts.settings.max_document_bytes
        size = limit + 1 if raw is None else len(raw)
        await self._take(position, size, lambda: parse_document_bytes(raw or b"", self._generation.spec, limit))

    async def _take(self, position: int, size: int, parse: Callable[[], Document]) -> None:
        limit = self._parts.settings.max_document_bytes

        def bounded() -> Document:
            if size > limit:
                raise TooLarge("document_too_large", f"A document may have {limit:,} bytes of JSON; this has more.")
            return parse()

        self._intake.receive(position, bounded)
        self._bytes += size if size <= limit else 0
        if self._intake.waiting >= FLUSH_DOCUMENTS or self._bytes >= self._parts.settings.journal_bytes:
            await self._flush()

    async def finish(self, failure: SparsewellError | None = None) -> dict[str, Any]:
        """The answer. Raises when no document was accepted: the failure, or InvalidInput with every reason."""
        await self._flush(streaming=False)
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

    async def _flush(self, *, streaming: bool = True) -> None:
        if not self._intake.waiting:
            return
        self._bytes = 0
        # A long stream has a job from its first batch on, even if its sender vanishes.
        if streaming and not self._intake.accepted:
            await self._save(complete=False)
        try:
            verdicts = await raw_writes(self._parts, self._generation, self._intake.writes())
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


async def raw_writes(parts: Parts, generation: Generation, writes: list[Write]) -> list[Verdict]:
    """Carries raw writes and tombstones. One that was stored by a request whose answer got lost counts as stored.

    Raises NotFound (`index_not_found`).
    """
    settings = parts.settings
    verdicts = await write_async(parts.search, writes, settings.journal_bytes, settings.opensearch_timeout)
    doubts = doubtful(writes, verdicts)
    if not doubts:
        return verdicts
    call = read_many_call(generation.alias, [one.id for one in doubts])
    return forgiven(writes, verdicts, read_many(await parts.search.send(call)))


async def ingest_request(parts: Parts, index: str, request: Request) -> dict[str, Any]:
    """POST documents: a JSON array, or NDJSON that is journalled while it arrives."""
    form = bodies.form(request)
    ingestion = Ingestion(parts, await parts.generation(index))
    settings = parts.settings
    if form == "array":
        for position, item in enumerate(await bodies.array(request, settings.max_body_bytes), 1):
            await ingestion.take_value(position, item)
        return await ingestion.finish()
    try:
        async for chunk in bodies.lines(request, settings.max_stream_bytes, settings.max_document_bytes):
            for number, raw in chunk:
                await ingestion.take_line(number, raw)
    except TooLarge as error:
        # Documents of the stream were journalled already: they are acknowledged, and the answer says where it ended.
        return await ingestion.finish(error)
    except ClientDisconnect:
        # Nobody reads the answer, but the job tells what was stored.
        return await ingestion.finish(InvalidInput("client_disconnected", "The sender ended the stream half-way."))
    return await ingestion.finish()


async def ingest_one(parts: Parts, index: str, item: object) -> dict[str, Any]:
    """PUT of one document. Raises the reason itself when it is refused."""
    generation = await parts.generation(index)
    ingestion = Ingestion(parts, generation)
    parse_document(item, generation.spec)
    await ingestion.take_value(1, item)
    return await ingestion.finish()
