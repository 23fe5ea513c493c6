"""The journal: a document's stored states and the transitions between them.

The index is its own journal: the raw document is written before the answer and keeps its text in every state, and
lexical search finds it from the next refresh. The states are pending, encoded, dead and deleted (a tombstone); each
transition is one `Write` with the next external version (docs/decisions/0002). `LostAnswerCheck` turns SUPERSEDED into
STORED for a write that was sent again because its answer was lost. `backlog_call` counts the pending documents and the
dead letters of every generation in one search.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal
from urllib.parse import quote

import orjson

from services.dates import format_timestamp, now_ms
from services.documents.document import (
    Document,
    client_version,
    encoded_version,
    next_transition,
    raw_version,
)
from services.errors import BackendUnavailable
from services.index_spec import Generation, IndexNames
from services.opensearch.bulk import Verdict, Write, WriteOutcome
from services.opensearch.client import Call
from services.opensearch.stored_document import (
    PIECES_FIELD,
    EncodedWindow,
    StoredDocument,
    build_search_fields,
    build_stale_fields,
    build_talk_members,
    piece_features,
)
from services.talk.model import Chaptering

# Large members that an answer to a client does not show.
_EXCLUDED_VECTORS = f"windows,dense,{PIECES_FIELD},earlier.vectors.windows"
# A transition writes the whole document, so it must read the vectors of an earlier version. The windows of an encoded
# document are in no transition.
_EXCLUDED_WINDOWS = "windows"
# Members of a pending document that its encoding replaces, with the vectors of an earlier version.
_REPLACED_MEMBERS: Final = ("due_at", "error", "earlier", "dense", "dense_encoder", PIECES_FIELD)
PENDING, ENCODED, DEAD, DELETED = "pending", "encoded", "dead", "deleted"
VectorState = Literal["current", "earlier", "none"]
MAX_REASON_CHARACTERS = 2000
# Generations in one answer of `backlog_call`. Each has two buckets, and OpenSearch answers 65,535 (search.max_buckets).
MAX_GENERATIONS: Final = 30_000
# Generations with overdue documents that one pass of the sweeper sees.
MAX_SWEPT_GENERATIONS: Final = 10_000


@dataclass(frozen=True, slots=True)
class DenseOutcome:
    """Packed dense vectors of a document, or the error code of their encoding."""

    packed: str = ""
    error: str = ""


def raw_write(generation: Generation, document: Document, job: str, version: int, lease_seconds: float) -> Write:
    """Return the first write of a document: the client's members in the state pending."""
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


def encoded_write(
    generation: Generation,
    stored: StoredDocument,
    windows: Sequence[EncodedWindow],
    dense: DenseOutcome | None = None,
    chaptering: Chaptering | None = None,
    token: Callable[[int], str] | None = None,
) -> Write:
    """Return the write of a document with its vectors. A newer raw write wins over it in any order.

    `dense` is given if the generation declares a dense encoder; a document without dense vectors is searchable but not
    reranked. `chaptering` is given for talk. `token` returns the piece of a vocabulary id, if the index
    declares `piece_features`.
    """
    kept = {k: v for k, v in stored.source.items() if k not in _REPLACED_MEMBERS}
    source = kept | {
        "state": ENCODED,
        "encoder": generation.encoder.fingerprint,
        "encoded_at": now_ms(),
        "windows": [{"start": w.start, "end": w.end, "vector": w.vector.pack()} for w in windows],
    }
    if chaptering is not None:
        source |= chaptering.fields()
    if dense is not None and generation.dense is not None:
        if dense.error:
            source["dense_error"] = dense.error
        else:
            source |= {"dense": dense.packed, "dense_encoder": generation.dense.fingerprint}
    source |= piece_features(windows, generation.spec, token)
    version = encoded_version(client_version(stored.external))
    fields = partial(build_search_fields, windows, generation.spec, source)
    return Write(generation.write_alias, stored.id, version, source, fields)


def attempt_write(
    generation: Generation,
    stored: StoredDocument,
    attempts: int,
    lease_seconds: float,
    error: tuple[str, str] | None = None,
) -> Write:
    """Return the transition to `attempts` attempts, with a new lease.

    A worker writes it before an attempt if an earlier worker may have died, and after a transient failure (`error`:
    code and reason). One of two concurrent transitions is superseded.
    """
    source = stored.source | {"attempts": attempts, "due_at": now_ms() + int(lease_seconds * 1000)}
    if error is not None:
        source["error"] = {"code": error[0], "reason": error[1][:MAX_REASON_CHARACTERS]}
    return _transition(generation, stored, source)


def requeue_write(generation: Generation, stored: StoredDocument, lease_seconds: float) -> Write:
    """Return the transition of enqueueing again. It is not an attempt: perhaps no worker took the message before."""
    source = stored.source | {"due_at": now_ms() + int(lease_seconds * 1000)}
    return _transition(generation, stored, source)


def dead_write(generation: Generation, stored: StoredDocument, code: str, reason: str) -> Write:
    """Return the transition to a dead letter, with code and reason. Lexical search still finds the document.

    `dead_id` repeats the id for sorting: sorting by `_id` loads the ids of the whole index into memory.
    """
    source = {k: v for k, v in stored.source.items() if k != "due_at"} | {
        "state": DEAD,
        "dead_at": now_ms(),
        "dead_id": stored.id,
        "error": {"code": code, "reason": reason[:MAX_REASON_CHARACTERS]},
    }
    return _transition(generation, stored, source)


def retry_write(generation: Generation, stored: StoredDocument, lease_seconds: float) -> Write:
    """Return the transition of a dead document to pending, with as many attempts as a new document.

    `earlier` keeps the history until the document is encoded: retries, attempts of all earlier rounds, the last error
    and the time of death. Raises ValueError unless `may_be_retried`.
    """
    if not stored.may_be_retried:
        raise ValueError("too few transitions are left for a retry")
    earlier = stored.source.get("earlier", {})
    vectors = {"vectors": earlier["vectors"]} if "vectors" in earlier else {}
    kept = {k: v for k, v in stored.source.items() if k not in ("dead_at", "dead_id", "error")}
    source = kept | {
        "state": PENDING,
        "attempts": 0,
        "due_at": now_ms() + int(lease_seconds * 1000),
        "earlier": {
            "retries": earlier.get("retries", 0) + 1,
            "attempts": earlier.get("attempts", 0) + stored.attempts,
            "error": stored.source.get("error"),
            "dead_at": stored.source.get("dead_at"),
        }
        | vectors,
    }
    return _transition(generation, stored, source)


def _transition(generation: Generation, stored: StoredDocument, source: dict[str, Any]) -> Write:
    """Return the next write of the same raw document, with the search fields of its earlier vectors, if any."""
    fields = partial(build_stale_fields, source, generation.spec)
    return Write(generation.write_alias, stored.id, next_transition(stored.external), source, fields)


def tombstone_write(generation: Generation, document_id: str, version: int) -> Write:
    """Return the write of a tombstone: OpenSearch forgets the version of a deleted document after a minute."""
    source = {"state": DELETED, "version": version, "deleted_at": now_ms()}
    return Write(generation.alias, document_id, raw_version(version), source)


def get_document_call(alias: str, document_id: str, only: Sequence[str] = ()) -> Call:
    """Read one document in real time: the members `only`, or all members without vectors."""
    source_filter = {"_source_includes": ",".join(only)} if only else {"_source_excludes": _EXCLUDED_VECTORS}
    return Call("GET", f"/{alias}/_doc/{quote(document_id, safe='')}", params=source_filter)


def get_documents_call(index: str, ids: Sequence[str]) -> Call:
    """Read documents in real time: acknowledged writes are visible before a refresh."""
    return Call("POST", f"/{index}/_mget", orjson.dumps({"ids": list(ids)}), {"_source_excludes": _EXCLUDED_WINDOWS})


def read_stored_documents(answer: Mapping[str, Any]) -> list[StoredDocument]:
    """Read the existing documents from the answer to `get_documents_call`."""
    return [
        StoredDocument(document["_id"], document["_version"], document["_source"], document["_index"])
        for document in answer["docs"]
        if document.get("found")
    ]


def overdue_indexes_call(names: IndexNames, before: int) -> Call:
    """Count the pending documents with a lease that ended before `before` (milliseconds since 1970) by generation."""
    aggregation = {"terms": {"field": "_index", "size": MAX_SWEPT_GENERATIONS}}
    body = {"size": 0, "query": _overdue(before), "aggs": {"generations": aggregation}, "track_total_hits": False}
    # A shard that is away hides its documents until a later pass.
    params = {
        "filter_path": "aggregations.generations.buckets",
        "allow_no_indices": "true",
        "ignore_unavailable": "true",
        "allow_partial_search_results": "true",
    }
    return Call("POST", f"/{names.every_write_alias}/_search", orjson.dumps(body), params)


def read_counted_generations(answer: Mapping[str, Any]) -> set[str]:
    """Read the physical names of the generations from the answer to a count by generation."""
    buckets = answer.get("aggregations", {}).get("generations", {}).get("buckets", [])
    return {bucket["key"] for bucket in buckets}


def overdue_documents_call(physical: str, before: int, limit: int) -> Call:
    """Find pending documents whose lease expired before `before` (milliseconds since 1970), oldest first.

    The hits have the members that decide what to do with a document, without its text.
    """
    body = {
        "size": limit,
        "query": _overdue(before),
        "sort": [{"due_at": "asc"}],
        "version": True,
        "track_total_hits": False,
        "_source": ["state", "attempts", "error", "job", "kind"],
    }
    return Call("POST", f"/{physical}/_search", orjson.dumps(body), {"allow_partial_search_results": "false"})


def _overdue(before: int) -> dict[str, Any]:
    return {"bool": {"filter": [{"term": {"state": PENDING}}, {"range": {"due_at": {"lt": before}}}]}}


def read_stored_hits(answer: Mapping[str, Any]) -> list[StoredDocument]:
    """Read the documents from the answer to a search with versions."""
    return [StoredDocument(hit["_id"], hit["_version"], hit["_source"]) for hit in answer["hits"]["hits"]]


@dataclass(frozen=True, slots=True)
class BacklogCounts:
    """Counts of one generation. `oldest`: when the longest waiting pending document was ingested (ms since 1970)."""

    pending: int
    dead: int
    oldest: int | None


EMPTY_BACKLOG: Final = BacklogCounts(0, 0, None)


def backlog_call(names: IndexNames, seconds: float) -> Call:
    """Count pending documents and dead letters by generation. OpenSearch answers within `seconds` or not at all."""
    pending = {"term": {"state": PENDING}}
    body = {
        "size": 0,
        "query": {"terms": {"state": [PENDING, DEAD]}},
        "aggs": {
            "generations": {
                "terms": {"field": "_index", "size": MAX_GENERATIONS},
                "aggs": {"pending": {"filter": pending, "aggs": {"oldest": {"min": {"field": "ingested_at"}}}}},
            }
        },
    }
    params = {
        "filter_path": "_shards.failed,aggregations.generations.buckets,aggregations.generations.sum_other_doc_count",
        "allow_no_indices": "true",
        "ignore_unavailable": "true",
        "allow_partial_search_results": "false",
    }
    return Call("POST", f"/{names.every_write_alias}/_search", orjson.dumps(body), params, timeout=seconds)


def read_backlog(answer: Mapping[str, Any]) -> dict[str, BacklogCounts]:
    """Read the counts by physical name. A generation without pending documents and dead letters is absent.

    Raises BackendUnavailable (`too_many_generations`) when the answer leaves some out: they would seem to have none.
    """
    counts = {}
    generations = answer.get("aggregations", {}).get("generations", {})
    if generations.get("sum_other_doc_count"):
        raise BackendUnavailable(
            "too_many_generations", f"More than {MAX_GENERATIONS:,} generations have documents that wait or are dead."
        )
    for bucket in generations.get("buckets", []):
        pending = bucket["pending"]["doc_count"]
        oldest = bucket["pending"]["oldest"]["value"]
        counts[bucket["key"]] = BacklogCounts(
            pending, bucket["doc_count"] - pending, None if oldest is None else int(oldest)
        )
    return counts


@dataclass(frozen=True, slots=True)
class LostAnswerCheck:
    """Check of superseded raw writes and tombstones after a repeated bulk request whose first answer was lost.

    A superseded write was stored by the first request if the stored document has its version and its job. `alias` is
    the target of the writes; `verdicts` are in the same order. Send `call()`, then give its answer to `resolve`.
    """

    alias: str
    writes: Sequence[Write]
    verdicts: Sequence[Verdict]

    def call(self) -> Call | None:
        """Return the call that reads the documents of superseded writes in real time; None if there are none."""
        ids = [
            write.id
            for write, verdict in zip(self.writes, self.verdicts, strict=True)
            if verdict.outcome is WriteOutcome.SUPERSEDED
        ]
        if not ids:
            return None
        params = {"_source_includes": "version,job"}
        return Call("POST", f"/{self.alias}/_mget", orjson.dumps({"ids": ids}), params)

    def resolve(self, answer: Mapping[str, Any]) -> list[Verdict]:
        """Return the verdicts, with STORED for superseded writes that the answer to `call` contains."""
        stored_in = {
            (stored.id, *_write_identity(stored.source)): stored.physical for stored in read_stored_documents(answer)
        }
        return [
            Verdict(WriteOutcome.STORED, physical=stored_in[write.id, *_write_identity(write.source)])
            if verdict.outcome is WriteOutcome.SUPERSEDED and (write.id, *_write_identity(write.source)) in stored_in
            else verdict
            for write, verdict in zip(self.writes, self.verdicts, strict=True)
        ]


def _write_identity(source: Mapping[str, object]) -> tuple[object, object]:
    return source.get("version"), source.get("job")


def format_earlier_attempts(source: Mapping[str, Any]) -> dict[str, Any] | None:
    """Format the attempts of a stored document before its last retry for the API; None without a retry."""
    earlier = {name: value for name, value in source.get("earlier", {}).items() if name != "vectors"}
    return earlier | {"dead_at": format_timestamp(earlier.get("dead_at"))} if earlier else None


def vector_state(source: Mapping[str, Any]) -> VectorState:
    """Return which version of a stored document its vectors describe: this one, an earlier one, or none."""
    if source["state"] == ENCODED:
        return "current"
    return "earlier" if "vectors" in source.get("earlier", {}) else "none"
