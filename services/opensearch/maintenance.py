"""Upkeep of an installation: calls that find the documents and records that need attention, across generations.

The backlog counts the pending documents and the dead letters of every generation in one search. Dead letters are listed
in pages, latest death first (docs/decisions/0090). Expired tombstones and job records are removed with a
compare-and-swap: a record that was written after the search stays.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from services.dates import format_timestamp
from services.errors import InvalidInput
from services.index_spec import IndexNames
from services.opensearch.client import Call
from services.opensearch.journal import DEAD, DELETED, PENDING, format_earlier_attempts
from services.opensearch.paging import decode_cursor, encode_cursor

# Generations in one answer of `backlog_call`.
MAX_GENERATIONS: Final = 1000
_DEAD_LETTER_FIELDS = ["title", "version", "attempts", "error", "job", "ingested_at", "dead_at", "earlier"]
# Latest death first. Many documents share a millisecond, so the id breaks ties. `_seq_no`, unique in a shard, orders
# documents that died before both fields existed.
_DEAD_LETTER_SORT = [
    {"dead_at": {"order": "desc", "missing": "_last", "unmapped_type": "date"}},
    {"dead_id": {"order": "asc", "missing": "_last", "unmapped_type": "keyword"}},
    {"_seq_no": {"order": "asc"}},
]


@dataclass(frozen=True, slots=True)
class BacklogCounts:
    """Counts of one generation. `oldest`: when the longest waiting pending document was ingested (ms since 1970)."""

    pending: int
    dead: int
    oldest: int | None


EMPTY_BACKLOG: Final = BacklogCounts(0, 0, None)


def backlog_call(names: IndexNames, seconds: float) -> Call:
    """Count pending documents and dead letters by generation. OpenSearch answers within `seconds` or not at all."""
    pending = {"term": {"state": PENDING}}
    body = {
        "size": 0,
        "query": {"terms": {"state": [PENDING, DEAD]}},
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
    """Read the counts by physical name. A generation without pending documents and dead letters is absent."""
    counts = {}
    for bucket in answer.get("aggregations", {}).get("generations", {}).get("buckets", []):
        pending = bucket["pending"]["doc_count"]
        oldest = bucket["pending"]["oldest"]["value"]
        counts[bucket["key"]] = BacklogCounts(
            pending, bucket["doc_count"] - pending, None if oldest is None else int(oldest)
        )
    return counts


@dataclass(frozen=True, slots=True)
class DeadLetterCursor:
    """Position in the list of dead letters: the sort values of the last document before it."""

    dead_at: int
    dead_id: str | None
    seq_no: int

    def __str__(self) -> str:
        return encode_cursor([self.dead_at, self.dead_id, self.seq_no])


def parse_dead_letter_cursor(text: str) -> DeadLetterCursor:
    """Parse a cursor that `str` formatted. Raises InvalidInput (`bad_cursor`)."""
    try:
        values = decode_cursor(text)
    except ValueError:
        values = None
    match values:
        case [int(dead_at), str() | None as dead_id, int(seq_no)] if not isinstance(values[0] or values[2], bool):
            if -(2**63) <= dead_at < 2**63 and 0 <= seq_no < 2**63:
                return DeadLetterCursor(dead_at, dead_id, seq_no)
    raise InvalidInput("bad_cursor", "`cursor` is not from this list; omit it for the first page.")


def list_dead_letters_call(physical: str, size: int, after: DeadLetterCursor | None, *, whole: bool = False) -> Call:
    """Read one page of dead letters. `whole` reads all stored members, for a retry."""
    body: dict[str, Any] = {
        "size": size,
        "query": {"bool": {"filter": [{"term": {"state": DEAD}}]}},
        "sort": _DEAD_LETTER_SORT,
        "version": True,
        "track_total_hits": True,
        "_source": {"excludes": ["windows"]} if whole else {"includes": _DEAD_LETTER_FIELDS},
    }
    if after is not None:
        body["search_after"] = [after.dead_at, after.dead_id, after.seq_no]
    return Call("POST", f"/{physical}/_search", orjson.dumps(body), {"allow_partial_search_results": "false"})


def read_dead_letter_count(answer: Mapping[str, Any]) -> int:
    """Read the number of all dead letters, beyond the page."""
    return int(answer["hits"]["total"]["value"])


def read_next_cursor(answer: Mapping[str, Any], size: int) -> DeadLetterCursor | None:
    """Return the cursor of the next page, or None after the last page."""
    hits = answer["hits"]["hits"]
    return DeadLetterCursor(*hits[-1]["sort"]) if len(hits) == size else None


def read_dead_letters(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Format a page of dead letters for the API."""
    return [_format_dead_letter(hit["_id"], hit["_source"]) for hit in answer["hits"]["hits"]]


def _format_dead_letter(document_id: str, source: Mapping[str, Any]) -> dict[str, Any]:
    earlier = source.get("earlier")
    return {
        "id": document_id,
        "title": source.get("title"),
        "version": source["version"],
        "attempts": source.get("attempts", 0),
        "error": source["error"],
        "job": source.get("job"),
        "ingested_at": format_timestamp(source.get("ingested_at")),
        "dead_at": format_timestamp(source.get("dead_at")),
        "earlier": format_earlier_attempts(earlier) if earlier else None,
    }


@dataclass(frozen=True, slots=True)
class ExpiredRecord:
    """Record as a search saw it. Each later write gives it another sequence number or primary term."""

    id: str
    seq_no: int
    primary_term: int


def expired_tombstones_call(physical: str, before: int, limit: int) -> Call:
    """Find the tombstones of deletes before `before` (milliseconds since 1970), oldest first."""
    query = {"bool": {"filter": [{"term": {"state": DELETED}}, {"range": {"deleted_at": {"lt": before}}}]}}
    return _oldest_records_call(physical, query, "deleted_at", limit)


def expired_jobs_call(jobs: str, before: int, limit: int) -> Call:
    """Find the job records created before `before` (milliseconds since 1970), oldest first."""
    return _oldest_records_call(jobs, {"range": {"created_at": {"lt": before}}}, "created_at", limit)


def _oldest_records_call(index: str, query: dict[str, Any], time_field: str, limit: int) -> Call:
    body = {
        "size": limit,
        "query": query,
        "sort": [{time_field: "asc"}],
        "seq_no_primary_term": True,
        "_source": False,
        "track_total_hits": False,
    }
    return Call("POST", f"/{index}/_search", orjson.dumps(body), {"allow_partial_search_results": "false"})


def read_expired(answer: Mapping[str, Any]) -> list[ExpiredRecord]:
    """Read the records from the answer to `expired_tombstones_call` or `expired_jobs_call`."""
    return [ExpiredRecord(hit["_id"], hit["_seq_no"], hit["_primary_term"]) for hit in answer["hits"]["hits"]]


def remove_expired_call(index: str, records: Sequence[ExpiredRecord]) -> Call:
    """Delete the records that have not changed.

    Not by external version: OpenSearch creates a missing index for a delete with one.
    """
    lines = [
        orjson.dumps({"delete": {"_id": record.id, "if_seq_no": record.seq_no, "if_primary_term": record.primary_term}})
        for record in records
    ]
    params = {"filter_path": "items.*.status"}
    return Call("POST", f"/{index}/_bulk", b"\n".join(lines) + b"\n", params, ndjson=True)


def read_removal_counts(answer: Mapping[str, Any]) -> Counter[str]:
    """Count the records that were `removed`, had `changed` since the search, or were `kept` after an error."""
    counts: Counter[str] = Counter()
    for item in answer["items"]:
        status = item["delete"]["status"]
        counts["removed" if status == 200 else "changed" if status in (404, 409) else "kept"] += 1
    return counts
