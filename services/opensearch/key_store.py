"""Where keys are kept: one document each in an index of their own, changed by compare-and-swap.

API processes read all of them once and then what changed: sequence numbers of the one shard order all changes.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson

from services.access.keys import Key
from services.index_spec import Names
from services.opensearch import own_index
from services.opensearch.client import Call

log = logging.getLogger(__name__)

# Keys of one installation that are not revoked; as many as one search gives.
MOST_KEYS: Final = 10_000
# Two writes may become visible in another order than that of their numbers.
_AGAIN: Final = 100
_PROPERTIES: Final[dict[str, Any]] = {
    "id": {"type": "keyword"},
    "created_at": {"type": "date"},
    "revoked_at": {"type": "date"},
}


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is stored, with what a compare-and-swap needs."""

    key: Key
    seq_no: int
    term: int


def make_calls(names: Names, replicas: int) -> tuple[Call, Call, Call]:
    """Create the index of all keys, as `own_index.make_calls`."""
    return own_index.make_calls(names.keys, _PROPERTIES, replicas)


def list_call(names: Names, *, revoked: bool, timeout: float | None = None) -> Call:
    """All keys, the latest first; those that were revoked too, if asked for."""
    query: dict[str, Any] = {"match_all": {}} if revoked else _LIVING
    body = {"size": MOST_KEYS, "query": query, "sort": [{"created_at": "desc"}, {"id": "asc"}]}
    return _search(names, body, timeout)


def changed_call(names: Names, since: int, timeout: float | None = None) -> Call:
    """The keys that changed since that sequence number, and a few before it."""
    query = {"range": {"_seq_no": {"gt": since - _AGAIN}}}
    return _search(names, {"size": MOST_KEYS, "query": query, "sort": [{"_seq_no": "asc"}]}, timeout)


def count_call(names: Names) -> Call:
    """Counts those that are not revoked."""
    return _search(names, {"size": 0, "query": _LIVING, "track_total_hits": True}, None)


def read_count(answer: Mapping[str, Any]) -> int:
    return int(answer["hits"]["total"]["value"])


def read_keys(answer: Mapping[str, Any]) -> list[StoredKey]:
    """The keys in an answer. One that cannot be read (of a later version) opens nothing, and stops no other."""
    found = []
    for hit in answer["hits"]["hits"]:
        try:
            found.append(_stored(hit))
        except (TypeError, KeyError, ValueError):
            log.warning("the key %r is of another version and opens nothing here", str(hit["_id"])[:40])
            closed = Key(hit["_id"], "unreadable", (), (), None, 0, ())
            found.append(StoredKey(closed, hit["_seq_no"], hit["_primary_term"]))
    return found


def get_call(names: Names, key_id: str) -> Call:
    """Reads one key in real time."""
    return Call("GET", f"/{names.keys}/_doc/{quote(key_id, safe='')}")


def read_key(answer: Mapping[str, Any]) -> StoredKey:
    return _stored(answer)


def save_call(names: Names, key: Key, seen: StoredKey | None) -> Call:
    """Stores a key as new, or over the one that was seen; searches find it once it is answered.

    Answered with NotFound where the index has yet to be made, with Conflict where somebody was faster.
    """
    condition = {"op_type": "create"} if seen is None else {"if_seq_no": seen.seq_no, "if_primary_term": seen.term}
    params = {"require_alias": "true", "refresh": "true"} | condition
    return Call("PUT", f"/{names.keys}/_doc/{quote(key.id, safe='')}", orjson.dumps(key.source()), params)


def latest(stored: Iterable[StoredKey], before: int = -1) -> int:
    """The highest sequence number that was seen."""
    return max((one.seq_no for one in stored), default=before)


_LIVING: Final[dict[str, Any]] = {"bool": {"must_not": [{"exists": {"field": "revoked_at"}}]}}


def _search(names: Names, body: dict[str, Any], timeout: float | None) -> Call:
    wanted = body | {"seq_no_primary_term": True}
    params = {"allow_partial_search_results": "false"}
    return Call("POST", f"/{names.keys}/_search", orjson.dumps(wanted), params, timeout)


def _stored(hit: Mapping[str, Any]) -> StoredKey:
    return StoredKey(Key.read(hit["_source"]), hit["_seq_no"], hit["_primary_term"])
