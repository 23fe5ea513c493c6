"""What is stored of a document in each state of its life, and how it is read back by id.

The index is its own journal: the raw document is written before anything is acknowledged, keeps its text through
every state, and is searched by keyword from the next refresh.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from services import versions
from services.documents import Document
from services.index_spec import Generation
from services.opensearch.bulk import Write
from services.opensearch.client import Call
from services.opensearch.stored_windows import EncodedWindow, searched
from services.opensearch.talk_members import talk_members
from services.talk.chaptering import Chaptering

# What only an encoder made: large, and not read where a document is looked at.
_VECTORS = "windows,dense"
PENDING, ENCODED, DEAD, DELETED = "pending", "encoded", "dead", "deleted"
MAX_REASON = 2000  # characters
# A retry takes one transition, and what follows takes three for each attempt (enqueued, begun, failed) and one to die.
RETRY_ROOM = 64


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
        source |= talk_members(document.talk)
    return Write(generation.alias, document.id, versions.raw(version), source)


def tombstone(generation: Generation, document_id: str, version: int) -> Write:
    """A delete: OpenSearch forgets the version of a deleted document after a minute, a tombstone does not."""
    source = {"state": DELETED, "version": version, "deleted_at": now_ms()}
    return Write(generation.alias, document_id, versions.raw(version), source)


@dataclass(frozen=True, slots=True)
class Stored:
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
        return self.external % versions.STRIDE

    @property
    def may_change(self) -> bool:
        """Whether a transition is left beside the last one, which is for the dead."""
        return self.transitions < versions.STRIDE - 3

    @property
    def may_be_retried(self) -> bool:
        """Whether the transitions that are left suffice for another round of attempts."""
        return self.transitions < versions.STRIDE - 3 - RETRY_ROOM


@dataclass(frozen=True, slots=True)
class DenseOutcome:
    """What became of a document's dense vectors: packed, or the code of why there are none."""

    packed: str = ""
    error: str = ""


def encoded_write(
    generation: Generation,
    stored: Stored,
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
    source |= searched(windows, generation.spec, source)
    if dense is not None and generation.dense is not None:
        if dense.error:
            source["dense_error"] = dense.error
        else:
            source |= {"dense": dense.packed, "dense_encoder": generation.dense.fingerprint}
    return Write(generation.write_alias, stored.id, versions.encoded(versions.client(stored.external)), source)


def attempt_write(
    generation: Generation, stored: Stored, attempts: int, lease_seconds: float, error: tuple[str, str] | None = None
) -> Write:
    """A transition: `attempts` workers have begun with it by now, and it has a new lease.

    Written before a worker begins where an earlier one may have died, and after a failure that may pass (`error`:
    code and reason). Of two that race, one is superseded.
    """
    source = stored.source | {"attempts": attempts, "due_at": now_ms() + int(lease_seconds * 1000)}
    if error is not None:
        source["error"] = {"code": error[0], "reason": error[1][:MAX_REASON]}
    return Write(generation.write_alias, stored.id, versions.transition(stored.external), source)


def requeued_write(generation: Generation, stored: Stored, lease_seconds: float) -> Write:
    """A transition: enqueued once more. Not an attempt: nobody need have taken the message before."""
    source = stored.source | {"due_at": now_ms() + int(lease_seconds * 1000)}
    return Write(generation.write_alias, stored.id, versions.transition(stored.external), source)


def dead_write(generation: Generation, stored: Stored, code: str, reason: str) -> Write:
    """A transition: no more attempts, with the reason. The document stays searchable by keyword.

    `dead_id` is its id once more, where a list of the dead can be sorted by it: as `_id` it could be only by holding
    the ids of the whole index in memory.
    """
    source = {k: v for k, v in stored.source.items() if k != "due_at"} | {
        "state": DEAD,
        "dead_at": now_ms(),
        "dead_id": stored.id,
        "error": {"code": code, "reason": reason[:MAX_REASON]},
    }
    return Write(generation.write_alias, stored.id, versions.transition(stored.external), source)


def retried_write(generation: Generation, stored: Stored, lease_seconds: float) -> Write:
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
    return Write(generation.write_alias, stored.id, versions.transition(stored.external), source)


def get_call(alias: str, document_id: str, only: Sequence[str] = ()) -> Call:
    """Reads one document in real time, vectors left out, or of its members `only` some."""
    which = {"_source_includes": ",".join(only)} if only else {"_source_excludes": _VECTORS}
    return Call("GET", f"/{alias}/_doc/{quote(document_id, safe='')}", params=which)


def read_many_call(index: str, ids: Sequence[str]) -> Call:
    """Reads documents in real time: what was acknowledged is seen before any refresh."""
    return Call("POST", f"/{index}/_mget", orjson.dumps({"ids": list(ids)}), {"_source_excludes": _VECTORS})


def read_many(answer: Mapping[str, Any]) -> list[Stored]:
    """The documents that exist among those asked for."""
    return [Stored(d["_id"], d["_version"], d["_source"], d["_index"]) for d in answer["docs"] if d.get("found")]


def overdue_call(physical: str, before: int, limit: int) -> Call:
    """Pending documents whose lease ran out before `before` (milliseconds since 1970), the oldest first."""
    query = {"bool": {"filter": [{"term": {"state": PENDING}}, {"range": {"due_at": {"lt": before}}}]}}
    body = {"size": limit, "query": query, "sort": [{"due_at": "asc"}], "version": True, "track_total_hits": False}
    return Call("POST", f"/{physical}/_search", orjson.dumps(body), {"allow_partial_search_results": "false"})


def read_hits(answer: Mapping[str, Any]) -> list[Stored]:
    """The documents of a search answer that asked for versions."""
    return [Stored(hit["_id"], hit["_version"], hit["_source"]) for hit in answer["hits"]["hits"]]
