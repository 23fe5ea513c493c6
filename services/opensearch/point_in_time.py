"""All documents of a generation as they were at one moment: a snapshot, read shard by shard in the engine's own order.

Within a shard the engine's document number orders its documents and costs nothing to sort by; over several shards it is
not unique, and the tiebreaker that is (`_shard_doc`) came with 3.3 only. So each shard is read on its own, as the slice
that is exactly this shard.

Points in time of OpenSearch (2.4 and later): what pages and exports see stands still while writes go on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import orjson

from services.cursors import seal_cursor, unseal_cursor
from services.encoders.query_table import QueryTable
from services.errors import InvalidInput
from services.opensearch.client import Call
from services.opensearch.journal import DEAD, ENCODED, PENDING
from services.opensearch.stored_document import read_talk_members, read_windows
from services.talk.model import is_talk


def open_point_in_time_call(physical: Sequence[str], seconds: float, *, near: bool = False) -> Call:
    """Takes a snapshot of some generations, kept for so long after each use; `near` as in `queries.Plan.options`.

    It is whole or an error. Left to itself OpenSearch answers 200 with a snapshot of some of the shards when there is
    no room for all (`search.max_open_pit_context`), and every search of it would lack the others' documents.
    """
    params = {"keep_alive": _keep_alive(seconds), "allow_partial_pit_creation": "false"}
    if near:
        params["preference"] = "_local"
    return Call("POST", f"/{','.join(physical)}/_search/point_in_time", params=params)


def close_point_in_time_call(snapshot: str) -> Call:
    """Lets go of it. Raises ValueError for the word that OpenSearch takes for all there are."""
    if snapshot == "_all":
        raise ValueError("a snapshot is closed by its id")
    return Call("DELETE", "/_search/point_in_time", orjson.dumps({"pit_id": [snapshot]}))


def point_in_time_member(snapshot: str, seconds: float) -> dict[str, Any]:
    """The member of a search's body that makes it one of the snapshot, which is then kept for `seconds` more.

    Such a search names no index and no preference: the snapshot has both.
    """
    return {"pit": {"id": snapshot, "keep_alive": _keep_alive(seconds)}}


def _keep_alive(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


EXPORTED_STATES = (PENDING, ENCODED, DEAD)
KEEP_ALIVE_SECONDS = 300.0  # how long the snapshot waits for the next page
_DENSE_FIELDS = ("dense", "dense_encoder")  # packed, see services.encoders.vectors
_VECTORS = ("encoder", "windows", *_DENSE_FIELDS)
_EXPORTED_FIELDS = ("title", "text", "metadata", "version", "state")
_TALK = ("kind", "description", "segments", "given", "duration", "url")


@dataclass(frozen=True, slots=True)
class ExportPosition:
    """Up to where an export is: everything that the next page needs, so that any API process can give it.

    A client carries it, and cannot write one: it holds names and snapshots that OpenSearch is asked for.
    """

    physical: str
    snapshot: str
    shards: int
    total: int
    states: tuple[str, ...]
    vectors: bool
    shard: int = 0
    after: int | None = None
    exported: int = 0

    @property
    def ended(self) -> bool:
        return self.shard >= self.shards

    def cursor(self, key: bytes) -> str:
        """As a text that only who has the key could have made."""
        return seal_cursor([getattr(self, name) for name in self.__slots__], key)

    @classmethod
    def read(cls, cursor: str, key: bytes) -> Self:
        """The place that `cursor` made a text of with the same key. Raises InvalidInput (`bad_cursor`)."""
        try:
            place = cls(*unseal_cursor(cursor, key))
        except (ValueError, TypeError):
            raise bad_export_cursor() from None
        if not place._sound():  # (of another version)
            raise bad_export_cursor()
        return replace(place, states=tuple(place.states))

    def _sound(self) -> bool:
        after = 0 if self.after is None else self.after
        whole = (self.shards, self.total, self.shard, self.exported, after)
        return (
            all(isinstance(text, str) for text in (self.physical, self.snapshot))
            and all(isinstance(number, int) and 0 <= number < 2**53 for number in whole)
            and after < 2**31  # Lucene's document numbers; a larger one would be read as another
            and isinstance(self.states, list)
            and bool(self.states)
            and all(state in EXPORTED_STATES for state in self.states)
            and isinstance(self.vectors, bool)
        )


def bad_export_cursor() -> InvalidInput:
    """The error for a cursor that no page gave."""
    return InvalidInput("bad_cursor", "`cursor` is none that this export gave out; leave it away for the first page.")


def count_export_call(snapshot: str, states: Sequence[str]) -> Call:
    """Counts what will be exported."""
    body = {"size": 0, "track_total_hits": True, "query": _states_query(states)}
    return _export_search_call(body | point_in_time_member(snapshot, KEEP_ALIVE_SECONDS))


def read_export_count(answer: Mapping[str, Any]) -> int:
    return int(answer["hits"]["total"]["value"])


def export_page_call(place: ExportPosition, size: int) -> Call:
    """The next documents of the shard that is read."""
    names = (*_EXPORTED_FIELDS, "error", *_TALK, *(_VECTORS if place.vectors else ()))
    body: dict[str, Any] = {
        "size": size,
        "query": _states_query(place.states),
        "sort": [{"_doc": "asc"}],
        "track_total_hits": False,
        "_source": {"includes": list(names)},
    } | point_in_time_member(place.snapshot, KEEP_ALIVE_SECONDS)
    if place.shards > 1:
        body["slice"] = {"id": place.shard, "max": place.shards}
    if place.after is not None:
        body["search_after"] = [place.after]
    return _export_search_call(body)


def read_export_page(
    place: ExportPosition, size: int, answer: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], ExportPosition]:
    """The hits, and the place after them. Raises InvalidInput (`bad_cursor`) for those of another index."""
    hits = answer["hits"]["hits"]
    if any(hit["_index"] != place.physical for hit in hits):
        raise bad_export_cursor()
    place = replace(place, snapshot=answer.get("pit_id", place.snapshot), exported=place.exported + len(hits))
    if len(hits) < size:
        return hits, replace(place, shard=place.shard + 1, after=None)
    return hits, replace(place, after=hits[-1]["sort"][0])


def format_exported_document(hit: Mapping[str, Any], table: QueryTable | None) -> dict[str, Any]:
    """A document as it was sent, with its version and state; with a table its vectors as well, window by window."""
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
