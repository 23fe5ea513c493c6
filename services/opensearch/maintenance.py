"""Finds what has had its time, tombstones and job records, and removes each only if it is still what was found.

Counts what waits to be encoded and what is dead, of every generation at once: only those documents are visited.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from services.index_spec import IndexNames
from services.opensearch.client import Call
from services.opensearch.journal import DELETED

# Generations of one look.
MAX_GENERATIONS: Final = 1000


@dataclass(frozen=True, slots=True)
class BacklogCounts:
    """Of one generation. `oldest`: when the pending document that has waited longest came (ms since 1970)."""

    pending: int
    dead: int
    oldest: int | None


EMPTY_BACKLOG: Final = BacklogCounts(0, 0, None)


def backlog_call(names: IndexNames, seconds: float) -> Call:
    """Asks for it; answered within `seconds` or not at all."""
    pending = {"term": {"state": "pending"}}
    body = {
        "size": 0,
        "query": {"terms": {"state": ["pending", "dead"]}},
        "aggs": {
            "generations": {
                "terms": {"field": "_index", "size": MAX_GENERATIONS},
                "aggs": {"pending": {"filter": pending, "aggs": {"oldest": {"min": {"field": "ingested_at"}}}}},
            }
        },
    }
    params = {
        "filter_path": "_shards.failed,aggregations.generations.buckets",
        "allow_no_indices": "true",
        "ignore_unavailable": "true",
        "allow_partial_search_results": "false",
    }
    return Call("POST", f"/{names.every_write_alias}/_search", orjson.dumps(body), params, timeout=seconds)


def read_backlog(answer: Mapping[str, Any]) -> dict[str, BacklogCounts]:
    """By physical name; a generation of which nothing waits and nothing is dead is left out."""
    found = {}
    for bucket in answer.get("aggregations", {}).get("generations", {}).get("buckets", []):
        pending = bucket["pending"]["doc_count"]
        oldest = bucket["pending"]["oldest"]["value"]
        found[bucket["key"]] = BacklogCounts(
            pending, bucket["doc_count"] - pending, None if oldest is None else int(oldest)
        )
    return found


@dataclass(frozen=True, slots=True)
class ExpiredRecord:
    """A document as a search saw it: any later write of it has another sequence number or primary term."""

    id: str
    seq_no: int
    primary_term: int


def expired_tombstones_call(physical: str, before: int, limit: int) -> Call:
    """Tombstones of deletes before `before` (milliseconds since 1970), the oldest first."""
    query = {"bool": {"filter": [{"term": {"state": DELETED}}, {"range": {"deleted_at": {"lt": before}}}]}}
    return _oldest_records_call(physical, query, "deleted_at", limit)


def expired_jobs_call(jobs: str, before: int, limit: int) -> Call:
    """Records in the index of jobs that were made before `before` (milliseconds since 1970), the oldest first."""
    return _oldest_records_call(jobs, {"range": {"created_at": {"lt": before}}}, "created_at", limit)


def _oldest_records_call(index: str, query: dict[str, Any], moment: str, limit: int) -> Call:
    body = {
        "size": limit,
        "query": query,
        "sort": [{moment: "asc"}],
        "seq_no_primary_term": True,
        "_source": False,
        "track_total_hits": False,
    }
    return Call("POST", f"/{index}/_search", orjson.dumps(body), {"allow_partial_search_results": "false"})


def read_expired(answer: Mapping[str, Any]) -> list[ExpiredRecord]:
    """The hits of an answer to either call."""
    return [ExpiredRecord(hit["_id"], hit["_seq_no"], hit["_primary_term"]) for hit in answer["hits"]["hits"]]


def remove_expired_call(index: str, found: Sequence[ExpiredRecord]) -> Call:
    """Deletes what is still as it was found.

    Not by an external version: OpenSearch makes a missing index when a delete with one names it.
    """
    lines = [
        orjson.dumps({"delete": {"_id": one.id, "if_seq_no": one.seq_no, "if_primary_term": one.primary_term}})
        for one in found
    ]
    params = {"filter_path": "items.*.status"}
    return Call("POST", f"/{index}/_bulk", b"\n".join(lines) + b"\n", params, ndjson=True)


def read_removal_counts(answer: Mapping[str, Any]) -> Counter[str]:
    """How many were `removed`, had `changed` or gone meanwhile, or were `kept` because OpenSearch would not."""
    counts: Counter[str] = Counter()
    for item in answer["items"]:
        status = item["delete"]["status"]
        counts["removed" if status == 200 else "changed" if status in (404, 409) else "kept"] += 1
    return counts
