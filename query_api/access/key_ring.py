"""The API keys of the installation, cached in one process.

`KeyRing` holds all keys in memory, so that a request needs no call to OpenSearch. It reads changed keys every 2 s in
the background and all keys once a minute. While OpenSearch is away, the cached keys stay valid (docs/decisions/0200).
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
from services.opensearch.key_records import (
    StoredKey,
    changed_keys_call,
    latest_sequence_number,
    list_keys_call,
    read_stored_keys,
)

log = logging.getLogger(__name__)

# A key that another process revoked is refused after this time plus the time of one read.
KEY_CACHE_SECONDS: Final = 2.0
# A request waits for a new read when the last one is older.
MAX_STALE_SECONDS: Final = 2 * KEY_CACHE_SECONDS
# A full read finds keys that vanished without a change, because their index was restored or deleted.
FULL_RELOAD_SECONDS: Final = 60.0
# An unknown key may be new. It triggers a read at most this often, for any number of keys.
UNKNOWN_KEY_SECONDS: Final = 1.0
_TIMEOUT_SECONDS: Final = 2.0


class KeyRing:
    """A cache of all API keys. It belongs to one event loop."""

    def __init__(self, search: AsyncSearchClient, names: IndexNames) -> None:
        self._search: Final = search
        self._names: Final = names
        self._keys: dict[str, ResolvedKey] = {}
        self._sequence_numbers: dict[str, int] = {}
        self._latest_sequence = -1
        self._read_at: float | None = None
        self._full_read_at = float("-inf")
        self._updates = 0
        self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def current(self, key_id: str) -> ResolvedKey | None:
        """Return the cached key; None when it is unknown.

        Starts a background read when the last one is older than KEY_CACHE_SECONDS. Waits for it only when the cache is
        older than MAX_STALE_SECONDS. When the read fails, the cached keys stay valid.
        """
        now = time.monotonic()
        if now - self._tried_at > KEY_CACHE_SECONDS:
            self._start_read()
        if self._read_at is not None and now - self._read_at > MAX_STALE_SECONDS and self._reading is not None:
            with suppress(SparsewellError):
                await asyncio.shield(self._reading)
        return self._keys.get(key_id)

    async def look_up(self, key_id: str) -> ResolvedKey | None:
        """Return the key after a read of the changed keys, unless the last read is younger than UNKNOWN_KEY_SECONDS.

        Raises BackendUnavailable when the process has never been able to read the keys.
        """
        if self._read_at is None or time.monotonic() - self._tried_at > UNKNOWN_KEY_SECONDS:
            reading = self._start_read()
            with suppress(SparsewellError):
                await asyncio.shield(reading)
            if self._read_at is None:
                await asyncio.shield(reading)  # raises the error of the read
        return self._keys.get(key_id)

    def update(self, stored: Iterable[StoredKey]) -> None:
        """Add keys to the cache, or replace older versions of them."""
        self._updates += 1
        for item in stored:
            # A read in progress may return a key as it was before a change by this process.
            if item.seq_no >= self._sequence_numbers.get(item.key.id, -1):
                self._sequence_numbers[item.key.id] = item.seq_no
                self._keys[item.key.id] = ResolvedKey(item.key)

    async def close(self) -> None:
        """Cancel the read in progress."""
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError, SparsewellError):
                await self._reading

    def _start_read(self) -> "asyncio.Task[None]":
        """Return the read in progress, or start one."""
        if self._reading is None or self._reading.done():
            self._tried_at = time.monotonic()
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(_log_failed_read)
        return self._reading

    async def _read(self) -> None:
        now, updates = time.monotonic(), self._updates
        full = now - self._full_read_at > FULL_RELOAD_SECONDS
        call = list_keys_call(self._names, revoked=False, timeout=_TIMEOUT_SECONDS)
        if not full:
            call = changed_keys_call(self._names, self._latest_sequence, _TIMEOUT_SECONDS)
        try:
            stored = read_stored_keys(await self._search.send(call))
        except NotFound:  # No key has ever been created.
            stored = []
        # A change by this process during the read makes it stale. The next read replaces the cache then.
        if full and self._updates == updates:
            self._keys, self._sequence_numbers, self._latest_sequence, self._full_read_at = {}, {}, -1, now
        self.update(stored)
        self._latest_sequence = latest_sequence_number(stored, self._latest_sequence)
        self._read_at = now


def _log_failed_read(reading: "asyncio.Task[None]") -> None:
    if not reading.cancelled() and (error := reading.exception()) is not None:
        log.warning("the keys could not be read, the cached ones stay valid: %s", error)
