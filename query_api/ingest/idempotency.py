"""Idempotency keys: one job per `Idempotency-Key`, however often and however concurrently the request arrives.

`claim_key` claims a key before anything is journalled. A key has a record beside the jobs, created with
`op_type=create`: one of several requests with the same key creates it, and the others read it. The record holds the job
and one version for documents without a version, so a second execution writes the same. `store_job_outcome` stores the
outcome that repetitions get (docs/decisions/0091). Semantics as in draft-ietf-httpapi-idempotency-key-header.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import orjson

from query_api.app_state import AppState
from services.dates import now_ms
from services.errors import Conflict, InvalidInput, NotFound, Overloaded
from services.index_spec import Generation, IndexNames
from services.opensearch.client import Call
from services.opensearch.jobs import MAX_OUTCOME_BYTES, JobRecord, load_outcome_call, save_outcome_call
from services.retry import jitter

KEY_HEADER = "idempotency-key"
REPLAYED_HEADER = "idempotency-replayed"
MAX_KEY_CHARACTERS = 200
# Job ids contain no dot, so the id of a key's record is never a job id.
_KEY_RECORD_PREFIX = "key."
# Each lost compare-and-swap reads the winner's record. More losses in a row mean that something is wrong.
_MAX_ATTEMPTS = 30
# A random pause between two attempts, so that executions of one request do not collide each time.
_CONTENTION_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """Record of a key: the `digest` of the request, the job, and the version of documents without one."""

    digest: str
    job: str
    version: int
    created_at: int

    def source(self, index: str) -> bytes:
        """Return the `_source` of the record."""
        return orjson.dumps(
            {
                "index": index,
                "created_at": self.created_at,
                "key": {"digest": self.digest, "job": self.job, "version": self.version},
            }
        )


@dataclass(frozen=True, slots=True)
class StoredIdempotencyRecord:
    """Record as OpenSearch stores it, with the sequence number and term for a compare-and-swap."""

    record: IdempotencyRecord
    seq_no: int
    term: int

    def expired(self, now_ms: int, hours: float) -> bool:
        """Tell whether the record is older than `hours`."""
        return now_ms - self.record.created_at > hours * 3_600_000


@dataclass(frozen=True, slots=True)
class IdempotencyClaim:
    """A key claimed for a request: the record to execute it with, and the outcome of an earlier execution.

    `first`: this request made the record, so none of its documents is stored yet.
    """

    record: IdempotencyRecord
    outcome: Mapping[str, Any] | None = None
    first: bool = False


def parse_idempotency_key(values: Sequence[str]) -> str:
    """Return the key from the values of the header. Raises InvalidInput (`bad_idempotency_key`)."""
    if len(values) > 1 or not 1 <= len(values[0]) <= MAX_KEY_CHARACTERS or not all("!" <= c <= "~" for c in values[0]):
        raise InvalidInput(
            "bad_idempotency_key",
            f"An Idempotency-Key is one header of 1 to {MAX_KEY_CHARACTERS} visible ASCII characters.",
        )
    return values[0]


def idempotency_record_id(generation: Generation, caller: str, key: str) -> str:
    """Return the id of a key's record. Callers, indexes and recreated indexes have separate keys."""
    parts = (generation.index, generation.lineage, caller, key)
    return _KEY_RECORD_PREFIX + hashlib.sha256("\0".join(parts).encode()).hexdigest()


def idempotency_digest(form: str, body: bytes | bytearray) -> str:
    """Return the digest that identifies equal requests, from the form of the body and its bytes."""
    digest = hashlib.sha256(form.encode() + b"\0")
    digest.update(body)
    return digest.hexdigest()


async def claim_key(app: AppState, generation: Generation, key: str, digest: str) -> IdempotencyClaim:
    """Claim the key for a request, or return the claim of an earlier execution of the same request.

    `digest` is that of the request. Raises Conflict (`idempotency_key_reused`) when another request has the key.
    """
    names, index = app.names, generation.index
    key_id = idempotency_record_id(generation, app.principal.id, key)
    record = IdempotencyRecord(digest, uuid4().hex, app.clock.next(), now_ms())
    claim_call = create_idempotency_key_call(names, key_id, index, record)
    for _ in range(_MAX_ATTEMPTS):
        try:
            await app.search.send(claim_call)
        except Conflict:
            pass
        else:
            return IdempotencyClaim(record, first=True)
        try:
            stored = read_idempotency_key(await app.search.send(load_idempotency_key_call(names, key_id)))
        except NotFound:  # The record was removed meanwhile.
            claim_call = create_idempotency_key_call(names, key_id, index, record)
            continue
        if stored.expired(now_ms(), app.settings.idempotency_hours):
            claim_call = take_over_idempotency_key_call(names, key_id, index, record, stored)
            continue
        if stored.record.digest != digest:
            raise idempotency_key_reused()
        job = await _find_job_record(app, stored.record.job)
        return IdempotencyClaim(stored.record, None if job is None else job["_source"].get("outcome"))
    raise _key_contended()


async def store_job_outcome(
    app: AppState, job: JobRecord, outcome: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """Store a finished job with its outcome. Return the outcome of another execution that was faster, else None.

    `outcome` None: a document was not stored for a temporary reason, so a repetition tries again.
    """
    if outcome is not None and len(orjson.dumps(outcome)) > MAX_OUTCOME_BYTES:
        outcome = None
    expected: Mapping[str, Any] | None = None
    for _ in range(_MAX_ATTEMPTS):
        try:
            await app.search.send(save_outcome_call(app.names, job, outcome, expected))
        except Conflict:
            pass
        else:
            return None
        expected = await _find_job_record(app, job.id)
        stored: Mapping[str, Any] | None = (expected or {}).get("_source", {}).get("outcome")
        if stored is not None:
            return stored
        await asyncio.sleep(jitter(_CONTENTION_SECONDS))
    raise _key_contended()


async def _find_job_record(app: AppState, job_id: str) -> Mapping[str, Any] | None:
    try:
        answer: Mapping[str, Any] = await app.search.send(load_outcome_call(app.names, job_id))
    except NotFound:
        return None
    return answer


def _key_contended() -> Overloaded:
    return Overloaded(
        "idempotency_key_busy", "Too many requests use this Idempotency-Key at once; send this one again."
    )


def create_idempotency_key_call(names: IndexNames, key_id: str, index: str, record: IdempotencyRecord) -> Call:
    """Claim a key. OpenSearch answers with a conflict if it is claimed."""
    return Call("PUT", f"/{names.jobs}/_create/{quote(key_id, safe='')}", record.source(index))


def take_over_idempotency_key_call(
    names: IndexNames, key_id: str, index: str, record: IdempotencyRecord, expired: StoredIdempotencyRecord
) -> Call:
    """Claim an expired key. OpenSearch answers with a conflict if another request has claimed it."""
    return Call(
        "PUT",
        f"/{names.jobs}/_doc/{quote(key_id, safe='')}",
        record.source(index),
        {"if_seq_no": expired.seq_no, "if_primary_term": expired.term},
    )


def load_idempotency_key_call(names: IndexNames, key_id: str) -> Call:
    """Read a key's record in real time."""
    return Call("GET", f"/{names.jobs}/_doc/{quote(key_id, safe='')}")


def read_idempotency_key(answer: Mapping[str, Any]) -> StoredIdempotencyRecord:
    """Read the record from an answer to `load_idempotency_key_call`."""
    source = answer["_source"]
    key = source["key"]
    record = IdempotencyRecord(key["digest"], key["job"], key["version"], source["created_at"])
    return StoredIdempotencyRecord(record, answer["_seq_no"], answer["_primary_term"])


def idempotency_key_reused() -> Conflict:
    """Return the error for a key that belongs to another request."""
    return Conflict(
        "idempotency_key_reused",
        "This Idempotency-Key was used with another body; a corrected request needs a new key.",
    )
