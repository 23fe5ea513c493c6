"""The copy of changes from one generation to another.

`Follower` reads the operations of each shard of the source in order of their sequence numbers, up to the global
checkpoint, and writes the documents to the target. It saves its checkpoints after each page (docs/decisions/0095). A
`Dispatch` requests the vectors of new documents, from the workers of an encoder or from this process.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from indexer.encode_task import run_encode
from indexer.runtime import Runtime
from services.dates import days_ms, now_ms
from services.errors import BackendUnavailable, Conflict, InvalidInput, Overloaded
from services.index_spec import Generation
from services.opensearch.bulk import Write, WriteOutcome, write_bulk
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import refresh_call
from services.opensearch.journal import read_stored_documents
from services.opensearch.reindex import (
    NO_OPERATIONS,
    ReindexRecord,
    ReindexRecords,
    ShardState,
    changes_call,
    copy_write,
    fit_stored_document,
    incompatible_write,
    is_pending_write,
    read_changes,
    read_shard_count,
    read_shard_states,
    shard_count_call,
    shard_states_call,
)
from services.opensearch.stored_document import StoredDocument, stored_size
from services.opensearch.vector_reuse import (
    reuse_vectors,
    split_by_stored_version,
    stored_states_call,
    stored_versions_call,
)
from services.queue.messages import EncodeMessage, Publisher, encode_messages
from services.settings import Settings

log = logging.getLogger(__name__)

# The documents of a page, estimated from the page before.
MAX_PAGE_BYTES = 8 * 1024**2
MAX_PAGE_DOCUMENTS = 128
FIRST_PAGE_DOCUMENTS = 64
MAX_RECORDED_INCOMPATIBLE = 20

# Requests the vectors of documents of the target, by their ids.
Dispatch = Callable[[Sequence[str]], None]


@dataclass
class Follower:
    """A follower of the changes in `record.source`.

    It saves the record after each page. A page may be copied twice, which changes nothing.
    """

    search: SyncSearchClient
    records: ReindexRecords
    settings: Settings
    record: ReindexRecord
    dispatch: Dispatch
    retry_seconds: float = 60.0
    reasons: dict[str, str] = field(default_factory=dict, init=False)  # of the first incompatible documents
    _page: int = field(default=FIRST_PAGE_DOCUMENTS, init=False)

    def catch_up(self, before_page: Callable[[], None] = lambda: None) -> int:
        """Copy all operations up to the current global checkpoints. Return the number of operations behind.

        `before_page` is called before each page. Raises Conflict (`reindex_taken_over`, `reindex_too_old`), NotFound
        when a generation was deleted, BackendUnavailable.
        """
        source = self.record.source.physical
        began = now_ms()
        self._require_fresh(began)
        shards = self.shards(source)
        behind = {
            number: state.safe
            for number, state in shards.items()
            if self.record.checkpoints.get(number, NO_OPERATIONS) < state.safe
        }
        if behind:
            self.search.send(refresh_call(source))
        for number, up_to in behind.items():
            self._follow(number, up_to, before_page)
        self.record.covered_at = began
        return sum(
            state.newest - self.record.checkpoints.get(number, NO_OPERATIONS) for number, state in shards.items()
        )

    def shards(self, physical: str) -> dict[int, ShardState]:
        """Return the state of every shard of a generation. Raises BackendUnavailable (`shard_unavailable`)."""
        count = read_shard_count(self.search.send(shard_count_call(physical)))
        return read_shard_states(self.search.send(shard_states_call(physical)), count)

    def _require_fresh(self, now: int) -> None:
        """Raise Conflict (`reindex_too_old`) when tombstones may have expired since the last pass.

        The target would keep the deleted documents.
        """
        window = days_ms(self.settings.tombstone_days)
        if self.record.step == "following" and now - self.record.covered_at > window:
            raise Conflict(
                "reindex_too_old",
                f"Generation {self.record.source.number} was last read longer ago than deletes are kept "
                "(SPARSEWELL_TOMBSTONE_DAYS): abort the reindexing with `sparsewell generations abort "
                f"{self.record.index}` and begin anew.",
            )

    def _follow(self, shard: int, up_to: int, before_page: Callable[[], None]) -> None:
        source = self.record.source.physical
        while (after := self.record.checkpoints.get(shard, NO_OPERATIONS)) < up_to:
            before_page()
            size = self._page
            page = read_changes(self.search.send(changes_call(source, shard, after, up_to, size)))
            if page:
                self._copy([stored for _, stored in page])
            self.record.checkpoints[shard] = page[-1][0] if len(page) == size else up_to
            self.records.save(self.record)

    def _copy(self, documents: Sequence[StoredDocument]) -> None:
        record, settings = self.record, self.settings
        size = sum(stored_size(stored.source) for stored in documents) // len(documents) + 1
        self._page = max(1, min(MAX_PAGE_DOCUMENTS, MAX_PAGE_BYTES // size))
        documents = self._fit(documents)
        writes = [copy_write(record.source, record.target, stored, settings.lease_seconds) for stored in documents]
        writes = self._reuse_vectors(writes)
        verdicts = write_bulk(self.search, writes, settings.journal_bytes, self.retry_seconds)
        pending = []
        for stored, write, verdict in zip(documents, writes, verdicts, strict=True):
            match verdict.outcome:
                case WriteOutcome.NOT_STORED:
                    raise BackendUnavailable(
                        "not_stored", f"OpenSearch did not store every document in time ({verdict.reason})."
                    )
                case WriteOutcome.REFUSED:
                    self._refuse(stored, f"OpenSearch refuses it ({verdict.reason}).")
                case WriteOutcome.STORED:
                    record.copied += 1
                    if is_pending_write(write):
                        pending.append(write.id)
        if pending:
            self.dispatch(pending)

    def _reuse_vectors(self, writes: list[Write]) -> list[Write]:
        """Give documents that wait for their encoder the vectors of the version before, if the target has them.

        Search by meaning goes on finding documents that are written again just before the swap.
        """
        target = self.record.target
        waiting = [write.id for write in writes if is_pending_write(write) and "earlier" not in write.source]
        states = self._stored_in_target(stored_states_call(target, waiting)) if waiting else {}
        _, ids = split_by_stored_version(waiting, states)
        if not ids:
            return writes
        stored = self._stored_in_target(stored_versions_call(target, ids))
        return [
            reuse_vectors(target, write, stored[write.id]).write if write.id in stored else write for write in writes
        ]

    def _stored_in_target(self, call: Call) -> dict[str, StoredDocument]:
        return {stored.id: stored for stored in read_stored_documents(self.search.send(call))}

    def _fit(self, documents: Sequence[StoredDocument]) -> list[StoredDocument]:
        """Return the documents that fit the declaration of the target, and record the others."""
        fitting = []
        record = self.record
        for stored in documents:
            try:
                fitting.append(fit_stored_document(record.source, record.target, stored, convert=record.convert))
            except InvalidInput as error:
                self._refuse(stored, error.detail)
        return fitting

    def _refuse(self, stored: StoredDocument, reason: str) -> None:
        """Record a document that does not fit the target. During a swap it becomes a dead letter of the target."""
        record = self.record
        record.incompatible += 1
        if len(record.incompatible_ids) < MAX_RECORDED_INCOMPATIBLE:
            record.incompatible_ids.append(stored.id)
            self.reasons[stored.id] = reason
        if record.step == "swapping":
            self._write_dead(incompatible_write(record.source, record.target, stored))

    def _write_dead(self, write: Write) -> None:
        (verdict,) = write_bulk(self.search, [write], self.settings.journal_bytes, self.retry_seconds)
        if verdict.outcome not in (WriteOutcome.STORED, WriteOutcome.SUPERSEDED):
            raise BackendUnavailable("not_stored", f"OpenSearch did not store {write.id!r} ({verdict.reason}).")

    def drain(self, seconds: float = 120.0) -> None:
        """Catch up with a source that is read-only. Raises BackendUnavailable (`reindex_unsettled`) after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.catch_up() > 0:
            if time.monotonic() > deadline:
                raise BackendUnavailable(
                    "reindex_unsettled", f"The old generation still changes after {seconds:.0f} s of a write block."
                )
            time.sleep(0.1)


def build_encode_messages(settings: Settings, target: Generation, ids: Sequence[str]) -> list[EncodeMessage]:
    """Build the messages that request the encoding of documents of one generation."""
    return encode_messages(target.index, ids, settings.message_documents, target.number)


def make_queue_dispatch(publisher: Publisher, settings: Settings, target: Generation) -> Dispatch:
    """Return a dispatch to the workers of the target's encoder.

    While Redis is unavailable or full, the sweeper enqueues the documents when their leases end.
    """

    def dispatch(ids: Sequence[str]) -> None:
        try:
            for message in build_encode_messages(settings, target, ids):
                publisher.encode(target.encoder.name, message)
        except (BackendUnavailable, Overloaded) as error:
            log.warning("%s: the sweeper will enqueue the pending documents", error.code)

    return dispatch


def make_local_dispatch(runtime: Runtime, target: Generation) -> Dispatch:
    """Return a dispatch that encodes in this process, as a worker does. Failed documents stay pending or are dead."""

    def dispatch(ids: Sequence[str]) -> None:
        for message in build_encode_messages(runtime.settings, target, ids):
            run_encode(runtime, message, redelivered=False)

    return dispatch
