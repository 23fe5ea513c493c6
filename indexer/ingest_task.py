"""The task `sparsewell.ingest.v1`: journals a producer's documents, records the job, enqueues what was accepted."""

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
from celery.exceptions import Reject
from pydantic import ValidationError

from indexer.runtime import Runtime
from indexer.task_logging import describe_validation_error
from services.documents.document import Document, parse_document
from services.documents.intake import Intake
from services.errors import BackendUnavailable, InvalidInput, NotFound, Overloaded, SparsewellError
from services.index_spec import DocumentLimits, Generation, IndexSpec, validate_index_name
from services.opensearch.bulk import WriteOutcome, write_bulk
from services.opensearch.jobs import JobRecord, Rejection, add_job_counts_call
from services.opensearch.journal import LostAnswerCheck
from services.queue.messages import IngestMessage, encode_messages
from services.retry import retry
from services.telemetry.metrics import FAILED_ENQUEUES, count_ingested

log = logging.getLogger(__name__)


def run_ingest(runtime: Runtime, body: Mapping[str, Any], message_id: str, *, redelivered: bool) -> dict[str, int]:
    """Handles one message. While OpenSearch is away the message goes back to its queue: it is the only copy.

    What can never be accepted is recorded in the job and logged with its code.
    """
    try:
        message = IngestMessage.model_validate(body)
    except ValidationError as error:
        return _invalid(runtime, body, message_id, describe_validation_error(error))
    job = message.job or message_id
    refuse = partial(
        _refuse_all, runtime, job, message.index, message_id, count=len(message.documents), offset=message.offset
    )
    try:
        if redelivered and _count_lost_attempts(runtime, message_id) >= runtime.settings.max_attempts:
            return refuse(InvalidInput("attempts_exhausted", "Workers that took this message died, again and again."))
        generation = retry(lambda: runtime.generation(message.index), runtime.worker.patience)
        return _ingest(runtime, generation, message, job, message_id, redelivered=redelivered)
    except (BackendUnavailable, Overloaded) as error:
        log.warning("a message of %d documents goes back to its queue: %s", len(message.documents), error)
        raise Reject(error.code, requeue=True) from error
    except SparsewellError as error:
        return refuse(error)
    finally:
        if redelivered:
            with suppress(BackendUnavailable, Overloaded):
                runtime.publisher.clear_attempts(message_id)


def _count_lost_attempts(runtime: Runtime, message_id: str) -> int:
    """How often a worker began with this message and did not live to say how it went, as far as Redis knows."""
    try:
        return runtime.publisher.count_attempt(message_id)
    except (BackendUnavailable, Overloaded):
        return 0


def _ingest(
    runtime: Runtime, generation: Generation, message: IngestMessage, job: str, message_id: str, *, redelivered: bool
) -> dict[str, int]:
    settings = runtime.settings
    intake = Intake(generation, job, runtime.clock, settings.lease_seconds)
    version = _version(message)
    for position, item in enumerate(message.documents, message.offset + 1):
        intake.receive(
            position, partial(parse_message_document, item, generation.spec, settings.document_limits, version)
        )
    writes = intake.writes()
    verdicts = write_bulk(runtime.search, writes, settings.journal_bytes, runtime.worker.patience)
    if any(verdict.outcome is WriteOutcome.NOT_STORED for verdict in verdicts):
        raise BackendUnavailable("not_stored", "OpenSearch did not store every document in time.")
    # A message that comes again finds its own documents stored.
    check = LostAnswerCheck(generation.alias, writes, verdicts)
    if (call := check.call()) is not None:
        verdicts = check.settle(retry(partial(runtime.search.send, call), runtime.worker.patience))
    stored = intake.settle(verdicts)
    record = JobRecord(job, message.index, accepted=len(intake.accepted), rejected=len(intake.rejections))
    record.rejections = intake.rejections
    _save_job(runtime, record, message_id)
    count_ingested(record.accepted, record.rejected)
    try:
        for physical, ids in stored.items():
            # After a swap the alias leads to another generation than the one that this worker remembered.
            taker = generation if physical == generation.physical else runtime.taker(message.index, physical)
            for part in encode_messages(message.index, ids, settings.message_documents, taker.number):
                runtime.publisher.encode(taker.encoder.name, part)
    except (BackendUnavailable, Overloaded, NotFound) as error:
        log.warning("%s: the sweeper will enqueue what stays pending", error.code)
        FAILED_ENQUEUES.inc()
    return {"accepted": len(intake.accepted), "rejected": len(intake.rejections)}


def parse_message_document(
    item: dict[str, Any], spec: IndexSpec, limits: DocumentLimits, version: int | None
) -> Document:
    """One document of a message; `version` is for one that brings none. Raises InvalidInput."""
    try:
        size = len(orjson.dumps(item))
    except TypeError as error:  # half a surrogate pair, a number beyond 64 bits, nesting without end
        raise InvalidInput("invalid_json", f"The document cannot be stored as JSON: {error}.") from None
    document = parse_document(item, spec, limits, size)
    return replace(document, version=version) if document.version is None else document


def _version(message: IngestMessage) -> int | None:
    """The producer's moment, but never one to come: a clock ahead of ours would keep later documents out."""
    return None if message.sent_at is None else min(message.sent_at, time.time_ns() // 1000)


def _invalid(runtime: Runtime, body: Mapping[str, Any], message_id: str, reason: str) -> dict[str, int]:
    """A message that breaks the contract: refused whole, in its job if it names an index."""
    log.error("invalid_message: %s", reason)
    error = InvalidInput("invalid_message", f"The message breaks the contract: {reason}.")
    documents, index, job = body.get("documents"), body.get("index"), body.get("job")
    count = len(documents) if isinstance(documents, list) else 0
    try:
        validate_index_name(index if isinstance(index, str) else "")
    except InvalidInput:
        count_ingested(0, count)
        return {"rejected": count}
    named = job if isinstance(job, str) and job.replace("-", "").replace("_", "").isalnum() and len(job) <= 64 else None
    try:
        return _refuse_all(runtime, named or message_id, str(index), message_id, error, count=count, offset=0)
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
    """Raises BackendUnavailable or Overloaded; the documents are journalled by then and would be taken again."""

    def save() -> None:
        runtime.make_jobs_index()
        runtime.search.send(add_job_counts_call(runtime.names, record, message_id))

    retry(save, runtime.worker.patience)
