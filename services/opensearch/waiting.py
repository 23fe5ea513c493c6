"""Counts what waits to be encoded and what is dead, of every generation at once: only those documents are visited."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from services.index_spec import Names
from services.opensearch.client import Call

# Generations of one look.
MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class Waiting:
    """Of one generation. `oldest`: when the pending document that has waited longest came (ms since 1970)."""

    pending: int
    dead: int
    oldest: int | None


NOTHING: Final = Waiting(0, 0, None)


def waiting_call(names: Names, seconds: float) -> Call:
    """Asks for it; answered within `seconds` or not at all."""
    pending = {"term": {"state": "pending"}}
    body = {
        "size": 0,
        "query": {"terms": {"state": ["pending", "dead"]}},
        "aggs": {
            "generations": {
                "terms": {"field": "_index", "size": MOST},
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


def read_waiting(answer: Mapping[str, Any]) -> dict[str, Waiting]:
    """By physical name; a generation of which nothing waits and nothing is dead is left out."""
    found = {}
    for bucket in answer.get("aggregations", {}).get("generations", {}).get("buckets", []):
        pending = bucket["pending"]["doc_count"]
        oldest = bucket["pending"]["oldest"]["value"]
        found[bucket["key"]] = Waiting(pending, bucket["doc_count"] - pending, None if oldest is None else int(oldest))
    return found
