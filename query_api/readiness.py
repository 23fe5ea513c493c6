"""The readiness of an API process to answer searches.

`QueryTableCache` holds the query tables of the known encoders, by fingerprint. `ReadinessMonitor` checks OpenSearch,
the query tables of all indexes and Redis, at most once a second however many probes arrive.
"""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from services.encoders.catalogue import load_known_encoders
from services.encoders.manifest import Manifest
from services.encoders.query_table import QueryTable
from services.errors import BackendUnavailable, ConfigurationError, EncoderMismatch, InvalidInput, SparsewellError
from services.index_spec import Generation, IndexNames
from services.opensearch.client import AsyncSearchClient
from services.opensearch.generations import list_generations_call, read_active_generations
from services.queue.messages import Publisher, encode_queue
from services.settings import Settings

T = TypeVar("T")

CHECK_INTERVAL_SECONDS: Final = 1.0
# Probes time out after a few seconds, so a check must be faster.
CHECK_TIMEOUT_SECONDS: Final = 3.0


class QueryTableCache:
    """The query tables of one process: the configured encoder's, and others once an index uses them."""

    def __init__(self, settings: Settings) -> None:
        """Read every manifest and load the configured table. Raises ConfigurationError."""
        encoders = load_known_encoders(settings)
        self.default = encoders[0].manifest
        self.manifests = [encoder.manifest for encoder in encoders]
        self._directories = {encoder.manifest.fingerprint: encoder.directory for encoder in encoders}
        # Of two encoders with one name the first wins.
        self._names = {encoder.manifest.name: encoder.manifest for encoder in reversed(encoders)}
        self._tables = {self.default.fingerprint: QueryTable.load(encoders[0].directory)}

    def of(self, generation: Generation) -> QueryTable:
        """Return the query table for a generation's vectors. Raises EncoderMismatch (`encoder_mismatch`)."""
        fingerprint = generation.encoder.fingerprint
        table = self._tables.get(fingerprint)
        if table is not None:
            return table
        directory = self._directories.get(fingerprint)
        if directory is None:
            raise EncoderMismatch(
                "encoder_mismatch",
                f"The index {generation.index!r} was encoded by {generation.encoder.name} ({fingerprint}), but this "
                f"service holds {', '.join(sorted(self._directories))}: name its model directory in "
                "SPARSEWELL_MORE_ENCODERS.",
            )
        try:
            table = QueryTable.load(directory)
        except ConfigurationError as error:
            raise EncoderMismatch("encoder_mismatch", error.detail) from error
        self._tables[fingerprint] = table
        return table

    def serves(self, fingerprint: str) -> bool:
        """Return whether the service has the query table of an encoder."""
        return fingerprint in self._directories

    def manifest(self, name: str | None) -> Manifest:
        """Return the manifest of an encoder by name; None is the configured one.

        Raises InvalidInput (`unknown_encoder`).
        """
        if name is None:
            return self.default
        try:
            return self._names[name]
        except KeyError:
            known = ", ".join(sorted(self._names))
            raise InvalidInput("unknown_encoder", f"No encoder is called {name[:80]!r} (known: {known}).") from None


@dataclass(frozen=True)
class ReadinessReport:
    """The result of a check. `checks` has `ok` or a code for each part; `failure` is why no search can be answered."""

    at: float
    checks: dict[str, str]
    indexes: int
    messages: int | None
    failure: SparsewellError | None


class ReadinessMonitor:
    """The readiness of one process, checked at most once a second."""

    def __init__(
        self, names: IndexNames, tables: QueryTableCache, search: AsyncSearchClient, publisher: Publisher
    ) -> None:
        self._names = names
        self._tables = tables
        self._search = search
        self._publisher = publisher
        self._draining = False
        self._last: ReadinessReport | None = None
        self._lock = asyncio.Lock()

    def drain(self) -> None:
        """Mark the process as not ready for good, because it is about to end."""
        self._draining = True

    async def report(self) -> dict[str, Any]:
        """Return the answer of a ready process.

        Raises the reason why the process is not ready, with `checks` of every part: BackendUnavailable (`draining` and
        the codes of OpenSearch) or EncoderMismatch (`encoder_mismatch`).
        """
        if self._draining:
            raise BackendUnavailable("draining", "This process is about to end: use another one.", checks={})
        last = await self._last_check()
        if last.failure is not None:
            error = last.failure
            raise type(error)(error.code, error.detail, **error.extra, checks=last.checks)
        default = self._tables.default
        return {
            "status": "ready",
            "encoder": {"name": default.name, "fingerprint": default.fingerprint},
            "indexes": last.indexes,
            "queue": {"reachable": last.messages is not None, "messages": last.messages},
            "checks": last.checks,
        }

    async def _last_check(self) -> ReadinessReport:
        async with self._lock:
            if self._last is None or time.monotonic() - self._last.at >= CHECK_INTERVAL_SECONDS:
                self._last = await self._check()
            return self._last

    async def _check(self) -> ReadinessReport:
        (indexes, failure), messages = await asyncio.gather(self._check_indexes(), self._count_messages())
        mismatch = isinstance(failure, EncoderMismatch)
        checks = {
            "opensearch": "ok" if failure is None or mismatch else failure.code,
            "query_tables": "ok" if failure is None else failure.code if mismatch else "unknown",
            "redis": "redis_unavailable" if messages is None else "ok",
        }
        return ReadinessReport(time.monotonic(), checks, indexes, messages, failure)

    async def _check_indexes(self) -> tuple[int, SparsewellError | None]:
        """Return the number of indexes and the reason why they cannot be searched."""
        try:
            call = replace(list_generations_call(self._names, near=True), timeout=CHECK_TIMEOUT_SECONDS)
            generations = read_active_generations(await _with_timeout(self._search.send(call)))
        except SparsewellError as error:
            return 0, error
        except TimeoutError:
            return 0, BackendUnavailable("opensearch_timeout", "OpenSearch did not answer in time.")
        for generation in generations:
            encoder = generation.encoder
            if not self._tables.serves(encoder.fingerprint):
                return len(generations), EncoderMismatch(
                    "encoder_mismatch",
                    f"This service has no query table for the index {generation.index!r}, which {encoder.name} "
                    f"({encoder.fingerprint}) encoded.",
                )
        return len(generations), None

    async def _count_messages(self) -> int | None:
        """Count the messages for the configured encoder; None while Redis does not answer. Searches need no Redis."""
        queue = encode_queue(self._tables.default.name)
        try:
            return await _with_timeout(asyncio.to_thread(self._publisher.depth, queue))
        except (BackendUnavailable, TimeoutError):
            return None


async def _with_timeout(answer: Awaitable[T]) -> T:
    async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
        return await answer
