"""The export of a generation in pages, from a point in time.

An export reads shard by shard in Lucene's document order, which needs no sorting. Over several shards that order is not
unique, and the tiebreaker `_shard_doc` exists only from OpenSearch 3.3. So each shard is read as the slice that is
exactly this shard.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import orjson

from services.documents.document import is_talk
from services.encoders.query_table import QueryTable
from services.errors import InvalidInput
from services.opensearch.client import Call
from services.opensearch.journal import DEAD, ENCODED, PENDING
from services.opensearch.paging import point_in_time_member, seal_cursor, unseal_cursor
from services.opensearch.stored_document import read_talk_members, read_windows

EXPORTED_STATES = (PENDING, ENCODED, DEAD)
KEEP_ALIVE_SECONDS = 300.0  # time between two pages after which the point in time closes
_DENSE_FIELDS = ("dense", "dense_encoder")  # packed, see services.encoders.vectors
_VECTORS = ("encoder", "windows", *_DENSE_FIELDS)
_EXPORTED_FIELDS = ("title", "text", "metadata", "version", "state")
_TALK_FIELDS = ("kind", "description", "segments", "given", "duration", "url")


@dataclass(frozen=True, slots=True)
class ExportPosition:
    """Position of an export, with everything that the next page needs, so that any API process can serve it.

    The client keeps it as a sealed cursor: it contains names that are sent to OpenSearch.
    """

    physical: str
    point_in_time: str
    shards: int
    total: int
    states: tuple[str, ...]
    vectors: bool
    shard: int = 0
    after: int | None = None
    exported: int = 0

    @property
    def ended(self) -> bool:
        """Tell whether all shards are read."""
        return self.shard >= self.shards

    def cursor(self, key: bytes) -> str:
        """Return the position as text sealed with the key."""
        return seal_cursor([getattr(self, name) for name in self.__slots__], key)

    @classmethod
    def read(cls, cursor: str, key: bytes) -> Self:
        """Read the position from a cursor that the same key sealed. Raises InvalidInput (`bad_cursor`)."""
        try:
            position = cls(*unseal_cursor(cursor, key))
        except (ValueError, TypeError):
            raise bad_export_cursor() from None
        if not position._is_valid():  # a cursor of another release
            raise bad_export_cursor()
        return replace(position, states=tuple(position.states))

    def _is_valid(self) -> bool:
        after = 0 if self.after is None else self.after
        integers = (self.shards, self.total, self.shard, self.exported, after)
        return (
            all(isinstance(text, str) for text in (self.physical, self.point_in_time))
            and all(isinstance(number, int) and 0 <= number < 2**53 for number in integers)
            and after < 2**31  # Lucene's document numbers; OpenSearch would read a larger one as another number
            and isinstance(self.states, list)
            and bool(self.states)
            and all(state in EXPORTED_STATES for state in self.states)
            and isinstance(self.vectors, bool)
        )


def bad_export_cursor() -> InvalidInput:
    """Return the error for a cursor that no page of an export gave out."""
    return InvalidInput("bad_cursor", "`cursor` is not from this export; omit it for the first page.")


def count_export_call(point_in_time: str, states: Sequence[str]) -> Call:
    """Count the documents of an export."""
    body = {"size": 0, "track_total_hits": True, "query": _states_query(states)}
    return _export_search_call(body | point_in_time_member(point_in_time, KEEP_ALIVE_SECONDS))


def read_export_count(answer: Mapping[str, Any]) -> int:
    """Read the count from an answer to `count_export_call`."""
    return int(answer["hits"]["total"]["value"])


def export_page_call(position: ExportPosition, size: int) -> Call:
    """Read the next page of the current shard."""
    source_fields = (*_EXPORTED_FIELDS, "error", *_TALK_FIELDS, *(_VECTORS if position.vectors else ()))
    body: dict[str, Any] = {
        "size": size,
        "query": _states_query(position.states),
        "sort": [{"_doc": "asc"}],
        "track_total_hits": False,
        "_source": {"includes": list(source_fields)},
    } | point_in_time_member(position.point_in_time, KEEP_ALIVE_SECONDS)
    if position.shards > 1:
        body["slice"] = {"id": position.shard, "max": position.shards}
    if position.after is not None:
        body["search_after"] = [position.after]
    return _export_search_call(body)


def read_export_page(
    position: ExportPosition, size: int, answer: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], ExportPosition]:
    """Return the hits of a page and the position after them.

    Raises InvalidInput (`bad_cursor`) for hits of another index.
    """
    hits = answer["hits"]["hits"]
    if any(hit["_index"] != position.physical for hit in hits):
        raise bad_export_cursor()
    position = replace(
        position, point_in_time=answer.get("pit_id", position.point_in_time), exported=position.exported + len(hits)
    )
    if len(hits) < size:
        return hits, replace(position, shard=position.shard + 1, after=None)
    return hits, replace(position, after=hits[-1]["sort"][0])


def format_exported_document(hit: Mapping[str, Any], table: QueryTable | None) -> dict[str, Any]:
    """Format a hit in the client's format, with version and state; with a query table, also its vectors by window."""
    source = hit["_source"]
    document = {"id": hit["_id"]} | {name: source[name] for name in _EXPORTED_FIELDS if name in source}
    if is_talk(source):
        del document["text"]
        document |= read_talk_members(source)
    if source["state"] == DEAD and "error" in source:
        document["error"] = source["error"]
    if table is None or "windows" not in source:
        return document
    windows = []
    for window in read_windows(source):
        ids = window.vector.ids.tolist()
        windows.append(
            {
                "start": window.start,
                "end": window.end,
                "ids": ids,
                "pieces": [table.piece(i) for i in ids],
                "weights": window.vector.weights.tolist(),
            }
        )
    dense = {name: source[name] for name in _DENSE_FIELDS if name in source}
    return document | {"encoder": source["encoder"], "windows": windows} | dense


def _states_query(states: Sequence[str]) -> dict[str, Any]:
    return {"bool": {"filter": [{"terms": {"state": list(states)}}]}}


def _export_search_call(body: Mapping[str, Any]) -> Call:
    return Call("POST", "/_search", orjson.dumps(body), {"allow_partial_search_results": "false"})
