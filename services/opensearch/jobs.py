"""Jobs: one record per ingestion, and counts that are taken from the documents themselves.

A document names the job that wrote it last. So the states of a job need no counters that could drift: they are
counted, and accepted documents that name another job by now were superseded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson

from services.index_spec import Names
from services.opensearch.client import Call
from services.opensearch.journal import now_ms
from services.telemetry.tracing import traceparent

KEPT_REJECTIONS = 1000
# Messages are delivered again soon after the first time or, after a worker's death, within hours: the job remembers
# the latest ones that it counted.
KEPT_MESSAGES = 500


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
    trace: str = field(default_factory=traceparent)

    def source(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "created_at": self.created_at,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "complete": self.complete,
            "rejections": [rejection.as_json() for rejection in self.rejections[:KEPT_REJECTIONS]],
        } | ({"trace": self.trace} if self.trace else {})

    def begin_call(self, names: Names) -> Call:
        """Makes the record; answered with a conflict when there is one, which may know more."""
        return Call("PUT", f"/{names.jobs}/_create/{quote(self.id, safe='')}", orjson.dumps(self.source()))

    def save_call(self, names: Names) -> Call:
        return Call("PUT", _path(names, self.id), orjson.dumps(self.source()))


def add_call(names: Names, job: JobRecord, message: str) -> Call:
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
        "accepted": job.accepted, "rejected": job.rejected, "rejections": rejections, "kept": KEPT_REJECTIONS,
        "message": message, "kept_messages": KEPT_MESSAGES,
    }  # fmt: skip
    upsert = {
        "index": job.index, "created_at": job.created_at, "accepted": job.accepted, "rejected": job.rejected,
        "complete": True, "rejections": rejections[:KEPT_REJECTIONS], "messages": [message],
        **({"trace": job.trace} if job.trace else {}),
    }  # fmt: skip
    body = {"script": {"source": script, "params": params}, "upsert": upsert}
    return Call(
        "POST",
        f"/{names.jobs}/_update/{quote(job.id, safe='')}",
        orjson.dumps(body),
        {"retry_on_conflict": "20"},
    )


def load_call(names: Names, job_id: str) -> Call:
    """Reads a job in real time, without what only a repeated request needs."""
    return Call("GET", _path(names, job_id), params={"_source_excludes": "outcome"})


def traces_call(names: Names, job_ids: Sequence[str]) -> Call:
    """Reads in which traces jobs began."""
    return Call("POST", f"/{names.jobs}/_mget", orjson.dumps({"ids": list(job_ids)}), {"_source_includes": "trace"})


def read_traces(answer: Mapping[str, Any]) -> list[str]:
    """The traceparents in an answer to `traces_call`; jobs that were not traced have none."""
    return [one["_source"]["trace"] for one in answer["docs"] if one.get("found") and "trace" in one["_source"]]


def summary(job_id: str, record: Mapping[str, Any], counts: Mapping[str, int] | None) -> dict[str, Any]:
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


def unseen(record: Mapping[str, Any], counts: Mapping[str, int]) -> int:
    """Accepted documents that the counts do not show: superseded, or not visible before the next refresh."""
    return max(0, int(record["accepted"]) - sum(counts[state] for state in ("pending", "encoded", "dead")))


def _path(names: Names, job_id: str) -> str:
    return f"/{names.jobs}/_doc/{quote(job_id, safe='')}"
