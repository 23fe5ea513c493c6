"""Removes tombstones and job records whose time is over: page by page, some seconds of each pass.

It may run twice: of two that remove the same document one finds it gone. A document that came back is never removed,
because a delete names the very write that was found. See docs/decisions/0090.
"""

import time
from collections import Counter
from dataclasses import dataclass

from services.errors import NotFound
from services.index_spec import Names
from services.opensearch.client import Call, SyncSearch
from services.opensearch.expired import job_records_call, read_found, read_removed, removal_call, tombstones_call
from services.opensearch.generations import list_call, read_written, refresh_call
from services.opensearch.journal import days_ms, now_ms
from services.settings import Settings

# Documents of one look, and of one bulk request: some 100 bytes each.
PAGE = 1000
# What there was no time for is still there at the next pass; and SIGTERM does not wait longer.
PASS_SECONDS = 5.0


@dataclass
class Expiry:
    """One pass at a time over all generations that are written to, and over the jobs."""

    settings: Settings
    search: SyncSearch

    def remove(self) -> Counter[str]:
        """One pass; counts what was removed. Raises BackendUnavailable or Overloaded."""
        end = time.monotonic() + PASS_SECONDS
        names = Names(self.settings.index_prefix)
        counts: Counter[str] = Counter()
        before = now_ms() - days_ms(self.settings.tombstone_days)
        # A generation that is kept for going back to is left as it was when it was replaced.
        for generation in read_written(self.search.send(list_call(names))):
            physical = generation.physical
            found = tombstones_call(physical, before, PAGE)
            counts["tombstones"] += self._remove(physical, found, generation.write_alias, end)
        before = now_ms() - days_ms(self.settings.job_days)
        counts["job records"] += self._remove(names.jobs, job_records_call(names.jobs, before, PAGE), names.jobs, end)
        return +counts

    def _remove(self, index: str, look: Call, door: str, end: float) -> int:
        """Removes what `look` finds in `index` through `door`, the name that it is written by."""
        removed = 0
        try:
            while time.monotonic() < end:
                page = read_found(self.search.send(look))
                if not page:
                    break
                done = read_removed(self.search.send(removal_call(door, page)))
                removed += done["removed"]
                if len(page) < PAGE or not done["removed"]:
                    break
                # What was just removed is still found until then.
                self.search.send(refresh_call(index))
        except NotFound:
            pass  # deleted meanwhile, or there are no jobs yet
        return removed
