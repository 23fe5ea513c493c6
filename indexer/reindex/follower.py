"""Carries what changes in one generation to another, page by page, and remembers how far it is.

Two ways to ask for vectors of a new generation's documents: its encoder's workers, or this very process.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from indexer.encode_task import run_encode
from indexer.runtime import Runtime
from services.errors import BackendUnavailable, Conflict, Overloaded
from services.index_spec import Generation
from services.opensearch.bulk import Write, WriteOutcome, write_bulk
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import refresh_call
from services.opensearch.journal import StoredDocument, days_ms, now_ms
from services.opensearch.reindex import (
    NO_OPERATIONS,
    ReindexRecord,
    ReindexRecords,
    ShardState,
    carry_write,
    changes_call,
    is_pending_write,
    misfit_write,
    read_changes,
    read_shard_count,
    read_shard_states,
    shard_count_call,
    shard_states_call,
)
from services.queue.messages import EncodeMessage, Publisher, encode_messages
from services.settings import Settings

# Documents of a page, texts and windows included: about this many bytes of text, judged by the page before.
MAX_PAGE_BYTES = 8 * 1024**2
MAX_PAGE_DOCUMENTS = 128
FIRST_PAGE_DOCUMENTS = 64
MAX_RECORDED_MISFITS = 20

# Asks for vectors of documents of the target: through the queue, or in this process.
Dispatch = Callable[[Sequence[str]], None]


@dataclass
class Follower:
    """Follows `record.source`. Every page is saved in the record once it is written; a page may be carried twice."""

    search: SyncSearchClient
    records: ReindexRecords
    settings: Settings
    record: ReindexRecord
    dispatch: Dispatch
    patience: float = 60.0
    _page: int = field(default=FIRST_PAGE_DOCUMENTS, init=False)

    def catch_up(self, before_page: Callable[[], None] = lambda: None) -> int:
        """One pass up to what is final now; returns how many operations of the source it does not cover.

        Raises Conflict (`reindex_taken_over`), NotFound when a generation was deleted, BackendUnavailable.
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
        """How far every shard of a generation is. Raises BackendUnavailable (`shard_unavailable`)."""
        count = read_shard_count(self.search.send(shard_count_call(physical)))
        return read_shard_states(self.search.send(shard_states_call(physical)), count)

    def _require_fresh(self, now: int) -> None:
        """A delete that expired since the last pass cannot be seen any more: the target would keep the document."""
        window = days_ms(self.settings.tombstone_days)
        if self.record.step == "following" and now - self.record.covered_at > window:
            raise Conflict(
                "reindex_too_old",
                f"The last look at generation {self.record.source.number} is longer ago than deletes are kept "
                "(SPARSEWELL_TOMBSTONE_DAYS): give it up with `sparsewell generations abort "
                f"{self.record.index}` and begin anew.",
            )

    def _follow(self, shard: int, up_to: int, before_page: Callable[[], None]) -> None:
        source = self.record.source.physical
        while (after := self.record.checkpoints.get(shard, NO_OPERATIONS)) < up_to:
            before_page()
            asked = self._page
            page = read_changes(self.search.send(changes_call(source, shard, after, up_to, asked)))
            if page:
                self._carry([stored for _, stored in page])
            self.record.checkpoints[shard] = page[-1][0] if len(page) == asked else up_to
            self.records.save(self.record)

    def _carry(self, documents: Sequence[StoredDocument]) -> None:
        record, settings = self.record, self.settings
        writes = [carry_write(record.source, record.target, stored, settings.lease_seconds) for stored in documents]
        size = sum(len(stored.source.get("text", "")) for stored in documents) // len(documents) + 1
        self._page = max(1, min(MAX_PAGE_DOCUMENTS, MAX_PAGE_BYTES // size))
        verdicts = write_bulk(self.search, writes, settings.journal_bytes, self.patience)
        waiting = []
        for stored, one, verdict in zip(documents, writes, verdicts, strict=True):
            match verdict.outcome:
                case WriteOutcome.NOT_STORED:
                    raise BackendUnavailable(
                        "not_stored", f"OpenSearch did not take every document in time ({verdict.reason})."
                    )
                case WriteOutcome.REFUSED:
                    record.misfits += 1
                    if len(record.misfit_ids) < MAX_RECORDED_MISFITS:
                        record.misfit_ids.append(one.id)
                    if record.step == "swapping":
                        self._bury(misfit_write(record.source, record.target, stored))
                case WriteOutcome.STORED:
                    record.carried += 1
                    if is_pending_write(one):
                        waiting.append(one.id)
        if waiting:
            self.dispatch(waiting)

    def _bury(self, dead: Write) -> None:
        (verdict,) = write_bulk(self.search, [dead], self.settings.journal_bytes, self.patience)
        if verdict.outcome not in (WriteOutcome.STORED, WriteOutcome.SUPERSEDED):
            raise BackendUnavailable("not_stored", f"OpenSearch did not take {dead.id!r} ({verdict.reason}).")

    def drain(self, seconds: float = 120.0) -> None:
        """Catches up with a source that is no longer written. Raises BackendUnavailable when it does not settle."""
        end = time.monotonic() + seconds
        while self.catch_up() > 0:
            if time.monotonic() > end:
                raise BackendUnavailable("reindex_unsettled", "The old generation does not come to rest.")
            time.sleep(0.1)


log = logging.getLogger(__name__)


def build_encode_messages(settings: Settings, target: Generation, ids: Sequence[str]) -> list[EncodeMessage]:
    """Messages for documents of one generation."""
    return encode_messages(target.index, ids, settings.message_documents, target.number)


def make_queue_dispatch(publisher: Publisher, settings: Settings, target: Generation) -> Dispatch:
    """Asks the workers that hold the target's encoder.

    While Redis is away or full the sweeper does, when leases run out.
    """

    def dispatch(ids: Sequence[str]) -> None:
        try:
            for message in build_encode_messages(settings, target, ids):
                publisher.encode(target.encoder.name, message)
        except (BackendUnavailable, Overloaded) as error:
            log.warning("%s: the sweeper will enqueue what stays pending", error.code)

    return dispatch


def make_local_dispatch(runtime: Runtime, target: Generation) -> Dispatch:
    """Encodes in this process, as a worker would; what fails stays pending, or dead with a reason."""

    def dispatch(ids: Sequence[str]) -> None:
        for message in build_encode_messages(runtime.settings, target, ids):
            run_encode(runtime, message, redelivered=False)

    return dispatch
