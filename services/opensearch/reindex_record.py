"""The record of a reindexing, one an index: what it is about and how far it is, so that a killed one goes on.

Every save is a compare-and-swap. Of two processes that work on the same index the slower one finds out with its next
save and stops; what it did until then is harmless, because carrying is idempotent.
"""

from collections.abc import Mapping
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from services.errors import Conflict, NotFound
from services.index_spec import Generation, Names
from services.opensearch.client import Call, SyncSearch
from services.opensearch.journal import now_ms
from services.settings import Settings

# following  changes of the old generation are carried to the new one; searches see the old one
# swapping   decided: from here it only goes forward, by whoever finds it
# swapped    done; the old generation is kept, read-only, for a rollback
# dropping   the generation that is not searched is being deleted, and the record with it
Step = Literal["following", "swapping", "swapped", "dropping"]


class ReindexRecord(BaseModel):
    """From which generation to which; checkpoints are sequence numbers by shard of the source."""

    model_config = ConfigDict(extra="forbid")

    index: str
    source: Generation
    target: Generation
    step: Step = "following"
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


def records_call(names: Names, seconds: float) -> Call:
    """Asks for the records of all indexes; where nothing was ever reindexed there is nothing to find."""
    params = {"ignore_unavailable": "true", "allow_no_indices": "true"}
    return Call("POST", f"/{names.reindexes}/_search", orjson.dumps({"size": 1000}), params, timeout=seconds)


def read_records(answer: Mapping[str, Any]) -> list[ReindexRecord]:
    """The records in an answer to `records_call`, for those who look and change nothing."""
    return [ReindexRecord.model_validate(hit["_source"]) for hit in answer["hits"]["hits"]]


class ReindexRecords:
    """Reads and writes records. `_held` is what this process saw last, and what its next save is compared with."""

    def __init__(self, search: SyncSearch, settings: Settings) -> None:
        self._search = search
        self._settings = settings
        self._names = Names(settings.index_prefix)
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
        return read_records(self._search.send(records_call(self._names, 5.0)))

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
            raise _taken_over(record.index) from None

    def _put(self, record: ReindexRecord, condition: dict[str, Any]) -> None:
        call = Call("PUT", self._path(record.index), orjson.dumps(record.model_dump(mode="json")), condition)
        try:
            answer = self._search.send(call)
        except Conflict:
            if "op_type" in condition:
                raise Conflict("reindex_exists", f"A reindexing of {record.index!r} has begun already.") from None
            raise _taken_over(record.index) from None
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


def _taken_over(index: str) -> Conflict:
    return Conflict(
        "reindex_taken_over", f"Another process works on the reindexing of {index!r}; this one has stopped."
    )
