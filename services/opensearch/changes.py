"""What changed in a generation, in the order in which it was written: for whoever carries it to another one.

OpenSearch numbers the operations of a shard (`_seq_no`). Everything up to the global checkpoint is on every copy in
sync and never rolled back; after a refresh it is visible to searches. A document that is written again gets a new
number, so a pass over the numbers between two checkpoints sees the newest state of all that changed, and the next pass
what changed meanwhile.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from services.errors import BackendUnavailable
from services.opensearch.client import Call
from services.opensearch.journal import Stored

NOTHING_YET = -1  # the number before a shard's first operation


@dataclass(frozen=True, slots=True)
class ShardState:
    """`safe`: the number up to which operations are final; `newest`: the largest one that was given out."""

    safe: int
    newest: int


def shards_call(physical: str) -> Call:
    """Asks how far each shard is."""
    kept = ("routing.primary", "routing.state", "seq_no")
    filters = ",".join(f"indices.*.shards.*.{name}" for name in kept)
    return Call("GET", f"/{physical}/_stats/docs", params={"level": "shards", "filter_path": filters})


def shard_count_call(physical: str) -> Call:
    """Asks how many shards an index has."""
    return Call("GET", f"/{physical}/_settings/index.number_of_shards", params={"flat_settings": "true"})


def read_shard_count(answer: Mapping[str, Any]) -> int:
    """The number in an answer to `shard_count_call`."""
    (index,) = answer.values()
    return int(index["settings"]["index.number_of_shards"])


def read_shards(answer: Mapping[str, Any], count: int) -> dict[int, ShardState]:
    """The state of each of `count` shards by number.

    Raises BackendUnavailable (`shard_unavailable`) for one without a primary: OpenSearch leaves it out, and what it
    holds would be taken for carried.
    """
    found = {}
    for index in answer.get("indices", {}).values():
        for number, copies in index["shards"].items():
            primary = next((copy for copy in copies if copy["routing"]["primary"] and "seq_no" in copy), None)
            if primary is None:
                raise BackendUnavailable("shard_unavailable", f"Shard {number} has no primary copy at the moment.")
            state = primary["seq_no"]
            found[int(number)] = ShardState(state["global_checkpoint"], state["max_seq_no"])
    if set(found) != set(range(count)):
        raise BackendUnavailable("shard_unavailable", f"Only {len(found)} of {count} shards answer at the moment.")
    return found


def changes_call(physical: str, shard: int, after: int, up_to: int, limit: int) -> Call:
    """Documents of one shard whose last operation has a number above `after` and at most `up_to`, in that order.

    A shard's copies agree on what is below the checkpoint, but only the primary was surely refreshed.
    """
    body = {
        "size": limit,
        "query": {"range": {"_seq_no": {"gt": after, "lte": up_to}}},
        "sort": [{"_seq_no": "asc"}],
        "version": True,
        "track_total_hits": False,
    }
    return Call(
        "POST",
        f"/{physical}/_search",
        orjson.dumps(body),
        {"preference": f"_shards:{shard}|_primary", "allow_partial_search_results": "false"},
    )


def read_changes(answer: Mapping[str, Any]) -> list[tuple[int, Stored]]:
    """Number and document of each change."""
    return [
        (int(hit["sort"][0]), Stored(hit["_id"], hit["_version"], hit["_source"])) for hit in answer["hits"]["hits"]
    ]
