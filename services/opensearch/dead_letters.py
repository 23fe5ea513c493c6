"""The dead documents of a generation as a list in pages, and what is shown of one."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from services.cursors import packed, unpacked
from services.errors import InvalidInput
from services.opensearch.client import Call
from services.opensearch.journal import DEAD

_SHOWN = ["title", "version", "attempts", "error", "job", "ingested_at", "dead_at", "earlier"]
# The latest deaths first. Moments are milliseconds, of which many share one, so the id decides; `_seq_no` orders those
# that died before either was recorded (it is unique in a shard).
_SORT = [
    {"dead_at": {"order": "desc", "missing": "_last", "unmapped_type": "date"}},
    {"dead_id": {"order": "asc", "missing": "_last", "unmapped_type": "keyword"}},
    {"_seq_no": {"order": "asc"}},
]


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the list: the sort values of the last document before it."""

    dead_at: int
    dead_id: str | None
    seq_no: int

    def __str__(self) -> str:
        return packed([self.dead_at, self.dead_id, self.seq_no])


def read_cursor(text: str) -> Cursor:
    """The cursor that `str` made a text of. Raises InvalidInput (`bad_cursor`)."""
    try:
        values = unpacked(text)
    except ValueError:
        values = None
    match values:
        case [int(dead_at), str() | None as dead_id, int(seq_no)] if not isinstance(values[0] or values[2], bool):
            if -(2**63) <= dead_at < 2**63 and 0 <= seq_no < 2**63:
                return Cursor(dead_at, dead_id, seq_no)
    raise InvalidInput("bad_cursor", "`cursor` is none that this list gave out; leave it away for the first page.")


def dead_call(physical: str, size: int, after: Cursor | None, *, whole: bool = False) -> Call:
    """One page of the dead; `whole` with all that is stored of each, to be written back."""
    body: dict[str, Any] = {
        "size": size,
        "query": {"bool": {"filter": [{"term": {"state": DEAD}}]}},
        "sort": _SORT,
        "version": True,
        "track_total_hits": True,
        "_source": {"excludes": ["windows"]} if whole else {"includes": _SHOWN},
    }
    if after is not None:
        body["search_after"] = [after.dead_at, after.dead_id, after.seq_no]
    return Call("POST", f"/{physical}/_search", orjson.dumps(body), {"allow_partial_search_results": "false"})


def read_total(answer: Mapping[str, Any]) -> int:
    """All dead documents, those of other pages too."""
    return int(answer["hits"]["total"]["value"])


def read_next(answer: Mapping[str, Any], size: int) -> Cursor | None:
    """Where the next page begins; None after the last one."""
    hits = answer["hits"]["hits"]
    return Cursor(*hits[-1]["sort"]) if len(hits) == size else None


def shown_moment(milliseconds: int | None) -> str | None:
    """ISO 8601 in UTC."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def shown_earlier(earlier: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of the rounds of attempts before the last retry."""
    return {**earlier, "dead_at": shown_moment(earlier.get("dead_at"))}


def read_dead(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A page of the list as the API shows it."""
    return [_shown(hit["_id"], hit["_source"]) for hit in answer["hits"]["hits"]]


def _shown(document_id: str, source: Mapping[str, Any]) -> dict[str, Any]:
    earlier = source.get("earlier")
    return {
        "id": document_id,
        "title": source.get("title"),
        "version": source["version"],
        "attempts": source.get("attempts", 0),
        "error": source["error"],
        "job": source.get("job"),
        "ingested_at": shown_moment(source.get("ingested_at")),
        "dead_at": shown_moment(source.get("dead_at")),
        "earlier": shown_earlier(earlier) if earlier else None,
    }
