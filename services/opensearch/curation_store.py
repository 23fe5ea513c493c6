"""Where the rules of indexes are kept: one document an index, and one for each version that it had before.

They are about words and ids, so they belong to the index and not to one of its generations: a reindex, its swap and a
rollback leave them as they are. The document of an index that was deleted and made again says another lineage, and
counts for nothing. Everything is read by id, in real time. See docs/decisions/0175.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from services.errors import BackendUnavailable, Conflict
from services.index_spec import Generation, Names
from services.opensearch import own_index
from services.opensearch.client import Call

# Older ones are removed.
KEPT_VERSIONS = 100


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


def make_calls(names: Names, replicas: int) -> tuple[Call, Call, Call]:
    """Create the index that holds all of them, as `own_index.make_calls`."""
    return own_index.make_calls(names.curation, {}, replicas)


def newest_call(
    names: Names, index: str, timeout: float | None = None, *, near: bool = False, kept_in: str = ""
) -> Call:
    """Reads the rules of an index, or those in a copy of all rules that is `kept_in` another index.

    (A plain GET of what is not there is an error, and a line in the log each time.)
    """
    params = {"preference": "_local"} if near else {}
    body = orjson.dumps({"docs": [{"_index": kept_in or names.curation, "_id": index}]})
    return Call("POST", "/_mget", body, params, timeout)


def read_newest(answer: Mapping[str, Any]) -> StoredCuration | None:
    """What an answer to `newest_call` holds, None where there never were any rules.

    Raises BackendUnavailable (`curation_unavailable`) when a copy could not be read.
    """
    (found,) = answer["docs"]
    if "error" in found and found["error"].get("type") != "index_not_found_exception":
        raise BackendUnavailable("curation_unavailable", "The rules of the index cannot be read; try again.")
    if not found.get("found"):
        return None
    return StoredCuration(CurationRecord(**found["_source"]), found["_seq_no"], found["_primary_term"])


def keep_call(names: Names, record: CurationRecord) -> Call:
    """Copies a version to where older ones are; answered with a conflict when it is there already."""
    path = quote(_old_id(record.index, record.lineage, record.version), safe="")
    return Call("PUT", f"/{names.curation}/_create/{path}", record.source())


def save_call(names: Names, record: CurationRecord, seen: StoredCuration | None) -> Call:
    """Stores a version over the one that was seen, or where there was none; a conflict when that has changed.

    Answered with NotFound where the index of all rules has yet to be made.
    """
    path = f"/{names.curation}/_doc/{quote(record.index, safe='')}"
    condition = {"op_type": "create"} if seen is None else {"if_seq_no": seen.seq_no, "if_primary_term": seen.term}
    return Call("PUT", path, record.source(), {"require_alias": "true"} | condition)


def older_call(
    names: Names, index: str, lineage: str, versions: Iterable[int], *, rules: bool, kept_in: str = ""
) -> Call:
    """Reads older versions by number, without their rules unless they are asked for; `kept_in` as in `newest_call`."""
    ids = [_old_id(index, lineage, version) for version in versions]
    params = {} if rules else {"_source_excludes": "rules"}
    return Call("POST", f"/{kept_in or names.curation}/_mget", orjson.dumps({"ids": ids}), params)


def read_older(answer: Mapping[str, Any]) -> list[CurationRecord]:
    """The versions that are there, in the order in which they were asked for."""
    return [CurationRecord(**({"rules": {}} | one["_source"])) for one in answer["docs"] if one.get("found")]


def kept(newest: int) -> range:
    """The numbers of the older versions that are kept beside the newest, the latest first."""
    return range(newest - 1, max(0, newest - 1 - KEPT_VERSIONS), -1)


def remove_call(names: Names, record: CurationRecord, versions: Sequence[int], *, newest: bool) -> Call:
    """Removes older versions, and the newest with them if the index itself is gone."""
    ids = [_old_id(record.index, record.lineage, version) for version in versions]
    if newest:
        ids.append(record.index)
    lines = [orjson.dumps({"delete": {"_index": names.curation, "_id": one}}) for one in ids]
    return Call("POST", "/_bulk", b"\n".join(lines) + b"\n", {"filter_path": "errors"}, ndjson=True)


def changed_meanwhile(version: int | None) -> Conflict:
    """The error for a version that is not the newest any more."""
    newest = {} if version is None else {"version": version}
    return Conflict(
        "stale_curation",
        "The rules were changed meanwhile: read them, and send yours with the If-Match of what you read.",
        **newest,
    )


def _old_id(index: str, lineage: str, version: int) -> str:
    # a name of an index has no dot
    return f"{index}.{lineage}.{version}"
