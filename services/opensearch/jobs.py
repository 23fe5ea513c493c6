"""Jobs: one record per ingestion, and counts that are taken from the documents themselves.

A document names the job that wrote it last. So the states of a job need no counters that could drift: they are
counted, and accepted documents that name another job by now were superseded.

Idempotency keys: one record for each, beside the jobs, that says which request took the key and which job it became.

The record is made before anything is journalled, with `op_type=create`, so of any number of requests with the same key
one makes it and all others read it. It holds what a second execution needs to write the very same thing: the job and
one version for the documents that bring none. The answer is stored with the job, by a compare-and-swap, so the first
execution that ends decides it for all. See docs/decisions/0091.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson

from services.errors import Conflict
from services.index_spec import Generation, IndexNames
from services.opensearch.client import Call
from services.opensearch.journal import now_ms
from services.telemetry.tracing import current_traceparent

MAX_KEPT_REJECTIONS = 1000
# Messages are delivered again soon after the first time or, after a worker's death, within hours: the job remembers
# the latest ones that it counted.
MAX_KEPT_MESSAGES = 500


@dataclass(frozen=True, slots=True)
class Rejection:
    """One document that was not accepted: its place in the request (from 1), its id if it had one, and why."""

    position: int
    id: str | None
    code: str
    reason: str

    def as_json(self) -> dict[str, Any]:
        return {"position": self.position, "id": self.id, "code": self.code, "reason": self.reason}


@dataclass
class JobRecord:
    """What is stored of a job. `rejections` keeps the first 1,000; `rejected` counts all.

    `trace`: the span in which it began, when it is traced, for whoever takes its documents up again.
    """

    id: str
    index: str
    created_at: int = field(default_factory=now_ms)
    accepted: int = 0
    rejected: int = 0
    complete: bool = False
    rejections: list[Rejection] = field(default_factory=list)
    trace: str = field(default_factory=current_traceparent)

    def source(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "created_at": self.created_at,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "complete": self.complete,
            "rejections": [rejection.as_json() for rejection in self.rejections[:MAX_KEPT_REJECTIONS]],
        } | ({"trace": self.trace} if self.trace else {})

    def begin_call(self, names: IndexNames) -> Call:
        """Makes the record; answered with a conflict when there is one, which may know more."""
        return Call("PUT", f"/{names.jobs}/_create/{quote(self.id, safe='')}", orjson.dumps(self.source()))

    def save_call(self, names: IndexNames) -> Call:
        return Call("PUT", _job_path(names, self.id), orjson.dumps(self.source()))


def add_job_counts_call(names: IndexNames, job: JobRecord, message: str) -> Call:
    """Adds this record's counts to what is stored of the job, and makes the job when it is new.

    For producers of which several messages share a job: the script adds, so that concurrent workers lose nothing, and
    counts each `message` (its id) once, however often it is delivered.
    """
    rejections = [rejection.as_json() for rejection in job.rejections]
    script = (
        "if (ctx._source.messages == null) { ctx._source.messages = [] }"
        "if (ctx._source.messages.contains(params.message)) { ctx.op = 'none' } else {"
        " ctx._source.messages.add(params.message);"
        " while (ctx._source.messages.size() > params.kept_messages) { ctx._source.messages.remove(0) }"
        " ctx._source.accepted += params.accepted; ctx._source.rejected += params.rejected;"
        " for (r in params.rejections) {"
        "  if (ctx._source.rejections.size() < params.kept) { ctx._source.rejections.add(r) } } }"
    )
    params = {
        "accepted": job.accepted, "rejected": job.rejected, "rejections": rejections, "kept": MAX_KEPT_REJECTIONS,
        "message": message, "kept_messages": MAX_KEPT_MESSAGES,
    }  # fmt: skip
    upsert = {
        "index": job.index, "created_at": job.created_at, "accepted": job.accepted, "rejected": job.rejected,
        "complete": True, "rejections": rejections[:MAX_KEPT_REJECTIONS], "messages": [message],
        **({"trace": job.trace} if job.trace else {}),
    }  # fmt: skip
    body = {"script": {"source": script, "params": params}, "upsert": upsert}
    return Call(
        "POST",
        f"/{names.jobs}/_update/{quote(job.id, safe='')}",
        orjson.dumps(body),
        {"retry_on_conflict": "20"},
    )


def load_job_call(names: IndexNames, job_id: str) -> Call:
    """Reads a job in real time, without what only a repeated request needs."""
    return Call("GET", _job_path(names, job_id), params={"_source_excludes": "outcome"})


def job_traces_call(names: IndexNames, job_ids: Sequence[str]) -> Call:
    """Reads in which traces jobs began."""
    return Call("POST", f"/{names.jobs}/_mget", orjson.dumps({"ids": list(job_ids)}), {"_source_includes": "trace"})


def read_job_traces(answer: Mapping[str, Any]) -> list[str]:
    """The traceparents in an answer to `job_traces_call`; jobs that were not traced have none."""
    return [one["_source"]["trace"] for one in answer["docs"] if one.get("found") and "trace" in one["_source"]]


def summarise_job(job_id: str, record: Mapping[str, Any], counts: Mapping[str, int] | None) -> dict[str, Any]:
    """What GET /v1/jobs/{id} answers; `counts` None means that the index is gone."""
    by_state = {state: (counts or {}).get(state, 0) for state in ("pending", "encoded", "dead")}
    by_state["superseded"] = max(0, record["accepted"] - sum(by_state.values()))
    return {
        "id": job_id,
        "index": record["index"],
        "created_at": datetime.fromtimestamp(record["created_at"] / 1000, UTC).isoformat(timespec="milliseconds"),
        "accepted": record["accepted"],
        "rejected": record["rejected"],
        "states": by_state,
        "finished": bool(record["complete"]) and by_state["pending"] == 0,
        "rejections": record["rejections"],
    }


def count_invisible_documents(record: Mapping[str, Any], counts: Mapping[str, int]) -> int:
    """Accepted documents that the counts do not show: superseded, or not visible before the next refresh."""
    return max(0, int(record["accepted"]) - sum(counts[state] for state in ("pending", "encoded", "dead")))


def _job_path(names: IndexNames, job_id: str) -> str:
    return f"/{names.jobs}/_doc/{quote(job_id, safe='')}"


# Ids of jobs have no dot, so a record of a key is none of them.
_PREFIX = "key."
# A stored answer is read back whole. A larger one is not stored: the request is executed again, to the same end.
MAX_OUTCOME_BYTES = 8 * 1024**2


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """What a key stands for: `digest` of the request, the job, the version of documents that bring none."""

    digest: str
    job: str
    version: int
    created_at: int

    def source(self, index: str) -> bytes:
        return orjson.dumps(
            {
                "index": index,
                "created_at": self.created_at,
                "key": {"digest": self.digest, "job": self.job, "version": self.version},
            }
        )


@dataclass(frozen=True, slots=True)
class StoredIdempotencyRecord:
    """A record as it is stored, with what a compare-and-swap needs."""

    record: IdempotencyRecord
    seq_no: int
    term: int

    def expired(self, now_ms: int, hours: float) -> bool:
        return now_ms - self.record.created_at > hours * 3_600_000


def idempotency_record_id(generation: Generation, caller: str, key: str) -> str:
    """The id of a key's record. Another caller has other keys, and so has another index, or one that was made again."""
    parts = (generation.index, generation.lineage, caller, key)
    return _PREFIX + hashlib.sha256("\0".join(parts).encode()).hexdigest()


def request_digest(form: str, body: bytes) -> str:
    """What makes two requests the same: how the body is read, and its bytes."""
    found = hashlib.sha256(form.encode() + b"\0")
    found.update(body)
    return found.hexdigest()


def create_idempotency_key_call(names: IndexNames, key_id: str, index: str, record: IdempotencyRecord) -> Call:
    """Takes a key; answered with a conflict when it is taken."""
    return Call("PUT", f"/{names.jobs}/_create/{quote(key_id, safe='')}", record.source(index))


def take_over_idempotency_key_call(
    names: IndexNames, key_id: str, index: str, record: IdempotencyRecord, expired: StoredIdempotencyRecord
) -> Call:
    """Takes a key whose time is over; answered with a conflict when somebody else has."""
    return Call(
        "PUT",
        f"/{names.jobs}/_doc/{quote(key_id, safe='')}",
        record.source(index),
        {"if_seq_no": expired.seq_no, "if_primary_term": expired.term},
    )


def load_idempotency_key_call(names: IndexNames, key_id: str) -> Call:
    """Reads a key's record in real time."""
    return Call("GET", f"/{names.jobs}/_doc/{quote(key_id, safe='')}")


def read_idempotency_key(answer: Mapping[str, Any]) -> StoredIdempotencyRecord:
    """The record in an answer to `load_call`."""
    source = answer["_source"]
    kept = source["key"]
    record = IdempotencyRecord(kept["digest"], kept["job"], kept["version"], source["created_at"])
    return StoredIdempotencyRecord(record, answer["_seq_no"], answer["_primary_term"])


def idempotency_key_reused() -> Conflict:
    """The error for a key that stands for another request."""
    return Conflict(
        "idempotency_key_reused",
        "This Idempotency-Key came with another body before; a corrected request needs a key of its own.",
    )


def load_outcome_call(names: IndexNames, job_id: str) -> Call:
    """Reads the outcome that is stored with a job, in real time."""
    return Call("GET", f"/{names.jobs}/_doc/{quote(job_id, safe='')}", params={"_source_includes": "outcome"})


def save_outcome_call(
    names: IndexNames, job: JobRecord, outcome: Mapping[str, Any] | None, seen: Mapping[str, Any] | None
) -> Call:
    """Stores a finished job with its outcome: as a new document, or over the one that was `seen` and nothing newer."""
    source = job.source()
    if outcome is not None:
        source["outcome"] = outcome
    path = quote(job.id, safe="")
    if seen is None:
        return Call("PUT", f"/{names.jobs}/_create/{path}", orjson.dumps(source))
    condition = {"if_seq_no": seen["_seq_no"], "if_primary_term": seen["_primary_term"]}
    return Call("PUT", f"/{names.jobs}/_doc/{path}", orjson.dumps(source), condition)
