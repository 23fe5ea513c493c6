"""Curation records: the versions of an index's curation rules in the system index of rules.

Each index has one document with its newest rules, and one for each older version, read by id in real time. Rules refer
to words and ids, so they belong to the index and not to a generation: reindex, swap and rollback do not change them.
The rules of a deleted and recreated index have another lineage and do not apply (docs/decisions/0175).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson

from services.errors import BackendUnavailable, Conflict
from services.index_spec import Generation, IndexNames
from services.opensearch.client import Call
from services.opensearch.system_indexes import CreateIndexCalls, make_index_calls

# Older versions of an index's rules are deleted.
MAX_KEPT_VERSIONS: Final = 100


@dataclass(frozen=True, slots=True)
class CurationRecord:
    """A version of the rules of an index. `rules` is the JSON of `services.curation.rules.Rules`."""

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


def make_curation_calls(names: IndexNames, replicas: int) -> CreateIndexCalls:
    """Return the calls that create the index of rules. See `make_index_calls`."""
    return make_index_calls(names.curation, {}, replicas)


def newest_curation_call(
    names: IndexNames, index: str, timeout: float | None = None, *, prefer_local: bool = False, source_index: str = ""
) -> Call:
    """Read the rules of an index, or of a copy of all rules in the index `source_index`.

    A multi-get, because a GET of a missing document is an error and a log line each time.
    """
    params = {"preference": "_local"} if prefer_local else {}
    body = orjson.dumps({"docs": [{"_index": source_index or names.curation, "_id": index}]})
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


def save_curation_call(names: IndexNames, record: CurationRecord, expected: StoredCuration | None) -> Call:
    """Store a version over the version `expected`, or as the first one. Conflicts if the stored version has changed.

    OpenSearch answers with NotFound if the index of rules does not exist.
    """
    path = f"/{names.curation}/_doc/{quote(record.index, safe='')}"
    condition = (
        {"op_type": "create"} if expected is None else {"if_seq_no": expected.seq_no, "if_primary_term": expected.term}
    )
    return Call("PUT", path, record.source(), {"require_alias": "true"} | condition)


def archive_curation_call(names: IndexNames, record: CurationRecord) -> Call:
    """Copy a version to the archive. OpenSearch answers with a conflict if it is there."""
    path = quote(_archived_curation_id(record.index, record.lineage, record.version), safe="")
    return Call("PUT", f"/{names.curation}/_create/{path}", record.source())


def older_curations_call(
    names: IndexNames, index: str, lineage: str, versions: Iterable[int], *, rules: bool, source_index: str = ""
) -> Call:
    """Read older versions by number, with their rules if `rules`. `source_index` as in `newest_curation_call`."""
    ids = [_archived_curation_id(index, lineage, version) for version in versions]
    params = {} if rules else {"_source_excludes": "rules"}
    return Call("POST", f"/{source_index or names.curation}/_mget", orjson.dumps({"ids": ids}), params)


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
