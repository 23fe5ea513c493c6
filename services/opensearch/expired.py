"""Finds what has had its time, tombstones and job records, and removes each only if it is still what was found."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from services.opensearch.client import Call
from services.opensearch.journal import DELETED


@dataclass(frozen=True, slots=True)
class Found:
    """A document as a search saw it: any later write of it has another sequence number or primary term."""

    id: str
    seq_no: int
    primary_term: int


def tombstones_call(physical: str, before: int, limit: int) -> Call:
    """Tombstones of deletes before `before` (milliseconds since 1970), the oldest first."""
    query = {"bool": {"filter": [{"term": {"state": DELETED}}, {"range": {"deleted_at": {"lt": before}}}]}}
    return _oldest(physical, query, "deleted_at", limit)


def job_records_call(jobs: str, before: int, limit: int) -> Call:
    """Records in the index of jobs that were made before `before` (milliseconds since 1970), the oldest first."""
    return _oldest(jobs, {"range": {"created_at": {"lt": before}}}, "created_at", limit)


def _oldest(index: str, query: dict[str, Any], moment: str, limit: int) -> Call:
    body = {
        "size": limit,
        "query": query,
        "sort": [{moment: "asc"}],
        "seq_no_primary_term": True,
        "_source": False,
        "track_total_hits": False,
    }
    return Call("POST", f"/{index}/_search", orjson.dumps(body), {"allow_partial_search_results": "false"})


def read_found(answer: Mapping[str, Any]) -> list[Found]:
    """The hits of an answer to either call."""
    return [Found(hit["_id"], hit["_seq_no"], hit["_primary_term"]) for hit in answer["hits"]["hits"]]


def removal_call(index: str, found: Sequence[Found]) -> Call:
    """Deletes what is still as it was found.

    Not by an external version: OpenSearch makes a missing index when a delete with one names it.
    """
    lines = [
        orjson.dumps({"delete": {"_id": one.id, "if_seq_no": one.seq_no, "if_primary_term": one.primary_term}})
        for one in found
    ]
    params = {"filter_path": "items.*.status"}
    return Call("POST", f"/{index}/_bulk", b"\n".join(lines) + b"\n", params, ndjson=True)


def read_removed(answer: Mapping[str, Any]) -> Counter[str]:
    """How many were `removed`, had `changed` or gone meanwhile, or were `kept` because OpenSearch would not."""
    counts: Counter[str] = Counter()
    for item in answer["items"]:
        status = item["delete"]["status"]
        counts["removed" if status == 200 else "changed" if status in (404, 409) else "kept"] += 1
    return counts
