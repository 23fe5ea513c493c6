"""Reindexing: copied documents, changes by sequence number, and the record of progress.

A reindex copies each document to the target generation; `services.opensearch.vector_reuse` decides whether its vectors
are copied or encoded again. Changes of the source are read in the order of `_seq_no`: operations up to the
global checkpoint are on every in-sync copy, and a refresh makes them visible. A document that is written again gets a
new number, so a pass between two checkpoints sees the latest state of every changed document, and the next pass sees
later changes. The record of an index is saved by compare-and-swap: the slower of two processes stops at its next save,
and its copies are harmless, because copying is idempotent. See docs/decisions/0095.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from operator import not_
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from services.dates import now_ms
from services.documents.conversion import fit_metadata
from services.documents.document import client_version, raw_version
from services.errors import BackendUnavailable, Conflict, NotFound
from services.index_spec import Generation, IndexNames
from services.opensearch.bulk import Write
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.journal import DEAD, DELETED, ENCODED, PENDING, dead_write
from services.opensearch.stored_document import (
    PIECES_FIELD,
    RAW_TALK_MEMBERS,
    TOO_MANY_WINDOWS,
    StoredDocument,
    build_stale_fields,
    rebuild_search_fields,
    window_limit_refusal,
)
from services.opensearch.vector_reuse import has_same_chapters, has_same_vectors
from services.settings import Settings

# The client's members and the data of their ingestion; all other members belong to one generation.
_RAW_MEMBERS = ("text", "title", "metadata", "version", "job", "ingested_at", *RAW_TALK_MEMBERS)
_DENSE_MEMBERS = ("dense", "dense_encoder", "dense_error")
NO_OPERATIONS = -1  # sequence number before a shard's first operation


def copy_write(source: Generation, target: Generation, stored: StoredDocument, lease_seconds: float) -> Write:
    """Return the write that copies `stored` to `target`.

    It keeps the client's version, so a newer write in `target` wins, and copying twice changes nothing. A tombstone
    stays a tombstone. Valid vectors are copied, and `document_top_k` is applied again to the windows. Every other
    document is copied raw, to be encoded; a dead document too, because the new encoder may succeed.
    """
    due = now_ms() + int(lease_seconds * 1000)
    alias, external = target.write_alias, stored.external
    if stored.state == DELETED:
        return Write(alias, stored.id, raw_version(client_version(external)), stored.source)
    if has_same_vectors(source, target):
        stale = partial(build_stale_fields, stored.source, target.spec)
        # The strict mapping of a target that does not declare `pieces` refuses the field.
        undeclared = () if target.spec.piece_features else (PIECES_FIELD,)
        kept = {name: value for name, value in stored.source.items() if name not in undeclared}
        if stored.state == ENCODED and has_same_chapters(source, target, stored.source):
            refusal = window_limit_refusal(len(stored.source.get("windows", ())), target.spec)
            if refusal is not None:
                return _dead_on_arrival_write(target, stored, *refusal)
            dropped = () if target.dense is not None else _DENSE_MEMBERS
            members = {name: value for name, value in kept.items() if name not in dropped}
            return Write(alias, stored.id, external, members, partial(rebuild_search_fields, members, target.spec))
        if stored.state == DEAD and stored.source.get("error", {}).get("code") != TOO_MANY_WINDOWS:
            return Write(alias, stored.id, external, kept, stale)
        if stored.state == PENDING:
            # with its attempts and retries: an earlier pass may have copied an older, dead state of the document
            return Write(alias, stored.id, external, kept | {"due_at": due}, stale)
    raw = _raw_source(stored) | {"state": PENDING, "attempts": 0, "due_at": due}
    return Write(alias, stored.id, raw_version(client_version(external)), raw)


def fit_stored_document(
    source: Generation, target: Generation, stored: StoredDocument, *, convert: bool
) -> StoredDocument:
    """Return the document with metadata that fits the declaration of `target`.

    With `convert`, values of fields with another type are converted. Raises InvalidInput (`bad_metadata`, `bad_value`).
    """
    metadata = stored.source.get("metadata")
    if stored.state == DELETED or not metadata:
        return stored
    fitting = fit_metadata(metadata, source.spec.fields, target.spec.fields, convert=convert)
    return stored if fitting == metadata else replace(stored, source=stored.source | {"metadata": fitting})


def incompatible_write(source: Generation, target: Generation, stored: StoredDocument) -> Write:
    """Return the write of a dead document without metadata, for a document that the declaration of `target` rejects.

    It covers documents acknowledged after the last check before a swap. Lexical search finds their text, and the list
    of dead letters shows the reason.
    """
    reason = (
        f"The metadata does not fit the fields of generation {target.number}, because the document was written while "
        f"generation {source.number} was replaced. Send it again."
    )
    fitting = {name: value for name, value in stored.source.items() if name != "metadata"}
    return _dead_on_arrival_write(target, replace(stored, source=fitting), "misfit", reason)


def _dead_on_arrival_write(target: Generation, stored: StoredDocument, code: str, reason: str) -> Write:
    """Return the write of a raw document that is dead without an attempt in the target."""
    raw = raw_version(client_version(stored.external))
    raw_document = StoredDocument(stored.id, raw, _raw_source(stored) | {"attempts": 0})
    return replace(dead_write(target, raw_document, code, reason), version=raw)


def _raw_source(stored: StoredDocument) -> dict[str, Any]:
    return {name: stored.source[name] for name in _RAW_MEMBERS if name in stored.source}


def is_pending_write(write: Write) -> bool:
    """Tell whether the written document waits for an encoder."""
    return bool(write.source["state"] == PENDING)


@dataclass(frozen=True, slots=True)
class ShardState:
    """Sequence numbers of a shard. `safe`: the global checkpoint; `newest`: the largest number so far."""

    safe: int
    newest: int


def shard_states_call(physical: str) -> Call:
    """Ask for the sequence numbers of each shard."""
    members = ("routing.primary", "routing.state", "seq_no")
    filters = ",".join(f"indices.*.shards.*.{name}" for name in members)
    return Call("GET", f"/{physical}/_stats/docs", params={"level": "shards", "filter_path": filters})


def shard_count_call(physical: str) -> Call:
    """Ask for the number of shards of an index."""
    return Call("GET", f"/{physical}/_settings/index.number_of_shards", params={"flat_settings": "true"})


def read_shard_count(answer: Mapping[str, Any]) -> int:
    """Read the number from an answer to `shard_count_call`."""
    (index,) = answer.values()
    return int(index["settings"]["index.number_of_shards"])


def read_shard_states(answer: Mapping[str, Any], count: int) -> dict[int, ShardState]:
    """Read the state of each of `count` shards by number.

    Raises BackendUnavailable (`shard_unavailable`) for a shard without a primary: OpenSearch omits it, and its
    documents would count as copied.
    """
    states = {}
    for index in answer.get("indices", {}).values():
        for number, copies in index["shards"].items():
            primary = next((copy for copy in copies if copy["routing"]["primary"] and "seq_no" in copy), None)
            if primary is None:
                raise BackendUnavailable("shard_unavailable", f"Shard {number} has no primary copy at the moment.")
            state = primary["seq_no"]
            states[int(number)] = ShardState(state["global_checkpoint"], state["max_seq_no"])
    if set(states) != set(range(count)):
        raise BackendUnavailable("shard_unavailable", f"Only {len(states)} of {count} shards answer at the moment.")
    return states


def changes_call(physical: str, shard: int, after: int, up_to: int, limit: int) -> Call:
    """Find the documents of one shard with a last operation above `after` and at most `up_to`, in that order.

    All copies of a shard agree below the checkpoint, but only the primary was refreshed for certain.
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


def read_changes(answer: Mapping[str, Any]) -> list[tuple[int, StoredDocument]]:
    """Read the sequence number and the document of each change."""
    return [
        (int(hit["sort"][0]), StoredDocument(hit["_id"], hit["_version"], hit["_source"]))
        for hit in answer["hits"]["hits"]
    ]


# following  changes of the old generation are copied to the new one; searches use the old one
# swapping   irreversible: the sweeper or a later command finishes the swap after a crash
# swapped    done; the old generation stays, read-only, for a rollback
# dropping   the retired generation is being deleted, then the record
ReindexStep = Literal["following", "swapping", "swapped", "dropping"]


class ReindexRecord(BaseModel):
    """Record of a reindex from `source` to `target`. Checkpoints are sequence numbers by shard of the source.

    The aliases are the names of the stored record. Records of earlier versions have them too.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, serialize_by_alias=True)

    index: str
    source: Generation
    target: Generation
    step: ReindexStep = "following"
    rollback: bool = False
    checkpoints: dict[int, int] = Field(default_factory=dict)
    target_checkpoints: dict[int, int] = Field(
        default_factory=dict, description="checkpoints of the target at the swap: later operations are clients' writes"
    )
    copied: int = Field(0, alias="carried", description="documents copied so far")
    incompatible: int = Field(0, alias="misfits", description="documents that the new generation's mapping rejects")
    incompatible_ids: list[str] = Field(default_factory=list, alias="misfit_ids", description="the first ids of these")
    # The default is not stored: sweepers of earlier versions refuse a record with an unknown member.
    convert: bool = Field(False, exclude_if=not_, description="convert values of fields whose type changes")
    started_at: int = Field(default_factory=now_ms)
    updated_at: int = Field(default_factory=now_ms)
    covered_at: int = Field(default_factory=now_ms, description="when the last pass over the source began")
    swapped_at: int | None = None


class ReindexRecords:
    """Store of reindex records. `_versions` holds the sequence number and term of each record, to compare and swap."""

    def __init__(self, search: SyncSearchClient, settings: Settings) -> None:
        self._search = search
        self._settings = settings
        self._names = IndexNames(settings.index_prefix)
        self._versions: dict[str, tuple[int, int]] = {}

    def load(self, index: str) -> ReindexRecord | None:
        """Load the record of an index; None if there is none."""
        try:
            answer = self._search.send(Call("GET", self._path(index)))
        except NotFound:
            return None
        return self._read(answer)

    def unfinished(self, before: int) -> list[ReindexRecord]:
        """Load the records of begun swaps without a save since `before` (milliseconds since 1970)."""
        query = {"bool": {"filter": [{"term": {"step": "swapping"}}, {"range": {"updated_at": {"lt": before}}}]}}
        body = {"query": query, "size": 100, "seq_no_primary_term": True}
        try:
            answer = self._search.send(Call("POST", f"/{self._names.reindexes}/_search", orjson.dumps(body)))
        except NotFound:
            return []
        return [self._read(hit) for hit in answer["hits"]["hits"]]

    def every(self) -> list[ReindexRecord]:
        """Load the records of all indexes, for read-only use."""
        return read_reindex_records(self._search.send(reindex_records_call(self._names, 5.0)))

    def begin(self, record: ReindexRecord) -> None:
        """Store a new record. Raises Conflict (`reindex_exists`) if one exists."""
        self._create_index()
        self._write_record(record, {"op_type": "create"})

    def save(self, record: ReindexRecord) -> None:
        """Save a record. Raises Conflict (`reindex_taken_over`) if another process saved it since it was loaded."""
        record.updated_at = now_ms()
        seq_no, term = self._versions[record.index]
        self._write_record(record, {"if_seq_no": seq_no, "if_primary_term": term})

    def forget(self, record: ReindexRecord) -> None:
        """Delete the record. Raises Conflict as `save` does."""
        seq_no, term = self._versions.pop(record.index)
        try:
            self._search.send(
                Call("DELETE", self._path(record.index), params={"if_seq_no": seq_no, "if_primary_term": term})
            )
        except NotFound:
            return
        except Conflict:
            raise _reindex_taken_over(record.index) from None

    def _write_record(self, record: ReindexRecord, condition: dict[str, Any]) -> None:
        call = Call("PUT", self._path(record.index), orjson.dumps(record.model_dump(mode="json")), condition)
        try:
            answer = self._search.send(call)
        except Conflict:
            if "op_type" in condition:
                raise Conflict("reindex_exists", f"A reindex of {record.index!r} has already begun.") from None
            raise _reindex_taken_over(record.index) from None
        self._versions[record.index] = (answer["_seq_no"], answer["_primary_term"])

    def _read(self, hit: dict[str, Any]) -> ReindexRecord:
        record = ReindexRecord.model_validate(hit["_source"])
        self._versions[record.index] = (hit["_seq_no"], hit["_primary_term"])
        return record

    def _path(self, index: str) -> str:
        self._names.alias(index)  # raises for an invalid index name
        return f"/{self._names.reindexes}/_doc/{index}"

    def _create_index(self) -> None:
        body = {
            "settings": {"number_of_shards": 1, "number_of_replicas": self._settings.replicas},
            "mappings": {
                "dynamic": False,
                "properties": {"step": {"type": "keyword"}, "updated_at": {"type": "date", "format": "epoch_millis"}},
            },
        }
        try:
            self._search.send(Call("PUT", f"/{self._names.reindexes}", orjson.dumps(body)))
        except Conflict:
            return


def _reindex_taken_over(index: str) -> Conflict:
    return Conflict("reindex_taken_over", f"Another process continues the reindex of {index!r}; this one has stopped.")


def reindex_records_call(names: IndexNames, seconds: float) -> Call:
    """Ask for the records of all indexes. The answer has no hits before the first reindex."""
    params = {"ignore_unavailable": "true", "allow_no_indices": "true"}
    return Call("POST", f"/{names.reindexes}/_search", orjson.dumps({"size": 1000}), params, timeout=seconds)


def read_reindex_records(answer: Mapping[str, Any]) -> list[ReindexRecord]:
    """Read the records from an answer to `reindex_records_call`, for read-only use."""
    return [ReindexRecord.model_validate(hit["_source"]) for hit in answer["hits"]["hits"]]
