"""System indexes: small indexes of the service itself, created at the first write; and the index of API keys.

`make_index_calls` builds the calls that create any system index. API keys have one document each, changed by
compare-and-swap. API processes read all keys once and then the changes: the sequence numbers of the single shard order
them (docs/decisions/0200). Other system indexes: `services.opensearch.curation_records` and
`services.opensearch.suggestions`.
"""

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson

from services.access.api_keys import ApiKey
from services.errors import Conflict
from services.index_spec import IndexNames
from services.opensearch.client import AsyncSearchClient, Call, SyncSearchClient

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
CreateIndexCalls = tuple[Call, Call, Call]


def make_index_calls(
    name: str, properties: dict[str, Any], replicas: int, settings: dict[str, Any] | None = None
) -> CreateIndexCalls:
    """Return the calls that create an index, wait for it and give it its alias, in this order. All are idempotent.

    OpenSearch answers the first one with a conflict if the index exists. The alias, which searches use, comes last,
    because a new index cannot be read for a moment. With `replicas`, every node has a copy, so that a search does not
    wait for a node that hangs.
    """
    copies = {"auto_expand_replicas": "0-all"} if replicas else {"number_of_replicas": 0}
    index_settings = {"number_of_shards": 1} | copies | (settings or {})
    body = {"settings": index_settings, "mappings": {"dynamic": False, "properties": properties}}
    index = f"{name}.1"
    aliases = {"actions": [{"add": {"index": index, "alias": name}}]}
    return (
        Call("PUT", f"/{index}", orjson.dumps(body)),
        Call("GET", f"/_cluster/health/{index}", params={"wait_for_status": "yellow"}),
        Call("POST", "/_aliases", orjson.dumps(aliases)),
    )


async def create_system_index(search: AsyncSearchClient, calls: CreateIndexCalls) -> None:
    """Send the calls of `make_index_calls`."""
    create, wait, add_alias = calls
    with suppress(Conflict):
        await search.send(create)
    await search.send(wait)
    await search.send(add_alias)


def create_system_index_sync(search: SyncSearchClient, calls: CreateIndexCalls) -> None:
    """Send the calls of `make_index_calls`, for commands."""
    create, wait, add_alias = calls
    with suppress(Conflict):
        search.send(create)
    search.send(wait)
    search.send(add_alias)


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
