"""Dead letters: the documents that could not be encoded, listed in pages, latest death first.

Pages follow each other by cursors (docs/decisions/0090). The transitions of a document to a dead letter and back are
in `services.opensearch.journal`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from services.dates import format_timestamp
from services.errors import InvalidInput
from services.opensearch.client import Call
from services.opensearch.journal import DEAD, format_earlier_attempts
from services.opensearch.paging import decode_cursor, encode_cursor

_DEAD_LETTER_FIELDS = ["title", "version", "attempts", "error", "job", "ingested_at", "dead_at", "earlier"]
# Latest death first. Many documents share a millisecond, so the id breaks ties. `_seq_no`, unique in a shard, orders
# documents that died before both fields existed.
_DEAD_LETTER_SORT = [
    {"dead_at": {"order": "desc", "missing": "_last", "unmapped_type": "date"}},
    {"dead_id": {"order": "asc", "missing": "_last", "unmapped_type": "keyword"}},
    {"_seq_no": {"order": "asc"}},
]


@dataclass(frozen=True, slots=True)
class DeadLetterCursor:
    """Position in the list of dead letters: the sort values of the last document before it."""

    dead_at: int
    dead_id: str | None
    seq_no: int

    def __str__(self) -> str:
        return encode_cursor([self.dead_at, self.dead_id, self.seq_no])


def parse_dead_letter_cursor(text: str) -> DeadLetterCursor:
    """Parse a cursor that `str` formatted. Raises InvalidInput (`bad_cursor`)."""
    try:
        values = decode_cursor(text)
    except ValueError:
        values = None
    match values:
        case [int(dead_at), str() | None as dead_id, int(seq_no)] if not isinstance(values[0] or values[2], bool):
            if -(2**63) <= dead_at < 2**63 and 0 <= seq_no < 2**63:
                return DeadLetterCursor(dead_at, dead_id, seq_no)
    raise InvalidInput("bad_cursor", "`cursor` is not from this list; omit it for the first page.")


def list_dead_letters_call(physical: str, size: int, after: DeadLetterCursor | None, *, ids: bool = False) -> Call:
    """Read one page of dead letters. `ids` reads their ids and states alone, for a retry."""
    body: dict[str, Any] = {
        "size": size,
        "query": {"bool": {"filter": [{"term": {"state": DEAD}}]}},
        "sort": _DEAD_LETTER_SORT,
        "version": True,
        "track_total_hits": True,
        "_source": ["state"] if ids else {"includes": _DEAD_LETTER_FIELDS, "excludes": ["earlier.vectors"]},
    }
    if after is not None:
        body["search_after"] = [after.dead_at, after.dead_id, after.seq_no]
    return Call("POST", f"/{physical}/_search", orjson.dumps(body), {"allow_partial_search_results": "false"})


def read_dead_letter_count(answer: Mapping[str, Any]) -> int:
    """Read the number of all dead letters, beyond the page."""
    return int(answer["hits"]["total"]["value"])


def read_next_cursor(answer: Mapping[str, Any], size: int) -> DeadLetterCursor | None:
    """Return the cursor of the next page, or None after the last page."""
    hits = answer["hits"]["hits"]
    return DeadLetterCursor(*hits[-1]["sort"]) if len(hits) == size else None


def read_dead_letters(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Format a page of dead letters for the API."""
    return [_format_dead_letter(hit["_id"], hit["_source"]) for hit in answer["hits"]["hits"]]


def _format_dead_letter(document_id: str, source: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": document_id,
        "title": source.get("title"),
        "version": source["version"],
        "attempts": source.get("attempts", 0),
        "error": source["error"],
        "job": source.get("job"),
        "ingested_at": format_timestamp(source.get("ingested_at")),
        "dead_at": format_timestamp(source.get("dead_at")),
        "earlier": format_earlier_attempts(source),
    }
