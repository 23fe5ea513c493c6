"""Where the rules of indexes are kept: one document an index, and one for each version that it had before.

They are about words and ids, so they belong to the index and not to one of its generations: a reindex, its swap and a
rollback leave them as they are. The document of an index that was deleted and made again says another lineage, and
counts for nothing. Everything is read by id, in real time. See docs/decisions/0175.

Small indexes of the service's own, made when they are first written to.

Where keys are kept: one document each in an index of their own, changed by compare-and-swap.

API processes read all of them once and then what changed: sequence numbers of the one shard order all changes.
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

CreateIndexCalls = tuple[Call, Call, Call]


def make_index_calls(
    name: str, properties: dict[str, Any], replicas: int, settings: dict[str, Any] | None = None
) -> CreateIndexCalls:
    """Create an index, wait for it, give it its name: in this order, each harmless twice.

    The first is answered with a conflict when it exists. It gets its name (an alias) last, because an index that has
    just been made cannot be read for a moment, and searches read it. With `replicas` it has a copy on every node, so
    that a search does not wait for a node that hangs.
    """
    copies = {"auto_expand_replicas": "0-all"} if replicas else {"number_of_replicas": 0}
    shape = {"number_of_shards": 1} | copies | (settings or {})
    body = {"settings": shape, "mappings": {"dynamic": False, "properties": properties}}
    index = f"{name}.1"
    named = {"actions": [{"add": {"index": index, "alias": name}}]}
    return (
        Call("PUT", f"/{index}", orjson.dumps(body)),
        Call("GET", f"/_cluster/health/{index}", params={"wait_for_status": "yellow"}),
        Call("POST", "/_aliases", orjson.dumps(named)),
    )


async def create_system_index(search: AsyncSearchClient, calls: CreateIndexCalls) -> None:
    """Sends what `make_calls` gave."""
    create, wait, named = calls
    with suppress(Conflict):
        await search.send(create)
    await search.send(wait)
    await search.send(named)


def create_system_index_sync(search: SyncSearchClient, calls: CreateIndexCalls) -> None:
    """The same for commands."""
    create, wait, named = calls
    with suppress(Conflict):
        search.send(create)
    search.send(wait)
    search.send(named)


log = logging.getLogger(__name__)

# Keys of one installation that are not revoked; as many as one search gives.
MAX_KEYS: Final = 10_000
# Two writes may become visible in another order than that of their numbers.
_REREAD_CHANGES: Final = 100
_PROPERTIES: Final[dict[str, Any]] = {
    "id": {"type": "keyword"},
    "created_at": {"type": "date"},
    "revoked_at": {"type": "date"},
}


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is stored, with what a compare-and-swap needs."""

    key: ApiKey
    seq_no: int
    term: int


def make_key_calls(names: IndexNames, replicas: int) -> tuple[Call, Call, Call]:
    """Create the index of all keys, as `own_index.make_calls`."""
    return make_index_calls(names.keys, _PROPERTIES, replicas)


def list_keys_call(names: IndexNames, *, revoked: bool, timeout: float | None = None) -> Call:
    """All keys, the latest first; those that were revoked too, if asked for."""
    query: dict[str, Any] = {"match_all": {}} if revoked else _NOT_REVOKED
    body = {"size": MAX_KEYS, "query": query, "sort": [{"created_at": "desc"}, {"id": "asc"}]}
    return _search_keys_call(names, body, timeout)


def changed_keys_call(names: IndexNames, since: int, timeout: float | None = None) -> Call:
    """The keys that changed since that sequence number, and a few before it."""
    query = {"range": {"_seq_no": {"gt": since - _REREAD_CHANGES}}}
    return _search_keys_call(names, {"size": MAX_KEYS, "query": query, "sort": [{"_seq_no": "asc"}]}, timeout)


def count_keys_call(names: IndexNames) -> Call:
    """Counts those that are not revoked."""
    return _search_keys_call(names, {"size": 0, "query": _NOT_REVOKED, "track_total_hits": True}, None)


def read_key_count(answer: Mapping[str, Any]) -> int:
    return int(answer["hits"]["total"]["value"])


def read_stored_keys(answer: Mapping[str, Any]) -> list[StoredKey]:
    """The keys in an answer. One that cannot be read (of a later version) opens nothing, and stops no other."""
    found = []
    for hit in answer["hits"]["hits"]:
        try:
            found.append(_parse_stored_key(hit))
        except (TypeError, KeyError, ValueError):
            log.warning("the key %r is of another version and opens nothing here", str(hit["_id"])[:40])
            closed = ApiKey(hit["_id"], "unreadable", (), (), None, 0, ())
            found.append(StoredKey(closed, hit["_seq_no"], hit["_primary_term"]))
    return found


def get_key_call(names: IndexNames, key_id: str) -> Call:
    """Reads one key in real time."""
    return Call("GET", f"/{names.keys}/_doc/{quote(key_id, safe='')}")


def read_stored_key(answer: Mapping[str, Any]) -> StoredKey:
    return _parse_stored_key(answer)


def save_key_call(names: IndexNames, key: ApiKey, seen: StoredKey | None) -> Call:
    """Stores a key as new, or over the one that was seen; searches find it once it is answered.

    Answered with NotFound where the index has yet to be made, with Conflict where somebody was faster.
    """
    condition = {"op_type": "create"} if seen is None else {"if_seq_no": seen.seq_no, "if_primary_term": seen.term}
    params = {"require_alias": "true", "refresh": "true"} | condition
    return Call("PUT", f"/{names.keys}/_doc/{quote(key.id, safe='')}", orjson.dumps(key.source()), params)


def latest_sequence_number(stored: Iterable[StoredKey], before: int = -1) -> int:
    """The highest sequence number that was seen."""
    return max((one.seq_no for one in stored), default=before)


_NOT_REVOKED: Final[dict[str, Any]] = {"bool": {"must_not": [{"exists": {"field": "revoked_at"}}]}}


def _search_keys_call(names: IndexNames, body: dict[str, Any], timeout: float | None) -> Call:
    wanted = body | {"seq_no_primary_term": True}
    params = {"allow_partial_search_results": "false"}
    return Call("POST", f"/{names.keys}/_search", orjson.dumps(wanted), params, timeout)


def _parse_stored_key(hit: Mapping[str, Any]) -> StoredKey:
    return StoredKey(ApiKey.read(hit["_source"]), hit["_seq_no"], hit["_primary_term"])


# Older ones are removed.
MAX_KEPT_VERSIONS = 100


@dataclass(frozen=True, slots=True)
class CurationRecord:
    """One version of the rules of an index; `rules` as JSON of `services.curation.rules.Rules`."""

    index: str
    lineage: str
    version: int
    at: int
    note: str
    rules: Mapping[str, Any]

    def source(self) -> bytes:
        members = ("index", "lineage", "version", "at", "note", "rules")
        return orjson.dumps({name: getattr(self, name) for name in members})


@dataclass(frozen=True, slots=True)
class StoredCuration:
    """The newest version as it is stored, with what a compare-and-swap needs."""

    record: CurationRecord
    seq_no: int
    term: int

    def of(self, generation: Generation) -> bool:
        """Whether it is of this index, or of one that had the same name before."""
        return self.record.lineage == generation.lineage


def make_curation_calls(names: IndexNames, replicas: int) -> tuple[Call, Call, Call]:
    """Create the index that holds all of them, as `own_index.make_calls`."""
    return make_index_calls(names.curation, {}, replicas)


def newest_curation_call(
    names: IndexNames, index: str, timeout: float | None = None, *, near: bool = False, kept_in: str = ""
) -> Call:
    """Reads the rules of an index, or those in a copy of all rules that is `kept_in` another index.

    (A plain GET of what is not there is an error, and a line in the log each time.)
    """
    params = {"preference": "_local"} if near else {}
    body = orjson.dumps({"docs": [{"_index": kept_in or names.curation, "_id": index}]})
    return Call("POST", "/_mget", body, params, timeout)


def read_stored_curation(answer: Mapping[str, Any]) -> StoredCuration | None:
    """What an answer to `newest_curation_call` holds, None where there never were any rules.

    Raises BackendUnavailable (`curation_unavailable`) when a copy could not be read.
    """
    (found,) = answer["docs"]
    if "error" in found and found["error"].get("type") != "index_not_found_exception":
        raise BackendUnavailable("curation_unavailable", "The rules of the index cannot be read; try again.")
    if not found.get("found"):
        return None
    return StoredCuration(CurationRecord(**found["_source"]), found["_seq_no"], found["_primary_term"])


def archive_curation_call(names: IndexNames, record: CurationRecord) -> Call:
    """Copies a version to where older ones are; answered with a conflict when it is there already."""
    path = quote(_archived_curation_id(record.index, record.lineage, record.version), safe="")
    return Call("PUT", f"/{names.curation}/_create/{path}", record.source())


def save_curation_call(names: IndexNames, record: CurationRecord, seen: StoredCuration | None) -> Call:
    """Stores a version over the one that was seen, or where there was none; a conflict when that has changed.

    Answered with NotFound where the index of all rules has yet to be made.
    """
    path = f"/{names.curation}/_doc/{quote(record.index, safe='')}"
    condition = {"op_type": "create"} if seen is None else {"if_seq_no": seen.seq_no, "if_primary_term": seen.term}
    return Call("PUT", path, record.source(), {"require_alias": "true"} | condition)


def older_curations_call(
    names: IndexNames, index: str, lineage: str, versions: Iterable[int], *, rules: bool, kept_in: str = ""
) -> Call:
    """Reads older versions by number, without their rules unless they are asked for; `kept_in` as in `newest_curation_call`."""
    ids = [_archived_curation_id(index, lineage, version) for version in versions]
    params = {} if rules else {"_source_excludes": "rules"}
    return Call("POST", f"/{kept_in or names.curation}/_mget", orjson.dumps({"ids": ids}), params)


def read_older_curations(answer: Mapping[str, Any]) -> list[CurationRecord]:
    """The versions that are there, in the order in which they were asked for."""
    return [CurationRecord(**({"rules": {}} | one["_source"])) for one in answer["docs"] if one.get("found")]


def kept_curation_versions(newest: int) -> range:
    """The numbers of the older versions that are kept beside the newest, the latest first."""
    return range(newest - 1, max(0, newest - 1 - MAX_KEPT_VERSIONS), -1)


def remove_curation_call(names: IndexNames, record: CurationRecord, versions: Sequence[int], *, newest: bool) -> Call:
    """Removes older versions, and the newest with them if the index itself is gone."""
    ids = [_archived_curation_id(record.index, record.lineage, version) for version in versions]
    if newest:
        ids.append(record.index)
    lines = [orjson.dumps({"delete": {"_index": names.curation, "_id": one}}) for one in ids]
    return Call("POST", "/_bulk", b"\n".join(lines) + b"\n", {"filter_path": "errors"}, ndjson=True)


def curation_conflict(version: int | None) -> Conflict:
    """The error for a version that is not the newest any more."""
    newest = {} if version is None else {"version": version}
    return Conflict(
        "stale_curation",
        "The rules were changed meanwhile: read them, and send yours with the If-Match of what you read.",
        **newest,
    )


def _archived_curation_id(index: str, lineage: str, version: int) -> str:
    # a name of an index has no dot
    return f"{index}.{lineage}.{version}"
