"""System indexes: small indexes of the service itself, for API keys and curation rules, created at the first write.

API keys have one document each, changed by compare-and-swap. API processes read all keys once and then the changes: the
sequence numbers of the single shard order them (docs/decisions/0200). Curation rules have one document per index, and
one for each older version, read by id in real time. They refer to words and ids, so they belong to the index and not to
a generation: reindex, swap and rollback do not change them. The rules of a deleted and recreated index have another
lineage and do not apply (docs/decisions/0175).
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson

from services.access.api_keys import ApiKey
from services.errors import BackendUnavailable, Conflict
from services.index_spec import Generation, IndexNames
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
# Older versions of an index's rules are deleted.
MAX_KEPT_VERSIONS = 100
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


def make_key_calls(names: IndexNames, replicas: int) -> tuple[Call, Call, Call]:
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
    wanted = body | {"seq_no_primary_term": True}
    params = {"allow_partial_search_results": "false"}
    return Call("POST", f"/{names.keys}/_search", orjson.dumps(wanted), params, timeout)


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


def save_key_call(names: IndexNames, key: ApiKey, seen: StoredKey | None) -> Call:
    """Store a new key, or a key over the version `seen`. Searches find it after the answer.

    OpenSearch answers with NotFound if the index does not exist, and with Conflict if another process was faster.
    """
    condition = {"op_type": "create"} if seen is None else {"if_seq_no": seen.seq_no, "if_primary_term": seen.term}
    params = {"require_alias": "true", "refresh": "true"} | condition
    return Call("PUT", f"/{names.keys}/_doc/{quote(key.id, safe='')}", orjson.dumps(key.source()), params)


def latest_sequence_number(stored: Iterable[StoredKey], before: int = -1) -> int:
    """Return the highest sequence number of the keys, or `before` without keys."""
    return max((key.seq_no for key in stored), default=before)


def _parse_stored_key(hit: Mapping[str, Any]) -> StoredKey:
    return StoredKey(ApiKey.read(hit["_source"]), hit["_seq_no"], hit["_primary_term"])


@dataclass(frozen=True, slots=True)
class CurationRecord:
    """One version of the rules of an index. `rules` is the JSON of `services.curation.rules.Rules`."""

    index: str
    lineage: str
    version: int
    at: int
    note: str
    rules: Mapping[str, Any]

    def source(self) -> bytes:
        """Return the `_source` of the record."""
        members = ("index", "lineage", "version", "at", "note", "rules")
        return orjson.dumps({name: getattr(self, name) for name in members})


@dataclass(frozen=True, slots=True)
class StoredCuration:
    """Newest version as OpenSearch stores it, with the sequence number and term for a compare-and-swap."""

    record: CurationRecord
    seq_no: int
    term: int

    def of(self, generation: Generation) -> bool:
        """Tell whether the rules belong to the generation's index, and not to a deleted index with the same name."""
        return self.record.lineage == generation.lineage


def make_curation_calls(names: IndexNames, replicas: int) -> tuple[Call, Call, Call]:
    """Return the calls that create the index of rules. See `make_index_calls`."""
    return make_index_calls(names.curation, {}, replicas)


def newest_curation_call(
    names: IndexNames, index: str, timeout: float | None = None, *, near: bool = False, kept_in: str = ""
) -> Call:
    """Read the rules of an index, or of a copy of all rules in the index `kept_in`.

    A multi-get, because a GET of a missing document is an error and a log line each time.
    """
    params = {"preference": "_local"} if near else {}
    body = orjson.dumps({"docs": [{"_index": kept_in or names.curation, "_id": index}]})
    return Call("POST", "/_mget", body, params, timeout)


def read_stored_curation(answer: Mapping[str, Any]) -> StoredCuration | None:
    """Read the rules from an answer to `newest_curation_call`; None if the index never had any.

    Raises BackendUnavailable (`curation_unavailable`) if no copy could be read.
    """
    (document,) = answer["docs"]
    if "error" in document and document["error"].get("type") != "index_not_found_exception":
        raise BackendUnavailable("curation_unavailable", "The rules of the index cannot be read; try again.")
    if not document.get("found"):
        return None
    return StoredCuration(CurationRecord(**document["_source"]), document["_seq_no"], document["_primary_term"])


def save_curation_call(names: IndexNames, record: CurationRecord, seen: StoredCuration | None) -> Call:
    """Store a version over the version `seen`, or as the first one. Conflicts if the stored version has changed.

    OpenSearch answers with NotFound if the index of rules does not exist.
    """
    path = f"/{names.curation}/_doc/{quote(record.index, safe='')}"
    condition = {"op_type": "create"} if seen is None else {"if_seq_no": seen.seq_no, "if_primary_term": seen.term}
    return Call("PUT", path, record.source(), {"require_alias": "true"} | condition)


def archive_curation_call(names: IndexNames, record: CurationRecord) -> Call:
    """Copy a version to the archive. OpenSearch answers with a conflict if it is there."""
    path = quote(_archived_curation_id(record.index, record.lineage, record.version), safe="")
    return Call("PUT", f"/{names.curation}/_create/{path}", record.source())


def older_curations_call(
    names: IndexNames, index: str, lineage: str, versions: Iterable[int], *, rules: bool, kept_in: str = ""
) -> Call:
    """Read older versions by number, with their rules if `rules`. `kept_in` as in `newest_curation_call`."""
    ids = [_archived_curation_id(index, lineage, version) for version in versions]
    params = {} if rules else {"_source_excludes": "rules"}
    return Call("POST", f"/{kept_in or names.curation}/_mget", orjson.dumps({"ids": ids}), params)


def read_older_curations(answer: Mapping[str, Any]) -> list[CurationRecord]:
    """Read the existing versions in the requested order."""
    return [
        CurationRecord(**({"rules": {}} | document["_source"])) for document in answer["docs"] if document.get("found")
    ]


def kept_curation_versions(newest: int) -> range:
    """Return the numbers of the archived versions, latest first."""
    return range(newest - 1, max(0, newest - 1 - MAX_KEPT_VERSIONS), -1)


def remove_curation_call(names: IndexNames, record: CurationRecord, versions: Sequence[int], *, newest: bool) -> Call:
    """Remove older versions, and with `newest` also the newest, for a deleted index."""
    ids = [_archived_curation_id(record.index, record.lineage, version) for version in versions]
    if newest:
        ids.append(record.index)
    lines = [orjson.dumps({"delete": {"_index": names.curation, "_id": document_id}}) for document_id in ids]
    return Call("POST", "/_bulk", b"\n".join(lines) + b"\n", {"filter_path": "errors"}, ndjson=True)


def curation_conflict(version: int | None) -> Conflict:
    """Return the error for a version that is no longer the newest."""
    newest = {} if version is None else {"version": version}
    return Conflict(
        "stale_curation",
        "The rules have changed since you read them: read them again, and send If-Match with their version.",
        **newest,
    )


def _archived_curation_id(index: str, lineage: str, version: int) -> str:
    # an index name contains no dot
    return f"{index}.{lineage}.{version}"
