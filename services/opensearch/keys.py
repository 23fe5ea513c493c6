"""Idempotency keys: one record for each, beside the jobs, that says which request took the key and which job it became.

The record is made before anything is journalled, with `op_type=create`, so of any number of requests with the same key
one makes it and all others read it. It holds what a second execution needs to write the very same thing: the job and
one version for the documents that bring none. The answer is stored with the job, by a compare-and-swap, so the first
execution that ends decides it for all. See docs/decisions/0091.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from services.errors import Conflict
from services.index_spec import Generation, Names
from services.opensearch.client import Call
from services.opensearch.jobs import JobRecord

# Ids of jobs have no dot, so a record of a key is none of them.
_PREFIX = "key."
# A stored answer is read back whole. A larger one is not stored: the request is executed again, to the same end.
MAX_OUTCOME_BYTES = 8 * 1024**2


@dataclass(frozen=True, slots=True)
class KeyRecord:
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
class FoundKey:
    """A record as it is stored, with what a compare-and-swap needs."""

    record: KeyRecord
    seq_no: int
    term: int

    def expired(self, now_ms: int, hours: float) -> bool:
        return now_ms - self.record.created_at > hours * 3_600_000


def record_id(generation: Generation, caller: str, key: str) -> str:
    """The id of a key's record. Another caller has other keys, and so has another index, or one that was made again."""
    parts = (generation.index, generation.lineage, caller, key)
    return _PREFIX + hashlib.sha256("\0".join(parts).encode()).hexdigest()


def digest(form: str, body: bytes) -> str:
    """What makes two requests the same: how the body is read, and its bytes."""
    found = hashlib.sha256(form.encode() + b"\0")
    found.update(body)
    return found.hexdigest()


def create_call(names: Names, key_id: str, index: str, record: KeyRecord) -> Call:
    """Takes a key; answered with a conflict when it is taken."""
    return Call("PUT", f"/{names.jobs}/_create/{quote(key_id, safe='')}", record.source(index))


def take_over_call(names: Names, key_id: str, index: str, record: KeyRecord, expired: FoundKey) -> Call:
    """Takes a key whose time is over; answered with a conflict when somebody else has."""
    return Call(
        "PUT",
        f"/{names.jobs}/_doc/{quote(key_id, safe='')}",
        record.source(index),
        {"if_seq_no": expired.seq_no, "if_primary_term": expired.term},
    )


def load_call(names: Names, key_id: str) -> Call:
    """Reads a key's record in real time."""
    return Call("GET", f"/{names.jobs}/_doc/{quote(key_id, safe='')}")


def read_key(answer: Mapping[str, Any]) -> FoundKey:
    """The record in an answer to `load_call`."""
    source = answer["_source"]
    kept = source["key"]
    record = KeyRecord(kept["digest"], kept["job"], kept["version"], source["created_at"])
    return FoundKey(record, answer["_seq_no"], answer["_primary_term"])


def reused() -> Conflict:
    """The error for a key that stands for another request."""
    return Conflict(
        "idempotency_key_reused",
        "This Idempotency-Key came with another body before; a corrected request needs a key of its own.",
    )


def outcome_call(names: Names, job_id: str) -> Call:
    """Reads the outcome that is stored with a job, in real time."""
    return Call("GET", f"/{names.jobs}/_doc/{quote(job_id, safe='')}", params={"_source_includes": "outcome"})


def settle_call(
    names: Names, job: JobRecord, outcome: Mapping[str, Any] | None, seen: Mapping[str, Any] | None
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
