"""One reindexing from its beginning to the swap, resumable at every step."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from indexer.reindex.follower import Dispatch, Follower
from indexer.reindex.swap import decide, finish
from services.errors import BackendUnavailable, Conflict, NotFound
from services.index_spec import Generation, Names
from services.opensearch.client import SyncSearch
from services.opensearch.generations import (
    block_call,
    count_call,
    create_call,
    delete_call,
    every_generation_call,
    index_not_found,
    read_counts,
    read_generation,
    read_generations,
    readmit_call,
    refresh_call,
    resolve_call,
    retire_call,
    unblock_call,
)
from services.opensearch.reindex_record import ReindexRecord, ReindexRecords
from services.settings import Settings

POLL_SECONDS = 0.5
# With writes that never stop something always waits for its vectors. So many more than in the old generation, for so
# long, are the messages that are on their way and no backlog.
ON_THE_WAY = 64
STEADY_SECONDS = 5.0
# APIs remember for two seconds which generation an alias points to (query_api/parts.py: REMEMBERED_SECONDS).
NOTICED_SECONDS = 2.5
# Documents that a reindexing lets wait for their vectors at once: a minute's work for two cores.
ENOUGH = 2_000


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the new generation is: documents carried, and counts by state in both."""

    carried: int
    behind: int
    old: dict[str, int]
    new: dict[str, int]


@dataclass
class _Watch:
    """Looks how far the new generation is, tells it, and notices when nothing moves."""

    work: "Reindexing"
    seconds: float
    tell: Callable[[Progress], None]
    _best: int = -1
    _since: float = field(default_factory=time.monotonic)
    _looked: float = 0.0

    def look(self, behind: int) -> Progress:
        """Raises BackendUnavailable (`reindex_stuck`)."""
        record = self.work.held
        progress = Progress(record.carried, behind, self.work.counts(record.source), self.work.counts(record.target))
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
        while self.look(0).new["pending"] > ENOUGH:
            time.sleep(POLL_SECONDS)


@dataclass
class Reindexing:
    """Commands on the reindexing of one index. `dispatch` asks for vectors of the record's target."""

    search: SyncSearch
    settings: Settings
    index: str
    record: ReindexRecord | None = None
    _records: ReindexRecords = field(init=False)
    _names: Names = field(init=False)

    def __post_init__(self) -> None:
        self._names = Names(self.settings.index_prefix)
        self._records = ReindexRecords(self.search, self.settings)

    def active(self) -> Generation:
        """The generation that is searched. Raises NotFound (`index_not_found`)."""
        try:
            return read_generation(self.search.send(resolve_call(self._names, self.index)), self.index)
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
            self.search.send(readmit_call(record.target))
            self.search.send(unblock_call(record.target))
            return
        if record.checkpoints and record.target.physical not in {one.physical for one in self.every_generation()}:
            record.checkpoints = {}  # somebody deleted it: everything is carried again
            self._records.save(record)
        try:
            self.search.send(create_call(record.target, self.settings, []))
        except Conflict:
            found = [one for one in self.every_generation() if one.physical == record.target.physical]
            if found != [record.target]:
                raise Conflict(
                    "already_exists",
                    f"OpenSearch has an index {record.target.physical!r} that is not this reindexing's: remove it.",
                ) from None

    def settle(self, follower: Follower, seconds: float, tell: Callable[[Progress], None]) -> Progress:
        """Follows until the new generation is no further behind than the old one.

        Raises BackendUnavailable (`reindex_stuck`) when nothing was encoded for `seconds`.
        """
        watch = _Watch(self, seconds, tell)
        near: float | None = None
        while True:
            behind = follower.catch_up(watch.pace)
            progress = watch.look(behind)
            more = progress.new["pending"] - progress.old["pending"]
            if behind <= ON_THE_WAY and more <= ON_THE_WAY:
                near = near or time.monotonic()
                if more <= 0 or time.monotonic() - near > STEADY_SECONDS:
                    return progress
            else:
                near = None
            time.sleep(POLL_SECONDS)

    def swap(self, follower: Follower) -> None:
        """Decides and finishes; when it returns, every API searches the new generation."""
        if self.held.step == "following":
            decide(follower)
        finish(follower)
        time.sleep(NOTICED_SECONDS)

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
            self.search.send(retire_call(back.source))
            self.search.send(block_call(back.source))
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
        return read_counts(self.search.send(count_call(generation.physical)))

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
            self.search.send(delete_call([unwanted]))
        self._records.forget(record)
        self.record = None

    def every_generation(self) -> list[Generation]:
        """All generations of the index by number, whatever they are for."""
        answer: Any = self.search.send(every_generation_call(self._names, self.index))
        return read_generations(answer)
