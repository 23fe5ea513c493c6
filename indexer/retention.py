"""Retention: remove tombstones and job records that have expired (docs/decisions/0090).

A search finds the oldest records, and a bulk request deletes them with a compare-and-swap: a record that was written
after the search stays. The records of idempotency keys are in the index of jobs, so they are removed with the jobs.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from services.dates import days_ms, now_ms
from services.errors import NotFound
from services.index_spec import Generation, IndexNames
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import list_generations_call, read_writable_generations, refresh_call
from services.opensearch.journal import DELETED, read_counted_generations
from services.settings import Settings

# Records of one search and of one bulk request, about 100 bytes each.
EXPIRY_PAGE_RECORDS = 1000
# The time for one cleanup. The next pass removes the rest, and SIGTERM waits no longer than this.
EXPIRY_PASS_SECONDS = 5.0
# The time for one index. The next pass begins with the index after the last one, so that none waits for another.
EXPIRY_INDEX_SECONDS = 1.0
# Generations with expired tombstones that one pass sees.
MAX_EXPIRED_GENERATIONS = 10_000


@dataclass
class RetentionCleanup:
    """The removal of expired tombstones, of all writable generations, and of expired job records.

    A delete names the write that the search found, so a document that was written again is never removed.
    """

    settings: Settings
    search: SyncSearchClient
    _last: str = ""  # the generation that the last pass ended with

    def remove(self) -> Counter[str]:
        """Make one pass. Return the number of removed records by kind. Raises BackendUnavailable or Overloaded."""
        deadline = time.monotonic() + EXPIRY_PASS_SECONDS
        names = IndexNames(self.settings.index_prefix)
        counts: Counter[str] = Counter()
        before = now_ms() - days_ms(self.settings.tombstone_days)
        for generation in self._expired_in_turn(names, before):
            if time.monotonic() > deadline:
                break
            self._last = physical = generation.physical
            search_call = expired_tombstones_call(physical, before, EXPIRY_PAGE_RECORDS)
            ended = min(deadline, time.monotonic() + EXPIRY_INDEX_SECONDS)
            counts["tombstones"] += self._remove(physical, search_call, generation.write_alias, ended)
        before = now_ms() - days_ms(self.settings.job_days)
        # The job records have their own time: many tombstones must not keep them.
        ended = time.monotonic() + EXPIRY_INDEX_SECONDS
        counts["job records"] += self._remove(
            names.jobs, expired_jobs_call(names.jobs, before, EXPIRY_PAGE_RECORDS), names.jobs, ended
        )
        return +counts

    def _expired_in_turn(self, names: IndexNames, before: int) -> list[Generation]:
        """Return the writable generations with expired tombstones, beginning after the last one of the pass before.

        A generation that is kept for a rollback stays as it was at the swap.
        """
        expired = read_counted_generations(self.search.send(expired_generations_call(names, before)))
        if not expired:
            return []
        writable = read_writable_generations(self.search.send(list_generations_call(names)))
        return order_in_turn([generation for generation in writable if generation.physical in expired], self._last)

    def _remove(self, index: str, search_call: Call, write_name: str, deadline: float) -> int:
        """Remove the records that `search_call` finds in `index`. Deletes go to the alias or index `write_name`."""
        removed = 0
        # The index may be deleted meanwhile, and there may be no jobs yet.
        with suppress(NotFound):
            while time.monotonic() < deadline:
                page = read_expired(self.search.send(search_call))
                if not page:
                    break
                outcomes = read_removal_counts(self.search.send(remove_expired_call(write_name, page)))
                removed += outcomes["removed"]
                if len(page) < EXPIRY_PAGE_RECORDS or not outcomes["removed"]:
                    break
                # Without a refresh the next search finds the removed records again.
                self.search.send(refresh_call(index))
        return removed


def order_in_turn(generations: Sequence[Generation], last: str) -> list[Generation]:
    """Return the generations by name, beginning with the one after `last`."""
    ordered = sorted(generations, key=lambda generation: generation.physical)
    later = [generation for generation in ordered if generation.physical > last]
    return later + ordered[: len(ordered) - len(later)]


@dataclass(frozen=True, slots=True)
class ExpiredRecord:
    """Record as a search saw it. Each later write gives it another sequence number or primary term."""

    id: str
    seq_no: int
    primary_term: int


def expired_generations_call(names: IndexNames, before: int) -> Call:
    """Count the tombstones of deletes before `before` (milliseconds since 1970) by generation."""
    by_generation = {"terms": {"field": "_index", "size": MAX_EXPIRED_GENERATIONS}}
    body = {"size": 0, "query": _expired_tombstones(before), "aggs": {"generations": by_generation}}
    params = {
        "filter_path": "aggregations.generations.buckets",
        "allow_no_indices": "true",
        "ignore_unavailable": "true",
    }
    return Call("POST", f"/{names.every_write_alias}/_search", orjson.dumps(body), params)


def expired_tombstones_call(physical: str, before: int, limit: int) -> Call:
    """Find the tombstones of deletes before `before` (milliseconds since 1970), oldest first."""
    return _oldest_records_call(physical, _expired_tombstones(before), "deleted_at", limit)


def _expired_tombstones(before: int) -> dict[str, Any]:
    return {"bool": {"filter": [{"term": {"state": DELETED}}, {"range": {"deleted_at": {"lt": before}}}]}}


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

    The deletes name no external version: OpenSearch would create a missing index for such a delete.
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
