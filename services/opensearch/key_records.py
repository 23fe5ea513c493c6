"""Key records: the API keys in the system index of keys.

Each key has one document, changed by compare-and-swap. API processes read all keys once and then the changes: the
sequence numbers of the single shard order them (docs/decisions/0200).
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson

from services.access.api_keys import ApiKey
from services.index_spec import IndexNames
from services.opensearch.client import Call
from services.opensearch.system_indexes import CreateIndexCalls, make_index_calls

log = logging.getLogger(__name__)
# Active keys of one installation: OpenSearch's limit of hits in one search (`index.max_result_window`).
MAX_KEYS: Final = 10_000
# Writes may become visible out of the order of their sequence numbers, so the latest ones are read again.
_REREAD_CHANGES: Final = 100
_KEY_PROPERTIES: Final[dict[str, Any]] = {
    "id": {"type": "keyword"},
    "created_at": {"type": "date"},
    "revoked_at": {"type": "date"},
}
_NOT_REVOKED: Final[dict[str, Any]] = {"bool": {"must_not": [{"exists": {"field": "revoked_at"}}]}}


@dataclass(frozen=True, slots=True)
class StoredKey:
    """Key as OpenSearch stores it, with the sequence number and term for a compare-and-swap."""

    key: ApiKey
    seq_no: int
    term: int


def make_key_calls(names: IndexNames, replicas: int) -> CreateIndexCalls:
    """Return the calls that create the index of keys. See `make_index_calls`."""
    return make_index_calls(names.keys, _KEY_PROPERTIES, replicas)


def list_keys_call(names: IndexNames, *, revoked: bool, timeout: float | None = None) -> Call:
    """List all keys, latest first; with `revoked`, revoked keys too."""
    query: dict[str, Any] = {"match_all": {}} if revoked else _NOT_REVOKED
    body = {"size": MAX_KEYS, "query": query, "sort": [{"created_at": "desc"}, {"id": "asc"}]}
    return _search_keys_call(names, body, timeout)


def changed_keys_call(names: IndexNames, since: int, timeout: float | None = None) -> Call:
    """Find the keys changed since a sequence number, and a few earlier ones."""
    query = {"range": {"_seq_no": {"gt": since - _REREAD_CHANGES}}}
    return _search_keys_call(names, {"size": MAX_KEYS, "query": query, "sort": [{"_seq_no": "asc"}]}, timeout)


def count_keys_call(names: IndexNames) -> Call:
    """Count the keys that are not revoked."""
    return _search_keys_call(names, {"size": 0, "query": _NOT_REVOKED, "track_total_hits": True}, None)


def _search_keys_call(names: IndexNames, body: dict[str, Any], timeout: float | None) -> Call:
    search = body | {"seq_no_primary_term": True}
    params = {"allow_partial_search_results": "false"}
    return Call("POST", f"/{names.keys}/_search", orjson.dumps(search), params, timeout)


def read_key_count(answer: Mapping[str, Any]) -> int:
    """Read the count from an answer to `count_keys_call`."""
    return int(answer["hits"]["total"]["value"])


def read_stored_keys(answer: Mapping[str, Any]) -> list[StoredKey]:
    """Read the keys from an answer. An unreadable key (of a later release) grants nothing; the others work."""
    keys = []
    for hit in answer["hits"]["hits"]:
        try:
            keys.append(_parse_stored_key(hit))
        except (TypeError, KeyError, ValueError):
            log.warning("cannot read the key %r of another release; it grants no access", str(hit["_id"])[:40])
            unreadable = ApiKey(hit["_id"], "unreadable", (), (), None, 0, ())
            keys.append(StoredKey(unreadable, hit["_seq_no"], hit["_primary_term"]))
    return keys


def get_key_call(names: IndexNames, key_id: str) -> Call:
    """Read one key in real time."""
    return Call("GET", f"/{names.keys}/_doc/{quote(key_id, safe='')}")


def read_stored_key(answer: Mapping[str, Any]) -> StoredKey:
    """Read the key from an answer to `get_key_call`."""
    return _parse_stored_key(answer)


def save_key_call(names: IndexNames, key: ApiKey, expected: StoredKey | None) -> Call:
    """Store a new key, or a key over the version `expected`. Searches find it after the answer.

    OpenSearch answers with NotFound if the index does not exist, and with Conflict if another process was faster.
    """
    condition = (
        {"op_type": "create"} if expected is None else {"if_seq_no": expected.seq_no, "if_primary_term": expected.term}
    )
    params = {"require_alias": "true", "refresh": "true"} | condition
    return Call("PUT", f"/{names.keys}/_doc/{quote(key.id, safe='')}", orjson.dumps(key.source()), params)


def latest_sequence_number(stored: Iterable[StoredKey], before: int = -1) -> int:
    """Return the highest sequence number of the keys, or `before` without keys."""
    return max((key.seq_no for key in stored), default=before)


def _parse_stored_key(hit: Mapping[str, Any]) -> StoredKey:
    return StoredKey(ApiKey.read(hit["_source"]), hit["_seq_no"], hit["_primary_term"])
