"""What is stored of a document in each state of its life, and how it is read back by id.

The index is its own journal: the raw document is written before anything is acknowledged, keeps its text through
every state, and is searched by keyword from the next refresh.

The dead documents of a generation as a list in pages, and what is shown of one.

Bulk writes whose answer was lost: sent again, they find themselves stored. That is success, not "superseded". Pure.

check = LostAnswerCheck(alias, writes, verdicts)
if (call := check.call()) is not None:
    verdicts = check.settle(send(call))
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson

from services.cursors import decode_cursor, encode_cursor
from services.documents.document import (
    VERSION_STRIDE,
    Document,
    client_version,
    encoded_version,
    next_transition,
    raw_version,
)
from services.errors import InvalidInput
from services.index_spec import Generation
from services.opensearch.bulk import Verdict, Write, WriteOutcome
from services.opensearch.client import Call
from services.opensearch.stored_document import EncodedWindow, build_search_fields, build_talk_members
from services.talk.model import Chaptering

# What only an encoder made: large, and not read where a document is looked at.
_EXCLUDED_VECTORS = "windows,dense"
PENDING, ENCODED, DEAD, DELETED = "pending", "encoded", "dead", "deleted"
MAX_REASON_CHARACTERS = 2000  # characters
# A retry takes one transition, and what follows takes three for each attempt (enqueued, begun, failed) and one to die.
RETRY_RESERVED_VERSIONS = 64


def now_ms() -> int:
    """Milliseconds since 1970, the unit of all stored moments."""
    return time.time_ns() // 1_000_000


def days_ms(days: float) -> int:
    """A setting in days as milliseconds."""
    return int(days * 86_400_000)


def raw_write(generation: Generation, document: Document, job: str, version: int, lease_seconds: float) -> Write:
    """The first write of a document: everything that the client sent, to be encoded."""
    now = now_ms()
    source: dict[str, Any] = {
        "text": document.text,
        "state": PENDING,
        "job": job,
        "version": version,
        "attempts": 0,
        "ingested_at": now,
        "due_at": now + int(lease_seconds * 1000),
    }
    if document.title:
        source["title"] = document.title
    if document.metadata:
        source["metadata"] = document.metadata
    if document.talk is not None:
        source |= build_talk_members(document.talk)
    return Write(generation.alias, document.id, raw_version(version), source)


def tombstone_write(generation: Generation, document_id: str, version: int) -> Write:
    """A delete: OpenSearch forgets the version of a deleted document after a minute, a tombstone does not."""
    source = {"state": DELETED, "version": version, "deleted_at": now_ms()}
    return Write(generation.alias, document_id, raw_version(version), source)


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as OpenSearch holds it: `external` is its version there, `source` its `_source`.

    `physical`: the generation that it was read from, of a document that was read by its id.
    """

    id: str
    external: int
    source: dict[str, Any]
    physical: str = ""

    @property
    def state(self) -> str:
        return str(self.source["state"])

    @property
    def attempts(self) -> int:
        """Encodings that were begun by workers that counted them; the first one of all is not counted."""
        return int(self.source.get("attempts", 0))

    @property
    def transitions(self) -> int:
        """How often it was written since the client's write, without having been encoded."""
        return self.external % VERSION_STRIDE

    @property
    def may_change(self) -> bool:
        """Whether a transition is left beside the last one, which is for the dead."""
        return self.transitions < VERSION_STRIDE - 3

    @property
    def may_be_retried(self) -> bool:
        """Whether the transitions that are left suffice for another round of attempts."""
        return self.transitions < VERSION_STRIDE - 3 - RETRY_RESERVED_VERSIONS


@dataclass(frozen=True, slots=True)
class DenseOutcome:
    """What became of a document's dense vectors: packed, or the code of why there are none."""

    packed: str = ""
    error: str = ""


def encoded_write(
    generation: Generation,
    stored: StoredDocument,
    windows: Sequence[EncodedWindow],
    dense: DenseOutcome | None = None,
    chaptering: Chaptering | None = None,
) -> Write:
    """The same raw document with its vectors. A newer raw write beats it, whatever arrives first.

    `dense` is there when the generation declares a dense encoder. A document without dense vectors is found like any
    other and only not reranked. `chaptering` is there for talk.
    """
    kept = {k: v for k, v in stored.source.items() if k not in ("due_at", "error", "earlier")}
    source = kept | {
        "state": ENCODED,
        "encoder": generation.encoder.fingerprint,
        "encoded_at": now_ms(),
        "windows": [{"start": w.start, "end": w.end, "vector": w.vector.pack()} for w in windows],
    }
    if chaptering is not None:
        source |= chaptering.fields()
    source |= build_search_fields(windows, generation.spec, source)
    if dense is not None and generation.dense is not None:
        if dense.error:
            source["dense_error"] = dense.error
        else:
            source |= {"dense": dense.packed, "dense_encoder": generation.dense.fingerprint}
    return Write(generation.write_alias, stored.id, encoded_version(client_version(stored.external)), source)


def attempt_write(
    generation: Generation,
    stored: StoredDocument,
    attempts: int,
    lease_seconds: float,
    error: tuple[str, str] | None = None,
) -> Write:
    """A transition: `attempts` workers have begun with it by now, and it has a new lease.

    Written before a worker begins where an earlier one may have died, and after a failure that may pass (`error`:
    code and reason). Of two that race, one is superseded.
    """
    source = stored.source | {"attempts": attempts, "due_at": now_ms() + int(lease_seconds * 1000)}
    if error is not None:
        source["error"] = {"code": error[0], "reason": error[1][:MAX_REASON_CHARACTERS]}
    return Write(generation.write_alias, stored.id, next_transition(stored.external), source)


def requeue_write(generation: Generation, stored: StoredDocument, lease_seconds: float) -> Write:
    """A transition: enqueued once more. Not an attempt: nobody need have taken the message before."""
    source = stored.source | {"due_at": now_ms() + int(lease_seconds * 1000)}
    return Write(generation.write_alias, stored.id, next_transition(stored.external), source)


def dead_write(generation: Generation, stored: StoredDocument, code: str, reason: str) -> Write:
    """A transition: no more attempts, with the reason. The document stays searchable by keyword.

    `dead_id` is its id once more, where a list of the dead can be sorted by it: as `_id` it could be only by holding
    the ids of the whole index in memory.
    """
    source = {k: v for k, v in stored.source.items() if k != "due_at"} | {
        "state": DEAD,
        "dead_at": now_ms(),
        "dead_id": stored.id,
        "error": {"code": code, "reason": reason[:MAX_REASON_CHARACTERS]},
    }
    return Write(generation.write_alias, stored.id, next_transition(stored.external), source)


def retry_write(generation: Generation, stored: StoredDocument, lease_seconds: float) -> Write:
    """A transition: a dead document is pending again and may be attempted as often as a new one.

    What happened before is kept under `earlier` until it is encoded: retries, attempts of all earlier rounds, the last
    error and when it died of it. Raises ValueError unless `may_be_retried`.
    """
    if not stored.may_be_retried:
        raise ValueError("too few transitions are left for another round of attempts")
    before = stored.source.get("earlier", {})
    kept = {k: v for k, v in stored.source.items() if k not in ("dead_at", "dead_id", "error")}
    source = kept | {
        "state": PENDING,
        "attempts": 0,
        "due_at": now_ms() + int(lease_seconds * 1000),
        "earlier": {
            "retries": before.get("retries", 0) + 1,
            "attempts": before.get("attempts", 0) + stored.attempts,
            "error": stored.source.get("error"),
            "dead_at": stored.source.get("dead_at"),
        },
    }
    return Write(generation.write_alias, stored.id, next_transition(stored.external), source)


def get_document_call(alias: str, document_id: str, only: Sequence[str] = ()) -> Call:
    """Reads one document in real time, vectors left out, or of its members `only` some."""
    which = {"_source_includes": ",".join(only)} if only else {"_source_excludes": _EXCLUDED_VECTORS}
    return Call("GET", f"/{alias}/_doc/{quote(document_id, safe='')}", params=which)


def get_documents_call(index: str, ids: Sequence[str]) -> Call:
    """Reads documents in real time: what was acknowledged is seen before any refresh."""
    return Call("POST", f"/{index}/_mget", orjson.dumps({"ids": list(ids)}), {"_source_excludes": _EXCLUDED_VECTORS})


def read_stored_documents(answer: Mapping[str, Any]) -> list[StoredDocument]:
    """The documents that exist among those asked for."""
    return [
        StoredDocument(d["_id"], d["_version"], d["_source"], d["_index"]) for d in answer["docs"] if d.get("found")
    ]


def overdue_documents_call(physical: str, before: int, limit: int) -> Call:
    """Pending documents whose lease ran out before `before` (milliseconds since 1970), the oldest first."""
    query = {"bool": {"filter": [{"term": {"state": PENDING}}, {"range": {"due_at": {"lt": before}}}]}}
    body = {"size": limit, "query": query, "sort": [{"due_at": "asc"}], "version": True, "track_total_hits": False}
    return Call("POST", f"/{physical}/_search", orjson.dumps(body), {"allow_partial_search_results": "false"})


def read_stored_hits(answer: Mapping[str, Any]) -> list[StoredDocument]:
    """The documents of a search answer that asked for versions."""
    return [StoredDocument(hit["_id"], hit["_version"], hit["_source"]) for hit in answer["hits"]["hits"]]


_DEAD_LETTER_FIELDS = ["title", "version", "attempts", "error", "job", "ingested_at", "dead_at", "earlier"]
# The latest deaths first. Moments are milliseconds, of which many share one, so the id decides; `_seq_no` orders those
# that died before either was recorded (it is unique in a shard).
_SORT = [
    {"dead_at": {"order": "desc", "missing": "_last", "unmapped_type": "date"}},
    {"dead_id": {"order": "asc", "missing": "_last", "unmapped_type": "keyword"}},
    {"_seq_no": {"order": "asc"}},
]


@dataclass(frozen=True, slots=True)
class DeadLetterCursor:
    """A place in the list: the sort values of the last document before it."""

    dead_at: int
    dead_id: str | None
    seq_no: int

    def __str__(self) -> str:
        return encode_cursor([self.dead_at, self.dead_id, self.seq_no])


def parse_dead_letter_cursor(text: str) -> DeadLetterCursor:
    """The cursor that `str` made a text of. Raises InvalidInput (`bad_cursor`)."""
    try:
        values = decode_cursor(text)
    except ValueError:
        values = None
    match values:
        case [int(dead_at), str() | None as dead_id, int(seq_no)] if not isinstance(values[0] or values[2], bool):
            if -(2**63) <= dead_at < 2**63 and 0 <= seq_no < 2**63:
                return DeadLetterCursor(dead_at, dead_id, seq_no)
    raise InvalidInput("bad_cursor", "`cursor` is none that this list gave out; leave it away for the first page.")


def list_dead_letters_call(physical: str, size: int, after: DeadLetterCursor | None, *, whole: bool = False) -> Call:
    """One page of the dead; `whole` with all that is stored of each, to be written back."""
    body: dict[str, Any] = {
        "size": size,
        "query": {"bool": {"filter": [{"term": {"state": DEAD}}]}},
        "sort": _SORT,
        "version": True,
        "track_total_hits": True,
        "_source": {"excludes": ["windows"]} if whole else {"includes": _DEAD_LETTER_FIELDS},
    }
    if after is not None:
        body["search_after"] = [after.dead_at, after.dead_id, after.seq_no]
    return Call("POST", f"/{physical}/_search", orjson.dumps(body), {"allow_partial_search_results": "false"})


def read_dead_letter_count(answer: Mapping[str, Any]) -> int:
    """All dead documents, those of other pages too."""
    return int(answer["hits"]["total"]["value"])


def read_next_cursor(answer: Mapping[str, Any], size: int) -> DeadLetterCursor | None:
    """Where the next page begins; None after the last one."""
    hits = answer["hits"]["hits"]
    return DeadLetterCursor(*hits[-1]["sort"]) if len(hits) == size else None


def format_timestamp(milliseconds: int | None) -> str | None:
    """ISO 8601 in UTC."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def format_earlier_attempts(earlier: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of the rounds of attempts before the last retry."""
    return {**earlier, "dead_at": format_timestamp(earlier.get("dead_at"))}


def read_dead_letters(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
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
        "ingested_at": format_timestamp(source.get("ingested_at")),
        "dead_at": format_timestamp(source.get("dead_at")),
        "earlier": format_earlier_attempts(earlier) if earlier else None,
    }


@dataclass(frozen=True, slots=True)
class LostAnswerCheck:
    """A check of raw writes and tombstones, with their verdicts in the same order.

    A write is its own predecessor when what is stored under its id has its version and its job. `alias` is where the
    writes went.
    """

    alias: str
    writes: Sequence[Write]
    verdicts: Sequence[Verdict]

    def call(self) -> Call | None:
        """Return the call that reads what is stored in place of superseded writes, in real time; None without any."""
        ids = [
            write.id
            for write, verdict in zip(self.writes, self.verdicts, strict=True)
            if verdict.outcome is WriteOutcome.SUPERSEDED
        ]
        return get_documents_call(self.alias, ids) if ids else None

    def settle(self, answer: Mapping[str, Any]) -> list[Verdict]:
        """Return the verdicts, with STORED for superseded writes that the answer to `call` holds."""
        held = {
            (stored.id, *_write_identity(stored.source)): stored.physical for stored in read_stored_documents(answer)
        }
        return [
            Verdict(WriteOutcome.STORED, physical=held[write.id, *_write_identity(write.source)])
            if verdict.outcome is WriteOutcome.SUPERSEDED and (write.id, *_write_identity(write.source)) in held
            else verdict
            for write, verdict in zip(self.writes, self.verdicts, strict=True)
        ]


def _write_identity(source: Mapping[str, object]) -> tuple[object, object]:
    return source.get("version"), source.get("job")
