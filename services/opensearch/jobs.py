"""Records of ingestions in the index of jobs.

A job has no counters of states that could drift. Each document names the job that wrote it last, so the states of a
job are counted from the documents, and accepted documents that name another job are superseded (docs/decisions/0006).
The outcome of a request with an idempotency key is stored with its job by a compare-and-swap, so the first finished
execution decides it (docs/decisions/0091). The keys have records in the same index: `query_api.ingest.idempotency`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson

from services.dates import format_timestamp, now_ms
from services.index_spec import IndexNames
from services.opensearch.client import Call
from services.telemetry.tracing import current_traceparent

MAX_KEPT_REJECTIONS = 1000
# The queue delivers a message again soon, or within hours after a worker's death. So a job remembers the ids of the
# last messages that it counted.
MAX_KEPT_MESSAGES = 500
# A stored answer is read back whole. A larger answer is not stored, and a repeated request is executed again with the
# same result.
MAX_OUTCOME_BYTES = 8 * 1024**2


@dataclass(frozen=True, slots=True)
class Rejection:
    """Rejected document: its position in the request (from 1), its id if it had one, and the reason."""

    position: int
    id: str | None
    code: str
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return the rejection as the API shows it."""
        return {"position": self.position, "id": self.id, "code": self.code, "reason": self.reason}


@dataclass
class JobRecord:
    """Stored record of a job. `rejections` stores the first 1,000; `rejected` counts all.

    `trace`: traceparent of the span that began the job, if it is traced; later work on its documents links to it.
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
        """Return the `_source` of the record."""
        return {
            "index": self.index,
            "created_at": self.created_at,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "complete": self.complete,
            "rejections": [rejection.as_json() for rejection in self.rejections[:MAX_KEPT_REJECTIONS]],
        } | ({"trace": self.trace} if self.trace else {})

    def begin_call(self, names: IndexNames) -> Call:
        """Create the record. OpenSearch answers with a conflict if one exists, which may hold more."""
        return Call("PUT", f"/{names.jobs}/_create/{quote(self.id, safe='')}", orjson.dumps(self.source()))

    def save_call(self, names: IndexNames) -> Call:
        """Store the record over any other."""
        return Call("PUT", _job_path(names, self.id), orjson.dumps(self.source()))


def add_job_counts_call(names: IndexNames, job: JobRecord, message: str) -> Call:
    """Add this record's counts to the stored job, or create the job.

    For producers whose messages share a job: the script adds, so concurrent workers lose no counts, and it counts each
    `message` (an id) once.
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
    """Read a job in real time, without the outcome, which only a repeated request needs."""
    return Call("GET", _job_path(names, job_id), params={"_source_excludes": "outcome"})


def _job_path(names: IndexNames, job_id: str) -> str:
    return f"/{names.jobs}/_doc/{quote(job_id, safe='')}"


def job_traces_call(names: IndexNames, job_ids: Sequence[str]) -> Call:
    """Read the traceparents of jobs."""
    return Call("POST", f"/{names.jobs}/_mget", orjson.dumps({"ids": list(job_ids)}), {"_source_includes": "trace"})


def read_job_traces(answer: Mapping[str, Any]) -> list[str]:
    """Read the traceparents from an answer to `job_traces_call`. Untraced jobs have none."""
    return [job["_source"]["trace"] for job in answer["docs"] if job.get("found") and "trace" in job["_source"]]


def summarise_job(job_id: str, record: Mapping[str, Any], counts: Mapping[str, int] | None) -> dict[str, Any]:
    """Return the answer of GET /v1/jobs/{id}. `counts` is None if the index was deleted."""
    by_state = {state: (counts or {}).get(state, 0) for state in ("pending", "encoded", "dead")}
    by_state["superseded"] = max(0, record["accepted"] - sum(by_state.values()))
    return {
        "id": job_id,
        "index": record["index"],
        "created_at": format_timestamp(record["created_at"]),
        "accepted": record["accepted"],
        "rejected": record["rejected"],
        "states": by_state,
        "finished": bool(record["complete"]) and by_state["pending"] == 0,
        "rejections": record["rejections"],
    }


def count_invisible_documents(record: Mapping[str, Any], counts: Mapping[str, int]) -> int:
    """Return the number of accepted documents that `counts` lacks: superseded, or invisible until the next refresh."""
    return max(0, int(record["accepted"]) - sum(counts[state] for state in ("pending", "encoded", "dead")))


def load_outcome_call(names: IndexNames, job_id: str) -> Call:
    """Read the outcome of a job in real time."""
    return Call("GET", f"/{names.jobs}/_doc/{quote(job_id, safe='')}", params={"_source_includes": "outcome"})


def save_outcome_call(
    names: IndexNames, job: JobRecord, outcome: Mapping[str, Any] | None, expected: Mapping[str, Any] | None
) -> Call:
    """Store a finished job with its outcome: as a new document, or over the version `expected`."""
    source = job.source()
    if outcome is not None:
        source["outcome"] = outcome
    path = quote(job.id, safe="")
    if expected is None:
        return Call("PUT", f"/{names.jobs}/_create/{path}", orjson.dumps(source))
    condition = {"if_seq_no": expected["_seq_no"], "if_primary_term": expected["_primary_term"]}
    return Call("PUT", f"/{names.jobs}/_doc/{path}", orjson.dumps(source), condition)
