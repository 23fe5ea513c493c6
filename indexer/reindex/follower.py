"""Carries what changes in one generation to another, page by page, and remembers how far it is."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.errors import BackendUnavailable
from services.opensearch.bulk import Outcome, write
from services.opensearch.carrying import carried, waits
from services.opensearch.changes import NOTHING_YET, changes_call, read_changes, read_shards, shards_call
from services.opensearch.client import SyncSearch
from services.opensearch.generations import refresh_call
from services.opensearch.journal import Stored
from services.opensearch.reindex_record import ReindexRecord, ReindexRecords
from services.settings import Settings

# Documents of a page, texts and windows included: about this many bytes of text, judged by the page before.
PAGE_BYTES = 8 * 1024**2
LARGEST_PAGE = 1000
FIRST_PAGE = 64
KEPT_MISFITS = 20

# Asks for vectors of documents of the target: through the queue, or in this process.
Dispatch = Callable[[Sequence[str]], None]


@dataclass
class Follower:
    """Follows `record.source`. Every page is saved in the record once it is written; a page may be carried twice."""

    search: SyncSearch
    records: ReindexRecords
    settings: Settings
    record: ReindexRecord
    dispatch: Dispatch
    patience: float = 60.0
    _page: int = field(default=FIRST_PAGE, init=False)

    def catch_up(self, before_page: Callable[[], None] = lambda: None) -> int:
        """One pass up to what is final now; returns how many operations of the source it does not cover.

        Raises Conflict (`reindex_taken_over`), NotFound when a generation was deleted, BackendUnavailable.
        """
        source = self.record.source.physical
        shards = read_shards(self.search.send(shards_call(source)))
        behind = {
            number: state.safe
            for number, state in shards.items()
            if self.record.checkpoints.get(number, NOTHING_YET) < state.safe
        }
        if behind:
            self.search.send(refresh_call(source))
        for number, up_to in behind.items():
            self._follow(number, up_to, before_page)
        return sum(state.newest - self.record.checkpoints.get(number, NOTHING_YET) for number, state in shards.items())

    def _follow(self, shard: int, up_to: int, before_page: Callable[[], None]) -> None:
        source = self.record.source.physical
        while (after := self.record.checkpoints.get(shard, NOTHING_YET)) < up_to:
            before_page()
            asked = self._page
            page = read_changes(self.search.send(changes_call(source, shard, after, up_to, asked)))
            if page:
                self._carry([stored for _, stored in page])
            self.record.checkpoints[shard] = page[-1][0] if len(page) == asked else up_to
            self.records.save(self.record)

    def _carry(self, documents: Sequence[Stored]) -> None:
        record, settings = self.record, self.settings
        writes = [carried(record.source, record.target, stored, settings.lease_seconds) for stored in documents]
        size = sum(len(stored.source.get("text", "")) for stored in documents) // len(documents) + 1
        self._page = max(1, min(LARGEST_PAGE, PAGE_BYTES // size))
        verdicts = write(self.search, writes, settings.journal_bytes, self.patience)
        waiting = []
        for one, verdict in zip(writes, verdicts, strict=True):
            match verdict.outcome:
                case Outcome.NOT_STORED:
                    raise BackendUnavailable(
                        "not_stored", f"OpenSearch did not take every document in time ({verdict.reason})."
                    )
                case Outcome.REFUSED:
                    record.misfits += 1
                    if len(record.misfit_ids) < KEPT_MISFITS:
                        record.misfit_ids.append(one.id)
                case Outcome.STORED:
                    record.carried += 1
                    if waits(one):
                        waiting.append(one.id)
        if waiting:
            self.dispatch(waiting)

    def drain(self, seconds: float = 120.0) -> None:
        """Catches up with a source that is no longer written. Raises BackendUnavailable when it does not settle."""
        end = time.monotonic() + seconds
        while self.catch_up():
            if time.monotonic() > end:
                raise BackendUnavailable("reindex_unsettled", "The old generation does not come to rest.")
            time.sleep(0.1)
