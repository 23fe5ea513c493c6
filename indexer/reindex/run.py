"""The run of a reindexing, from its plan to the swap. It can be resumed at every step.

`Reindexing` has the steps of the command. `decide_swap` is the point of no return; every step of `finish_swap` may be
repeated, by the command or by the sweeper (`finish_abandoned_swaps`). A swap makes the old generation read-only,
copies the last writes and moves the alias. A write that meets the block is retried for longer than a swap takes
(`services.opensearch.bulk`) and reaches the new generation through the alias. The block is lifted only when a
generation was deleted by hand, and when a rollback begins (docs/decisions/0095).
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from indexer.reindex.follower import Dispatch, Follower, make_queue_dispatch
from services.dates import now_ms
from services.errors import BackendUnavailable, Conflict, InvalidInput, NotFound, SparsewellError
from services.index_spec import Generation, IndexNames
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import (
    block_writes_call,
    count_states_call,
    create_generation_call,
    delete_generations_call,
    generation_call,
    index_generations_call,
    index_not_found,
    reactivate_generation_call,
    read_generation,
    read_generations,
    read_state_counts,
    refresh_call,
    resolve_alias_call,
    retire_generation_call,
    swap_alias_call,
    unblock_writes_call,
)
from services.opensearch.languages import refused_language
from services.opensearch.reindex import ReindexRecord, ReindexRecords
from services.queue.messages import Publisher
from services.settings import Settings

log = logging.getLogger(__name__)

# A live command saves its record far more often. Writes wait during a swap, at most 30 s
# (SPARSEWELL_OPENSEARCH_TIMEOUT).
ABANDONED_SECONDS = 10.0
POLL_SECONDS = 0.5
# While writes continue, some documents are always pending. Up to this many more than in the old generation, for this
# long, are messages in flight and not a backlog.
MAX_IN_FLIGHT_DOCUMENTS = 64
MAX_CATCH_UP_SECONDS = 5.0
# API processes cache the target of an alias for 2 s (query_api/app_state.py: GENERATION_CACHE_SECONDS).
ALIAS_CACHE_SECONDS = 2.5
# The limit of pending documents during a reindexing: a minute's work for two cores.
MAX_PENDING_DOCUMENTS = 2_000


@dataclass(frozen=True, slots=True)
class ReindexProgress:
    """The progress of a reindexing: documents copied, operations behind, and counts by state in both generations."""

    copied: int
    behind: int
    old: dict[str, int]
    new: dict[str, int]


@dataclass
class Reindexing:
    """The reindexing of one index, with the steps of the commands on it."""

    search: SyncSearchClient
    settings: Settings
    index: str
    record: ReindexRecord | None = None
    _records: ReindexRecords = field(init=False)
    _names: IndexNames = field(init=False)

    def __post_init__(self) -> None:
        self._names = IndexNames(self.settings.index_prefix)
        self._records = ReindexRecords(self.search, self.settings)

    def active(self) -> Generation:
        """Return the active generation. Raises NotFound (`index_not_found`)."""
        try:
            return read_generation(self.search.send(resolve_alias_call(self._names, self.index)), self.index)
        except NotFound:
            raise index_not_found(self.index) from None

    def load(self) -> ReindexRecord | None:
        """Load the index's record. Remove the record of an index that was deleted since."""
        record = self._records.load(self.index)
        if record is not None:
            tokens = {generation.token for generation in self.every_generation()}
            if record.source.token not in tokens or (record.step != "following" and record.target.token not in tokens):
                self._records.forget(record)
                record = None
        self.record = record
        return record

    def next_number(self) -> int:
        """Return a number above the numbers of all existing generations."""
        return max((generation.number for generation in self.every_generation()), default=0) + 1

    def begin(self, source: Generation, target: Generation, *, convert: bool = False) -> ReindexRecord:
        """Record the plan. Raises Conflict (`reindex_exists`)."""
        self.record = ReindexRecord(index=self.index, source=source, target=target, convert=convert)
        self._records.begin(self.record)
        return self.record

    def begin_conversion(self) -> None:
        """Copy all documents again and convert values of fields whose type changes."""
        record = self.current_record
        record.convert, record.checkpoints, record.incompatible, record.incompatible_ids = True, {}, 0, []
        self._records.save(record)

    def follower(self, dispatch: Dispatch, retry_seconds: float) -> Follower:
        """Create the follower of the record. `dispatch` requests vectors for the target."""
        return Follower(self.search, self._records, self.settings, self.current_record, dispatch, retry_seconds)

    def make_target(self) -> None:
        """Create the new generation if it does not exist: it is written, but not searched.

        Raises Conflict (`already_exists`).
        """
        record = self.current_record
        if record.rollback:
            # Both calls may be repeated after a kill.
            self.search.send(reactivate_generation_call(record.target))
            self.search.send(unblock_writes_call(record.target))
            return
        if record.checkpoints and record.target.physical not in {
            generation.physical for generation in self.every_generation()
        }:
            record.checkpoints = {}  # The target was deleted by hand, so all documents are copied again.
            self._records.save(record)
        try:
            self.search.send(create_generation_call(record.target, self.settings, []))
        except Conflict:
            existing = [
                generation for generation in self.every_generation() if generation.physical == record.target.physical
            ]
            if existing != [record.target]:
                raise Conflict(
                    "already_exists",
                    f"OpenSearch has an index {record.target.physical!r} of another reindexing: remove it.",
                ) from None
        except InvalidInput as error:
            raise refused_language(error, record.target.spec.language) from None

    def follow_until_caught_up(
        self, follower: Follower, seconds: float, report: Callable[[ReindexProgress], None]
    ) -> ReindexProgress:
        """Follow until the new generation is no further behind than the old one. Return the last progress.

        It also ends after a pass that found incompatible documents, because no swap can follow. Raises
        BackendUnavailable (`reindex_stuck`) when no document was encoded for `seconds`.
        """
        monitor = _ProgressMonitor(self, seconds, report)
        near_since: float | None = None
        while True:
            behind = follower.catch_up(monitor.throttle)
            progress = monitor.check(behind)
            if follower.record.incompatible:
                return progress
            more = progress.new["pending"] - progress.old["pending"]
            if behind <= MAX_IN_FLIGHT_DOCUMENTS and more <= MAX_IN_FLIGHT_DOCUMENTS:
                near_since = near_since or time.monotonic()
                if more <= 0 or time.monotonic() - near_since > MAX_CATCH_UP_SECONDS:
                    return progress
            else:
                near_since = None
            time.sleep(POLL_SECONDS)

    def swap(self, follower: Follower) -> None:
        """Decide and finish the swap. When it returns, every API process searches the new generation."""
        if self.current_record.step == "following":
            decide_swap(follower)
        finish_swap(follower)
        time.sleep(ALIAS_CACHE_SECONDS)

    def abort(self) -> None:
        """Abort before the swap: delete the new generation, or retire it again when this is a rollback.

        Raises Conflict (`reindex_decided`).
        """
        record = self.current_record
        if record.step not in ("following", "dropping"):
            raise Conflict("reindex_decided", "The swap is decided: let it finish, then roll back.")
        if record.rollback:
            back = ReindexRecord(
                index=self.index, source=record.target, target=record.source, step="swapped",
                target_checkpoints=record.checkpoints, swapped_at=record.swapped_at, convert=record.convert,
            )  # fmt: skip
            self._records.save(back)
            self.record = back
            self.search.send(retire_generation_call(back.source))
            self.search.send(block_writes_call(back.source))
            return
        self._drop(record)

    def drop_old(self) -> None:
        """Delete the generation that is kept for a rollback. Raises Conflict (`reindex_unfinished`)."""
        record = self.current_record
        if record.step not in ("swapped", "dropping"):
            raise Conflict("reindex_unfinished", "The reindexing is not done; finish or abort it first.")
        self._drop(record)

    def roll_back(self, not_before: int) -> ReindexRecord:
        """Reverse the record, so that the changes since the swap are copied to the old generation.

        `not_before` (milliseconds since 1970): the earliest swap whose tombstones have not expired. Raises Conflict
        (`nothing_to_roll_back`, `rollback_too_old`).
        """
        record = self.current_record
        if record.rollback and record.step == "following":
            return record
        if record.step != "swapped" or record.swapped_at is None:
            raise Conflict("nothing_to_roll_back", "No earlier generation is kept.")
        if record.swapped_at < not_before:
            raise Conflict(
                "rollback_too_old",
                "Deletes since the swap have expired, so a rollback would restore deleted documents: reindex instead.",
            )
        back = ReindexRecord(
            index=self.index, source=record.target, target=record.source, rollback=True,
            checkpoints=record.target_checkpoints, swapped_at=record.swapped_at, covered_at=record.swapped_at,
            convert=True,  # documents written since the swap have values of the newer types
        )  # fmt: skip
        self._records.save(back)
        self.record = back
        return back

    def counts(self, generation: Generation) -> dict[str, int]:
        """Count a generation's documents by state, after a refresh."""
        self.search.send(refresh_call(generation.physical))
        return read_state_counts(self.search.send(count_states_call(generation.physical)))

    @property
    def current_record(self) -> ReindexRecord:
        """The record. Raises NotFound (`no_reindex`) when there is none."""
        if self.record is None:
            raise NotFound("no_reindex", f"There is no reindexing of {self.index!r}.")
        return self.record

    def _drop(self, record: ReindexRecord) -> None:
        """Delete the generation that is not searched, and the record."""
        record.step = "dropping"
        self._records.save(record)
        searched = self.active().physical
        unwanted = record.target if record.source.physical == searched else record.source
        with suppress(NotFound):
            self.search.send(delete_generations_call([unwanted]))
        self._records.forget(record)
        self.record = None

    def every_generation(self) -> list[Generation]:
        """Return all generations of the index, in order of their numbers."""
        answer: Any = self.search.send(index_generations_call(self._names, self.index))
        return read_generations(answer)


@dataclass
class _ProgressMonitor:
    """The monitor of a reindexing's progress. It reports the progress and detects a standstill of `seconds`."""

    reindexing: Reindexing
    seconds: float
    report: Callable[[ReindexProgress], None]
    _best: int = -1
    _best_at: float = field(default_factory=time.monotonic)
    _checked_at: float = 0.0

    def check(self, behind: int) -> ReindexProgress:
        """Read and report the progress. Raises BackendUnavailable (`reindex_stuck`)."""
        record = self.reindexing.current_record
        progress = ReindexProgress(
            record.copied, behind, self.reindexing.counts(record.source), self.reindexing.counts(record.target)
        )
        self.report(progress)
        self._checked_at = time.monotonic()
        done = sum(progress.new.values()) - progress.new["pending"] + progress.copied
        if done > self._best:
            self._best, self._best_at = done, time.monotonic()
        elif time.monotonic() - self._best_at > self.seconds:
            encoder = record.target.encoder.name
            raise BackendUnavailable(
                "reindex_stuck",
                f"No document was encoded for {self.seconds:.0f} s, and {progress.new['pending']:,} are pending: does "
                f"a worker run with the encoder {encoder} (sparsewell worker --encoder ...)? Or use --encode-here. "
                "The same command continues from here.",
            )
        return progress

    def throttle(self) -> None:
        """Wait while many documents are pending, so that new documents do not wait behind all old ones."""
        if time.monotonic() - self._checked_at < POLL_SECONDS:
            return
        while self.check(0).new["pending"] > MAX_PENDING_DOCUMENTS:
            time.sleep(POLL_SECONDS)


def decide_swap(follower: Follower) -> None:
    """Decide the swap, which cannot be undone. Raises Conflict (`reindex_taken_over`) when the record has changed."""
    record = follower.record
    shards = follower.shards(record.target.physical)
    record.target_checkpoints = {number: state.safe for number, state in shards.items()}
    record.step = "swapping"
    follower.records.save(record)


def finish_swap(follower: Follower) -> None:
    """Continue a decided swap to its end. The alias then points to the target, which has all documents.

    Raises NotFound (`generation_replaced`), BackendUnavailable (`block_not_acknowledged`) and as `Follower.drain`.
    """
    record, records, search = follower.record, follower.records, follower.search
    if record.step == "swapping":
        require_same_generations(search, record)
        blocked = search.send(block_writes_call(record.source))
        # For an index that is already blocked, OpenSearch lists no indices and confirms no shards.
        if not blocked["acknowledged"] or (blocked["indices"] and not blocked["shards_acknowledged"]):
            raise BackendUnavailable(
                "block_not_acknowledged", "The old generation could not be made read-only in time."
            )
        follower.drain()
        search.send(swap_alias_call(record.source, record.target))
        record.step, record.swapped_at = "swapped", now_ms()
        records.save(record)


def require_same_generations(search: SyncSearchClient, record: ReindexRecord) -> None:
    """Raise NotFound (`generation_replaced`) unless both generations of the record still exist.

    An index may have been deleted and created again under the same names; its tokens then differ.
    """
    names = f"{record.source.physical},{record.target.physical}"
    call = Call(
        "GET", f"/{names}/_mapping", params={"filter_path": "*.mappings._meta.sparsewell", "ignore_unavailable": "true"}
    )
    tokens = {generation.token for generation in read_generations(search.send(call))}
    if tokens != {record.source.token, record.target.token}:
        raise NotFound("generation_replaced", f"The index {record.index!r} was deleted, or one of its generations was.")


def finish_abandoned_swaps(search: SyncSearchClient, publisher: Publisher, settings: Settings) -> int:
    """Take over and finish every swap whose command died. Return the number of finished swaps."""
    records = ReindexRecords(search, settings)
    finished = 0
    for record in records.unfinished(now_ms() - int(ABANDONED_SECONDS * 1000)):
        try:
            records.save(record)
            finish_swap(
                Follower(search, records, settings, record, make_queue_dispatch(publisher, settings, record.target))
            )
        except Conflict as error:
            log.info("%s", error)  # The command lives, or another sweeper was faster.
        except NotFound as error:
            log.warning("the swap of %r is abandoned: %s", record.index, error)
            _release_source(search, record)
            records.forget(record)
        except SparsewellError as error:
            log.warning("the swap of %r is not finished: %s", record.index, error)
        else:
            log.warning("finished the swap of %r, whose command had died", record.index)
            finished += 1
    return finished


def _release_source(search: SyncSearchClient, record: ReindexRecord) -> None:
    """Make the old generation writable again, if it still exists: no other will replace it."""
    with suppress(NotFound):
        (source,) = read_generations(search.send(generation_call(record.source.physical)))
        if source.token == record.source.token:
            search.send(unblock_writes_call(record.source))
