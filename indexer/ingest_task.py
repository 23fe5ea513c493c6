"""The task `sparsewell.ingest.v1`: journal a producer's documents, record the job, enqueue the accepted documents.

While OpenSearch is unavailable, the message returns to its queue, because it is the only copy of its documents.
Documents and messages that can never be accepted are recorded in the job.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
from celery.exceptions import Reject
from pydantic import ValidationError

from indexer.runtime import Runtime
from indexer.task_logging import describe_validation_error
from services.dates import days_ms, now_ms
from services.documents.document import Document, parse_document
from services.documents.intake import Intake, count_ingested
from services.errors import BackendUnavailable, InvalidInput, NotFound, Overloaded, SparsewellError
from services.index_spec import DocumentLimits, Generation, IndexSpec, validate_index_name
from services.opensearch.bulk import Verdict, Write, WriteOutcome, write_bulk
from services.opensearch.client import Call
from services.opensearch.jobs import JobRecord, Rejection, add_job_counts_call
from services.opensearch.journal import LostAnswerCheck, read_stored_documents
from services.opensearch.stored_document import StoredDocument, WholeDocumentPages
from services.opensearch.vector_reuse import split_by_stored_version, stored_states_call, stored_versions_call
from services.queue.messages import IngestMessage, encode_messages
from services.retry import retry
from services.telemetry.metrics import FAILED_ENQUEUES

log = logging.getLogger(__name__)


def run_ingest(runtime: Runtime, body: Mapping[str, Any], message_id: str, *, redelivered: bool) -> dict[str, int]:
    """Handle one message. Return the number of accepted and of rejected documents.

    Raises celery's Reject, which returns the message to its queue, while OpenSearch is unavailable or overloaded.
    """
    try:
        message = IngestMessage.model_validate(body)
    except ValidationError as error:
        return _refuse_invalid(runtime, body, message_id, describe_validation_error(error))
    job = message.job or message_id
    refuse = partial(
        _refuse_all, runtime, job, message.index, message_id, count=len(message.documents), offset=message.offset
    )
    try:
        if redelivered and _count_lost_attempts(runtime, message_id) >= runtime.settings.max_attempts:
            return refuse(InvalidInput("attempts_exhausted", "Every worker that took this message died."))
        generation = retry(lambda: runtime.generation(message.index), runtime.worker.retry_seconds)
        return _ingest(runtime, generation, message, job, message_id, redelivered=redelivered)
    except (BackendUnavailable, Overloaded) as error:
        log.warning("a message of %d documents returns to its queue: %s", len(message.documents), error)
        raise Reject(error.code, requeue=True) from error
    except SparsewellError as error:
        return refuse(error)
    finally:
        if redelivered:
            with suppress(BackendUnavailable, Overloaded):
                runtime.publisher.clear_attempts(message_id)


def _count_lost_attempts(runtime: Runtime, message_id: str) -> int:
    """Count the workers that began this message and died, from Redis; 0 while Redis is unavailable."""
    try:
        return runtime.publisher.count_attempt(message_id)
    except (BackendUnavailable, Overloaded):
        return 0


def _ingest(
    runtime: Runtime, generation: Generation, message: IngestMessage, job: str, message_id: str, *, redelivered: bool
) -> dict[str, int]:
    settings = runtime.settings
    _require_recent(message, settings.tombstone_days)
    intake = Intake(generation, job, runtime.clock, settings.lease_seconds)
    version, limits = _message_version(message), settings.document_limits
    for position, item in enumerate(message.documents, message.offset + 1):
        intake.receive(position, partial(parse_message_document, item, generation.spec, limits, version))
    stored = _store(runtime, intake)
    record = JobRecord(job, message.index, accepted=intake.accepted_count, rejected=intake.rejected)
    record.rejections = intake.rejections
    _save_job(runtime, record, message_id)
    count_ingested(record.accepted, record.rejected)
    try:
        for physical, ids in stored.items():
            # After a swap the alias leads to another generation than the cached one.
            generation = intake.generation
            target = (
                generation if physical == generation.physical else runtime.written_generation(message.index, physical)
            )
            for encode_message in encode_messages(message.index, ids, settings.message_documents, target.number):
                runtime.publisher.encode(target.encoder.name, encode_message)
    except (BackendUnavailable, Overloaded, NotFound) as error:
        log.warning("%s: the sweeper will enqueue the pending documents", error.code)
        FAILED_ENQUEUES.inc()
    return {"accepted": intake.accepted_count, "rejected": intake.rejected}


def _store(runtime: Runtime, intake: Intake) -> dict[str, list[str]]:
    """Write the documents. Return the ids that wait for an encoder by the generation that stored them.

    Raises BackendUnavailable (`not_stored`) and NotFound.
    """
    pending: dict[str, list[str]] = defaultdict(list)
    while intake.waiting:
        generation = intake.generation
        try:
            _store_waiting(runtime, intake, pending)
        except NotFound:
            # A swap retired the generation, so its vectors are not those of the searched one.
            runtime.forget(generation.index)
            intake.generation = retry(partial(runtime.generation, generation.index), runtime.worker.retry_seconds)
            if intake.generation.token == generation.token:
                raise
    return pending


def _store_waiting(runtime: Runtime, intake: Intake, pending: dict[str, list[str]]) -> None:
    """Write the waiting documents: first those without a stored version, then pages of the others."""
    generation, moment, pages = intake.generation, runtime.clock.next(), WholeDocumentPages()

    def read(call: Call) -> dict[str, StoredDocument]:
        answer = retry(partial(runtime.search.send, call), runtime.worker.retry_seconds)
        return {stored.id: stored for stored in read_stored_documents(answer)}

    def write(ids: Sequence[str], stored: Mapping[str, StoredDocument]) -> None:
        verdicts = _write(runtime, generation, intake.writes(ids, stored, moment))
        for physical, names in intake.apply_verdicts(verdicts).items():
            pending[physical] += names

    ids: Sequence[str] = intake.waiting_ids
    states = read(stored_states_call(generation, ids))
    without, ids = split_by_stored_version(ids, states)
    if without:
        write(without, states)
    while ids:
        page, ids = pages.take(ids)
        stored = read(stored_versions_call(generation, page))
        pages.record(stored.values())
        write(page, stored)


def _write(runtime: Runtime, generation: Generation, writes: Sequence[Write]) -> list[Verdict]:
    """Write documents. Raises BackendUnavailable (`not_stored`) and NotFound."""
    patience = runtime.worker.retry_seconds
    verdicts = write_bulk(runtime.search, writes, runtime.settings.journal_bytes, patience)
    if any(verdict.outcome is WriteOutcome.NOT_STORED for verdict in verdicts):
        raise BackendUnavailable("not_stored", "OpenSearch did not store every document in time.")
    # A redelivered message finds its own documents stored.
    check = LostAnswerCheck(generation.alias, writes, verdicts)
    if (check_call := check.call()) is not None:
        verdicts = check.resolve(retry(partial(runtime.search.send, check_call), patience))
    return verdicts


def parse_message_document(
    item: dict[str, Any], spec: IndexSpec, limits: DocumentLimits, version: int | None
) -> Document:
    """Parse a document of a message. `version` is the default version. Raises InvalidInput."""
    try:
        size = len(orjson.dumps(item))
    except TypeError as error:  # half a surrogate pair, a number beyond 64 bits, too deep nesting
        raise InvalidInput("invalid_json", f"The document cannot be stored as JSON: {error}.") from None
    document = parse_document(item, spec, limits, size)
    return replace(document, version=version) if document.version is None else document


def _require_recent(message: IngestMessage, tombstone_days: float) -> None:
    """Raise InvalidInput (`message_too_old`) for a message from before the oldest tombstones.

    A later delete of its documents may be forgotten, so they would come back.
    """
    if message.sent_at is not None and message.sent_at // 1000 < now_ms() - days_ms(tombstone_days):
        raise InvalidInput(
            "message_too_old",
            f"The message was sent more than {tombstone_days:g} days ago (SPARSEWELL_TOMBSTONE_DAYS), and deletes of "
            "its documents may be forgotten. Send the documents again.",
        )


def _message_version(message: IngestMessage) -> int | None:
    """Return the time of sending as a version (microseconds). A time in the future would keep later documents out."""
    return None if message.sent_at is None else min(message.sent_at, time.time_ns() // 1000)


def _refuse_invalid(runtime: Runtime, body: Mapping[str, Any], message_id: str, reason: str) -> dict[str, int]:
    """Refuse a whole message that breaks the contract, and record that in its job if it names an index."""
    log.error("invalid_message: %s", reason)
    error = InvalidInput("invalid_message", f"The message breaks the contract: {reason}.")
    documents, index, job = body.get("documents"), body.get("index"), body.get("job")
    count = len(documents) if isinstance(documents, list) else 0
    try:
        validate_index_name(index if isinstance(index, str) else "")
    except InvalidInput:
        count_ingested(0, count)
        return {"rejected": count}
    valid_job = isinstance(job, str) and job.replace("-", "").replace("_", "").isalnum() and len(job) <= 64
    job_id = str(job) if valid_job else message_id
    try:
        return _refuse_all(runtime, job_id, str(index), message_id, error, count=count, offset=0)
    except (BackendUnavailable, Overloaded) as failure:
        log.warning("the refusal could not be recorded: %s", failure)
        count_ingested(0, count)
        return {"rejected": count}


def _refuse_all(
    runtime: Runtime, job: str, index: str, message_id: str, error: SparsewellError, *, count: int, offset: int
) -> dict[str, int]:
    log.error("%s", error)
    record = JobRecord(job, index, rejected=count)
    record.rejections = [Rejection(offset + i, None, error.code, error.detail) for i in range(1, count + 1)]
    _save_job(runtime, record, message_id)
    count_ingested(0, count)
    return {"rejected": count}


def _save_job(runtime: Runtime, record: JobRecord, message_id: str) -> None:
    """Save the job. Raises BackendUnavailable or Overloaded; the message is then redelivered and saves it."""

    def save() -> None:
        runtime.create_jobs_index()
        runtime.search.send(add_job_counts_call(runtime.names, record, message_id))

    retry(save, runtime.worker.retry_seconds)
