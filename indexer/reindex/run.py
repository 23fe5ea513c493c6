"""One reindexing from its beginning to the swap, resumable at every step.

From the decision to swap to the end: each step may be done twice, and by whoever finds it undone.

The old generation is made read-only, what was written to it last is carried, then the alias is swapped. A write that
meets the block is sent again by whoever sends it (`services.opensearch.bulk`), for longer than this takes, and the
alias leads it to the new generation; OpenSearch's answer says so, and the sender asks the new encoder for its vectors.
The block is not lifted again: after the decision it only goes forward (but for a target that somebody deleted by hand,
see `rescue`).

Finishes swaps whose command died between the decision and the end. Called by the sweeper.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from indexer.reindex.follower import Dispatch, Follower, make_queue_dispatch
from services.errors import BackendUnavailable, Conflict, NotFound, SparsewellError
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
from services.opensearch.journal import now_ms
from services.opensearch.reindex import ReindexRecord, ReindexRecords
from services.queue.messages import Publisher
from services.settings import Settings


def decide_swap(follower: Follower) -> None:
    """The point of no return. Raises Conflict (`reindex_taken_over`) when somebody else decided something."""
    record = follower.record
    shards = follower.shards(record.target.physical)
    record.target_checkpoints = {number: state.safe for number, state in shards.items()}
    record.step = "swapping"
    follower.records.save(record)


def finish_swap(follower: Follower) -> None:
    """Goes on from wherever a decided swap is; at the end the source is retired and the target has everything."""
    record, records, search = follower.record, follower.records, follower.search
    if record.step == "swapping":
        require_same_generations(search, record)
        blocked = search.send(block_writes_call(record.source))
        # (of an index that was blocked before OpenSearch lists nothing and confirms nothing)
        if not blocked["acknowledged"] or (blocked["indices"] and not blocked["shards_acknowledged"]):
            raise BackendUnavailable(
                "block_not_acknowledged", "The old generation could not be made read-only in time."
            )
        follower.drain()
        search.send(swap_alias_call(record.source, record.target))
        record.step, record.swapped_at = "swapped", now_ms()
        records.save(record)


def require_same_generations(search: SyncSearchClient, record: ReindexRecord) -> None:
    """Raises NotFound (`generation_replaced`) unless both generations are still the very ones of the record.

    An index may have been deleted and made again under the same names.
    """
    names = f"{record.source.physical},{record.target.physical}"
    call = Call(
        "GET", f"/{names}/_mapping", params={"filter_path": "*.mappings._meta.sparsewell", "ignore_unavailable": "true"}
    )
    if {one.token for one in read_generations(search.send(call))} != {record.source.token, record.target.token}:
        raise NotFound("generation_replaced", f"The index {record.index!r} was deleted, or one of its generations was.")


log = logging.getLogger(__name__)

# A command that works on a swap saves its record far more often than this. Writes wait meanwhile, for 30 s at most
# (SPARSEWELL_OPENSEARCH_TIMEOUT).
ABANDONED_SECONDS = 10.0


def finish_abandoned_swaps(search: SyncSearchClient, publisher: Publisher, settings: Settings) -> int:
    """Takes over and finishes every swap that nobody has touched for a while; how many it finished."""
    records = ReindexRecords(search, settings)
    done = 0
    for record in records.unfinished(now_ms() - int(ABANDONED_SECONDS * 1000)):
        try:
            records.save(record)
            finish_swap(
                Follower(search, records, settings, record, make_queue_dispatch(publisher, settings, record.target))
            )
        except Conflict as error:
            log.info("%s", error)  # the command lives, or another sweeper was faster
        except NotFound as error:
            log.warning("the swap of %r is given up: %s", record.index, error)
            _release_source(search, record)
            records.forget(record)
        except SparsewellError as error:
            log.warning("the swap of %r is not finished: %s", record.index, error)
        else:
            log.warning("finished the swap of %r, whose command had ended half-way", record.index)
            done += 1
    return done


def _release_source(search: SyncSearchClient, record: ReindexRecord) -> None:
    """The old generation is written again, if it is still there: nothing will replace it."""
    with suppress(NotFound):
        (found,) = read_generations(search.send(generation_call(record.source.physical)))
        if found.token == record.source.token:
            search.send(unblock_writes_call(record.source))


POLL_SECONDS = 0.5
# With writes that never stop something always waits for its vectors. So many more than in the old generation, for so
# long, are the messages that are on their way and no backlog.
MAX_IN_FLIGHT_DOCUMENTS = 64
MAX_SETTLE_SECONDS = 5.0
# APIs remember for two seconds which generation an alias points to (query_api/app_state.py: REMEMBERED_SECONDS).
ALIAS_CACHE_SECONDS = 2.5
# Documents that a reindexing lets wait for their vectors at once: a minute's work for two cores.
MAX_PENDING_DOCUMENTS = 2_000


@dataclass(frozen=True, slots=True)
class ReindexProgress:
    """How far the new generation is: documents carried, and counts by state in both."""

    carried: int
    behind: int
    old: dict[str, int]
    new: dict[str, int]


@dataclass
class _ProgressMonitor:
    """Looks how far the new generation is, tells it, and notices when nothing moves."""

    work: "Reindexing"
    seconds: float
    tell: Callable[[ReindexProgress], None]
    _best: int = -1
    _since: float = field(default_factory=time.monotonic)
    _looked: float = 0.0

    def look(self, behind: int) -> ReindexProgress:
        """Raises BackendUnavailable (`reindex_stuck`)."""
        record = self.work.held
        progress = ReindexProgress(
            record.carried, behind, self.work.counts(record.source), self.work.counts(record.target)
        )
        self.tell(progress)
        self._looked = time.monotonic()
        done = sum(progress.new.values()) - progress.new["pending"] + progress.carried
        if done > self._best:
            self._best, self._since = done, time.monotonic()
        elif time.monotonic() - self._since > self.seconds:
            encoder = record.target.encoder.name
            raise BackendUnavailable(
                "reindex_stuck",
                f"Nothing was encoded for {self.seconds:.0f} s and {progress.new['pending']:,} documents wait: does a "
                f"worker run with the encoder {encoder} (sparsewell worker --encoder ...)? Or use --encode-here. The "
                "same command goes on from here.",
            )
        return progress

    def pace(self) -> None:
        """Before a page: waits while workers have enough to do; new documents shall not wait behind all old ones."""
        if time.monotonic() - self._looked < POLL_SECONDS:
            return
        while self.look(0).new["pending"] > MAX_PENDING_DOCUMENTS:
            time.sleep(POLL_SECONDS)


@dataclass
class Reindexing:
    """Commands on the reindexing of one index. `dispatch` asks for vectors of the record's target."""

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
        """The generation that is searched. Raises NotFound (`index_not_found`)."""
        try:
            return read_generation(self.search.send(resolve_alias_call(self._names, self.index)), self.index)
        except NotFound:
            raise index_not_found(self.index) from None

    def load(self) -> ReindexRecord | None:
        """The index's record; one of an index that was deleted since is removed."""
        record = self._records.load(self.index)
        if record is not None:
            known = {one.token for one in self.every_generation()}
            if record.source.token not in known or (record.step != "following" and record.target.token not in known):
                self._records.forget(record)
                record = None
        self.record = record
        return record

    def next_number(self) -> int:
        """A generation number that was never used, as far as one can see."""
        return max((one.number for one in self.every_generation()), default=0) + 1

    def begin(self, source: Generation, target: Generation) -> ReindexRecord:
        """Records the plan. Raises Conflict (`reindex_exists`)."""
        self.record = ReindexRecord(index=self.index, source=source, target=target)
        self._records.begin(self.record)
        return self.record

    def follower(self, dispatch: Dispatch, patience: float) -> Follower:
        """Carries documents for the record."""
        return Follower(self.search, self._records, self.settings, self.held, dispatch, patience)

    def make_target(self) -> None:
        """The new generation, if it is not there yet: written to, not searched."""
        record = self.held
        if record.rollback:
            # Whether it was done before a kill or not: both calls may be repeated.
            self.search.send(reactivate_generation_call(record.target))
            self.search.send(unblock_writes_call(record.target))
            return
        if record.checkpoints and record.target.physical not in {one.physical for one in self.every_generation()}:
            record.checkpoints = {}  # somebody deleted it: everything is carried again
            self._records.save(record)
        try:
            self.search.send(create_generation_call(record.target, self.settings, []))
        except Conflict:
            found = [one for one in self.every_generation() if one.physical == record.target.physical]
            if found != [record.target]:
                raise Conflict(
                    "already_exists",
                    f"OpenSearch has an index {record.target.physical!r} that is not this reindexing's: remove it.",
                ) from None

    def settle(self, follower: Follower, seconds: float, tell: Callable[[ReindexProgress], None]) -> ReindexProgress:
        """Follows until the new generation is no further behind than the old one.

        Raises BackendUnavailable (`reindex_stuck`) when nothing was encoded for `seconds`.
        """
        watch = _ProgressMonitor(self, seconds, tell)
        near: float | None = None
        while True:
            behind = follower.catch_up(watch.pace)
            progress = watch.look(behind)
            more = progress.new["pending"] - progress.old["pending"]
            if behind <= MAX_IN_FLIGHT_DOCUMENTS and more <= MAX_IN_FLIGHT_DOCUMENTS:
                near = near or time.monotonic()
                if more <= 0 or time.monotonic() - near > MAX_SETTLE_SECONDS:
                    return progress
            else:
                near = None
            time.sleep(POLL_SECONDS)

    def swap(self, follower: Follower) -> None:
        """Decides and finishes; when it returns, every API searches the new generation."""
        if self.held.step == "following":
            decide_swap(follower)
        finish_swap(follower)
        time.sleep(ALIAS_CACHE_SECONDS)

    def abort(self) -> None:
        """Gives up before the swap: the new generation is deleted, or retired again when it was a rollback's."""
        record = self.held
        if record.step not in ("following", "dropping"):
            raise Conflict("reindex_decided", "The swap has been decided: let it finish, then roll back.")
        if record.rollback:
            back = ReindexRecord(
                index=self.index, source=record.target, target=record.source, step="swapped",
                target_checkpoints=record.checkpoints, swapped_at=record.swapped_at,
            )  # fmt: skip
            self._records.save(back)
            self.record = back
            self.search.send(retire_generation_call(back.source))
            self.search.send(block_writes_call(back.source))
            return
        self._drop(record)

    def drop_old(self) -> None:
        """Deletes the generation that was kept for a rollback."""
        record = self.held
        if record.step not in ("swapped", "dropping"):
            raise Conflict("reindex_unfinished", "The reindexing is not done; finish or abort it first.")
        self._drop(record)

    def roll_back(self, not_before: int) -> ReindexRecord:
        """Turns the record round: what came since the swap is carried to the old generation.

        `not_before` (milliseconds since 1970): a swap before it is too old, because tombstones have expired since
        (`rollback_too_old`).
        """
        record = self.held
        if record.rollback and record.step == "following":
            return record
        if record.step != "swapped" or record.swapped_at is None:
            raise Conflict("nothing_to_roll_back", "No generation is kept that one could go back to.")
        if record.swapped_at < not_before:
            raise Conflict(
                "rollback_too_old",
                "Deletes since the swap have expired, so the old generation would bring deleted documents back: "
                "reindex instead.",
            )
        back = ReindexRecord(
            index=self.index, source=record.target, target=record.source, rollback=True,
            checkpoints=record.target_checkpoints, swapped_at=record.swapped_at, covered_at=record.swapped_at,
        )  # fmt: skip
        self._records.save(back)
        self.record = back
        return back

    def counts(self, generation: Generation) -> dict[str, int]:
        """Documents by state, what was just written included."""
        self.search.send(refresh_call(generation.physical))
        return read_state_counts(self.search.send(count_states_call(generation.physical)))

    @property
    def held(self) -> ReindexRecord:
        """The record. Raises NotFound (`no_reindex`) when there is none."""
        if self.record is None:
            raise NotFound("no_reindex", f"There is no reindexing of {self.index!r}.")
        return self.record

    def _drop(self, record: ReindexRecord) -> None:
        """Deletes the one of the two that is not searched, and the record."""
        record.step = "dropping"
        self._records.save(record)
        searched = self.active().physical
        unwanted = record.target if record.source.physical == searched else record.source
        with suppress(NotFound):
            self.search.send(delete_generations_call([unwanted]))
        self._records.forget(record)
        self.record = None

    def every_generation(self) -> list[Generation]:
        """All generations of the index by number, whatever they are for."""
        answer: Any = self.search.send(index_generations_call(self._names, self.index))
        return read_generations(answer)
