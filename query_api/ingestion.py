"""Journals documents, then enqueues them: nothing is acknowledged before OpenSearch has it on disk."""

import asyncio
import logging
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import orjson

from query_api import bodies
from query_api.long_reading import Read
from query_api.parts import AppState
from services.contracts import encode_messages
from services.documents import Document, parse_document, parse_document_bytes
from services.errors import (
    BackendUnavailable,
    Conflict,
    InvalidInput,
    NotFound,
    Overloaded,
    SparsewellError,
)
from services.index_spec import Generation
from services.intake import Intake
from services.opensearch.bulk import OVERLOADED, Verdict, Write, write_async
from services.opensearch.jobs import JobRecord
from services.opensearch.keys import KeyRecord
from services.opensearch.own_writes import LostAnswerCheck
from services.telemetry.context import also
from services.telemetry.metrics import NOT_ENQUEUED, PROBLEMS, count_ingested

log = logging.getLogger(__name__)

# Documents that are journalled together, unless their bytes reach the limit of a bulk request before.
FLUSH_DOCUMENTS = 500


class Ingestion:
    """One execution of a request that brings documents, in the form of `bodies.Form`.

    With the record of an idempotency key it writes under that record's job and version, as every other execution of
    the same request does.
    """

    def __init__(
        self, app: AppState, generation: Generation, form: bodies.Form, record: KeyRecord | None = None
    ) -> None:
        self._app = app
        self._generation = generation
        self._form = form
        self.job = JobRecord(record.job if record else uuid.uuid4().hex, generation.index)
        also(job=self.job.id)
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
        if isinstance(item, Read):
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
            verdicts = await raw_writes(self._app, self._generation, self._intake.writes())
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
            NOT_ENQUEUED.inc()
            self._queued = False


def _nothing_stored(*, overloaded: bool) -> SparsewellError:
    if overloaded:
        return Overloaded(OVERLOADED, "OpenSearch is overloaded and stored no document; send them again.")
    return BackendUnavailable(
        "opensearch_unavailable", "OpenSearch did not store the documents in time; send them again."
    )


async def raw_writes(app: AppState, generation: Generation, writes: list[Write]) -> list[Verdict]:
    """Carry raw writes and tombstones. A write that was stored by a request whose answer was lost counts as stored.

    Raises NotFound (`index_not_found`).
    """
    settings = app.settings
    verdicts = await write_async(app.search, writes, settings.journal_bytes, settings.opensearch_timeout)
    check = LostAnswerCheck(generation.alias, writes, verdicts)
    call = check.call()
    return verdicts if call is None else check.settle(await app.search.send(call))
