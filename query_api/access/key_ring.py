"""The keys as one process knows them: all of them in memory, so that a key is checked without asking anybody.

They are read again every few seconds, beside the requests. While OpenSearch is away, those that were read count on.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from services.access.api_keys import ResolvedKey
from services.errors import NotFound, SparsewellError
from services.index_spec import IndexNames
from services.opensearch.client import AsyncSearchClient
from services.opensearch.system_indexes import (
    StoredKey,
    changed_keys_call,
    latest_sequence_number,
    list_keys_call,
    read_stored_keys,
)

log = logging.getLogger(__name__)

# A key that was revoked elsewhere opens nothing after this long, and as long again as a reading takes.
KEY_CACHE_SECONDS: Final = 2.0
# What was read longer ago is read again before it is believed.
MAX_STALE_SECONDS: Final = 2 * KEY_CACHE_SECONDS
# Now and then all of them are read again: some may have gone without a trace (an index that was restored or removed).
FULL_RELOAD_SECONDS: Final = 60.0
# A key that is not known may have been made a moment ago: so often it is asked for, whoever tries whatever keys.
UNKNOWN_KEY_SECONDS: Final = 1.0
_TIMEOUT_SECONDS: Final = 2.0


class KeyRing:
    """Belongs to one event loop."""

    def __init__(self, search: AsyncSearchClient, names: IndexNames) -> None:
        self._search: Final = search
        self._names: Final = names
        self._keys: dict[str, ResolvedKey] = {}
        self._numbers: dict[str, int] = {}
        self._seen = -1
        self._read_at: float | None = None
        self._whole_at = float("-inf")
        self._taken = 0
        self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def current(self, key_id: str) -> ResolvedKey | None:
        """The key as it was read last. A reading every few seconds goes on beside this; of a process that was asked
        nothing for longer the first request waits for it, and where it fails, what was known counts on.
        """
        now = time.monotonic()
        if now - self._tried_at > KEY_CACHE_SECONDS:
            self._begin()
        if self._read_at is not None and now - self._read_at > MAX_STALE_SECONDS and self._reading is not None:
            with suppress(SparsewellError):
                await asyncio.shield(self._reading)
        return self._keys.get(key_id)

    async def look_up(self, key_id: str) -> ResolvedKey | None:
        """As `current`, once more after reading what is new, if that was not done just now.

        Raises BackendUnavailable when no keys could be read since the process began.
        """
        if self._read_at is None or time.monotonic() - self._tried_at > UNKNOWN_KEY_SECONDS:
            reading = self._begin()
            with suppress(SparsewellError):
                await asyncio.shield(reading)
            if self._read_at is None:
                await asyncio.shield(reading)  # (raises what went wrong)
        return self._keys.get(key_id)

    def take(self, stored: Iterable[StoredKey]) -> None:
        """Knows these keys as they are now."""
        self._taken += 1
        for one in stored:
            # (a reading under way may be of before a change that this process has made)
            if one.seq_no >= self._numbers.get(one.key.id, -1):
                self._numbers[one.key.id] = one.seq_no
                self._keys[one.key.id] = ResolvedKey(one.key)

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError, SparsewellError):
                await self._reading

    def _begin(self) -> "asyncio.Task[None]":
        """The reading under way, or another one."""
        if self._reading is None or self._reading.done():
            self._tried_at = time.monotonic()
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(_log_failed_read)
        return self._reading

    async def _read(self) -> None:
        now, taken = time.monotonic(), self._taken
        whole = now - self._whole_at > FULL_RELOAD_SECONDS
        call = list_keys_call(self._names, revoked=False, timeout=_TIMEOUT_SECONDS)
        if not whole:
            call = changed_keys_call(self._names, self._seen, _TIMEOUT_SECONDS)
        try:
            stored = read_stored_keys(await self._search.send(call))
        except NotFound:  # no key was ever made
            stored = []
        if whole and self._taken == taken:  # (else it may be of before a change that this process has made: next time)
            self._keys, self._numbers, self._seen, self._whole_at = {}, {}, -1, now
        self.take(stored)
        self._seen = latest_sequence_number(stored, self._seen)
        self._read_at = now


def _log_failed_read(reading: "asyncio.Task[None]") -> None:
    if not reading.cancelled() and (error := reading.exception()) is not None:
        log.warning("keys could not be read, those that are known count on: %s", error)
