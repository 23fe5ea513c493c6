"""The record of a reindexing, one an index: what it is about and how far it is, so that a killed one goes on.

Every save is a compare-and-swap. Of two processes that work on the same index the slower one finds out with its next
save and stops; what it did until then is harmless, because carrying is idempotent.

What becomes of a stored document in another generation: its vectors are copied where they stay valid. Pure.

What changed in a generation, in the order in which it was written: for whoever carries it to another one.

OpenSearch numbers the operations of a shard (`_seq_no`). Everything up to the global checkpoint is on every copy in
sync and never rolled back; after a refresh it is visible to searches. A document that is written again gets a new
number, so a pass over the numbers between two checkpoints sees the newest state of all that changed, and the next pass
what changed meanwhile.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from services.documents.document import client_version, raw_version
from services.errors import BackendUnavailable, Conflict, NotFound
from services.index_spec import Generation, IndexNames
from services.opensearch.bulk import Write
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.journal import DEAD, DELETED, ENCODED, PENDING, StoredDocument, dead_write, now_ms
from services.opensearch.stored_document import (
    RAW_TALK_MEMBERS,
    TOO_MANY_WINDOWS,
    build_search_fields,
    read_windows,
    window_limit_refusal,
)
from services.settings import Settings
from services.talk.model import is_talk

# What the client sent and what is known of the sending; the rest belongs to one generation.
_RAW = ("text", "title", "metadata", "version", "job", "ingested_at", *RAW_TALK_MEMBERS)
_DENSE = ("dense", "dense_encoder", "dense_error")


def has_same_vectors(source: Generation, target: Generation) -> bool:
    """Whether the vectors in `source`, sparse and dense, are what `target`'s encoders would make.

    Dense vectors that `target` does not want are left behind; those that it lacks mean that all is encoded again. Of
    talk it depends on each document's chapters as well: see `has_same_chapters`.
    """
    sparse = source.encoder.fingerprint == target.encoder.fingerprint and source.window == target.window
    return sparse and (target.dense is None or target.dense == source.dense)


def has_same_chapters(source: Generation, target: Generation, stored: Mapping[str, Any]) -> bool:
    """Whether a document has the chapters that `target` asks for, and windows that were encoded with them.

    A producer's are what every engine is asked for. Chapters that an engine failed to make are tried again.
    """
    if not is_talk(stored) or source.spec.talk is None or target.spec.talk is None:
        return True
    if source.spec.talk.titles_in_vectors != target.spec.talk.titles_in_vectors:
        return False
    made = stored.get("chaptering", {})
    if made.get("engine") == "given":
        return True
    wanted = target.spec.talk.chapters
    if made.get("engine") != wanted or "error" in made:
        return False
    return wanted == "none" or not target.chapters or made.get("fingerprint") == target.chapters


def carry_write(source: Generation, target: Generation, stored: StoredDocument, lease_seconds: float) -> Write:
    """The write of `stored` into `target`.

    It keeps the client's version, so whatever is newer there wins, and carrying the same document twice changes
    nothing. A tombstone stays one. Valid vectors are copied: pruning (`document_top_k`) is done anew from the windows.
    Everything else is the raw document again, to be encoded; so is a dead one, whose new encoder may be luckier.
    """
    due = now_ms() + int(lease_seconds * 1000)
    alias, external = target.write_alias, stored.external
    if stored.state == DELETED:
        return Write(alias, stored.id, raw_version(client_version(external)), stored.source)
    if has_same_vectors(source, target):
        if stored.state == ENCODED and has_same_chapters(source, target, stored.source):
            windows = read_windows(stored.source)
            refusal = window_limit_refusal(len(windows), target.spec)
            if refusal is not None:
                return _dead_on_arrival_write(target, stored, *refusal)
            left = () if target.dense is not None else _DENSE
            kept = {name: value for name, value in stored.source.items() if name not in left}
            return Write(alias, stored.id, external, kept | build_search_fields(windows, target.spec, kept))
        if stored.state == DEAD and stored.source.get("error", {}).get("code") != TOO_MANY_WINDOWS:
            return Write(alias, stored.id, external, stored.source)
        if stored.state == PENDING:
            # with its attempts and retries: it may be newer than the death of the same document that was carried before
            return Write(alias, stored.id, external, stored.source | {"due_at": due})
    raw = _raw_source(stored) | {"state": PENDING, "attempts": 0, "due_at": due}
    return Write(alias, stored.id, raw_version(client_version(external)), raw)


def _raw_source(stored: StoredDocument) -> dict[str, Any]:
    return {name: stored.source[name] for name in _RAW if name in stored.source}


def misfit_write(source: Generation, target: Generation, stored: StoredDocument) -> Write:
    """A document that `target`'s declaration does not take, as a dead one without its metadata.

    For what was acknowledged after the last look before a swap: its text is kept and found by keyword, and the list of
    dead documents says why it is there.
    """
    reason = (
        f"Its metadata does not fit the fields of generation {target.number}; it was written while "
        f"generation {source.number} was replaced. Send it again."
    )
    fitting = {name: value for name, value in stored.source.items() if name != "metadata"}
    return _dead_on_arrival_write(target, replace(stored, source=fitting), "misfit", reason)


def _dead_on_arrival_write(target: Generation, stored: StoredDocument, code: str, reason: str) -> Write:
    """The raw document, dead from the beginning: the target never had an attempt at it."""
    raw = raw_version(client_version(stored.external))
    one = StoredDocument(stored.id, raw, _raw_source(stored) | {"attempts": 0})
    return replace(dead_write(target, one, code, reason), version=raw)


def is_pending_write(write: Write) -> bool:
    """Whether the written document waits for an encoder."""
    return bool(write.source["state"] == PENDING)


NO_OPERATIONS = -1  # the number before a shard's first operation


@dataclass(frozen=True, slots=True)
class ShardState:
    """`safe`: the number up to which operations are final; `newest`: the largest one that was given out."""

    safe: int
    newest: int


def shard_states_call(physical: str) -> Call:
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


def read_shard_states(answer: Mapping[str, Any], count: int) -> dict[int, ShardState]:
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


def read_changes(answer: Mapping[str, Any]) -> list[tuple[int, StoredDocument]]:
    """Number and document of each change."""
    return [
        (int(hit["sort"][0]), StoredDocument(hit["_id"], hit["_version"], hit["_source"]))
        for hit in answer["hits"]["hits"]
    ]


# following  changes of the old generation are carried to the new one; searches see the old one
# swapping   decided: from here it only goes forward, by whoever finds it
# swapped    done; the old generation is kept, read-only, for a rollback
# dropping   the generation that is not searched is being deleted, and the record with it
ReindexStep = Literal["following", "swapping", "swapped", "dropping"]


class ReindexRecord(BaseModel):
    """From which generation to which; checkpoints are sequence numbers by shard of the source."""

    model_config = ConfigDict(extra="forbid")

    index: str
    source: Generation
    target: Generation
    step: ReindexStep = "following"
    rollback: bool = False
    checkpoints: dict[int, int] = Field(default_factory=dict)
    target_checkpoints: dict[int, int] = Field(
        default_factory=dict, description="the target's own at the swap: what came later came from clients"
    )
    carried: int = 0
    misfits: int = Field(0, description="documents that the new generation's mapping does not take")
    misfit_ids: list[str] = Field(default_factory=list, description="the first of them")
    started_at: int = Field(default_factory=now_ms)
    updated_at: int = Field(default_factory=now_ms)
    covered_at: int = Field(default_factory=now_ms, description="when the last pass over the source began")
    swapped_at: int | None = None


def reindex_records_call(names: IndexNames, seconds: float) -> Call:
    """Asks for the records of all indexes; where nothing was ever reindexed there is nothing to find."""
    params = {"ignore_unavailable": "true", "allow_no_indices": "true"}
    return Call("POST", f"/{names.reindexes}/_search", orjson.dumps({"size": 1000}), params, timeout=seconds)


def read_reindex_records(answer: Mapping[str, Any]) -> list[ReindexRecord]:
    """The records in an answer to `reindex_records_call`, for those who look and change nothing."""
    return [ReindexRecord.model_validate(hit["_source"]) for hit in answer["hits"]["hits"]]


class ReindexRecords:
    """Reads and writes records. `_held` is what this process saw last, and what its next save is compared with."""

    def __init__(self, search: SyncSearchClient, settings: Settings) -> None:
        self._search = search
        self._settings = settings
        self._names = IndexNames(settings.index_prefix)
        self._held: dict[str, tuple[int, int]] = {}

    def load(self, index: str) -> ReindexRecord | None:
        """The record of an index, None when there is none."""
        try:
            found = self._search.send(Call("GET", self._path(index)))
        except NotFound:
            return None
        return self._read(found)

    def unfinished(self, before: int) -> list[ReindexRecord]:
        """Records of swaps that began and were not touched since `before` (milliseconds since 1970)."""
        query = {"bool": {"filter": [{"term": {"step": "swapping"}}, {"range": {"updated_at": {"lt": before}}}]}}
        body = {"query": query, "size": 100, "seq_no_primary_term": True}
        try:
            answer = self._search.send(Call("POST", f"/{self._names.reindexes}/_search", orjson.dumps(body)))
        except NotFound:
            return []
        return [self._read(hit) for hit in answer["hits"]["hits"]]

    def every(self) -> list[ReindexRecord]:
        """The records of all indexes, for those who look and change nothing."""
        return read_reindex_records(self._search.send(reindex_records_call(self._names, 5.0)))

    def begin(self, record: ReindexRecord) -> None:
        """Stores a new record. Raises Conflict (`reindex_exists`) when there is one."""
        self._make_index()
        self._put(record, {"op_type": "create"})

    def save(self, record: ReindexRecord) -> None:
        """Raises Conflict (`reindex_taken_over`) when another process has saved it since it was loaded."""
        record.updated_at = now_ms()
        number, term = self._held[record.index]
        self._put(record, {"if_seq_no": number, "if_primary_term": term})

    def forget(self, record: ReindexRecord) -> None:
        """Removes the record. Raises Conflict as `save` does."""
        number, term = self._held.pop(record.index)
        try:
            self._search.send(
                Call("DELETE", self._path(record.index), params={"if_seq_no": number, "if_primary_term": term})
            )
        except NotFound:
            return
        except Conflict:
            raise _reindex_taken_over(record.index) from None

    def _put(self, record: ReindexRecord, condition: dict[str, Any]) -> None:
        call = Call("PUT", self._path(record.index), orjson.dumps(record.model_dump(mode="json")), condition)
        try:
            answer = self._search.send(call)
        except Conflict:
            if "op_type" in condition:
                raise Conflict("reindex_exists", f"A reindexing of {record.index!r} has begun already.") from None
            raise _reindex_taken_over(record.index) from None
        self._held[record.index] = (answer["_seq_no"], answer["_primary_term"])

    def _read(self, found: dict[str, Any]) -> ReindexRecord:
        record = ReindexRecord.model_validate(found["_source"])
        self._held[record.index] = (found["_seq_no"], found["_primary_term"])
        return record

    def _path(self, index: str) -> str:
        self._names.alias(index)  # a name that no index can have
        return f"/{self._names.reindexes}/_doc/{index}"

    def _make_index(self) -> None:
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
    return Conflict(
        "reindex_taken_over", f"Another process works on the reindexing of {index!r}; this one has stopped."
    )
