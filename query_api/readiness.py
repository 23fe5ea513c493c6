"""Whether this process can answer searches, part by part, looked at once a second however many probes ask.

The query tables that this process can serve, by fingerprint.
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


class QueryTableCache:
    """The configured encoder's table, and those of the other known encoders once an index asks for them."""

    def __init__(self, settings: Settings) -> None:
        """Reads every manifest and loads the configured table. Raises ConfigurationError."""
        known = load_known_encoders(settings)
        self.default = known[0].manifest
        self.manifests = [one.manifest for one in known]
        self._directories = {one.manifest.fingerprint: one.directory for one in known}
        # of two with one name the one that comes first
        self._names = {one.manifest.name: one.manifest for one in reversed(known)}
        self._tables = {self.default.fingerprint: QueryTable.load(known[0].directory)}

    def of(self, generation: Generation) -> QueryTable:
        """The table that belongs to a generation's vectors. Raises EncoderMismatch (`encoder_mismatch`)."""
        fingerprint = generation.encoder.fingerprint
        table = self._tables.get(fingerprint)
        if table is not None:
            return table
        directory = self._directories.get(fingerprint)
        if directory is None:
            raise EncoderMismatch(
                "encoder_mismatch",
                f"The index {generation.index!r} was encoded by {generation.encoder.name} ({fingerprint}), and this "
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
        return fingerprint in self._directories

    def manifest(self, name: str | None) -> Manifest:
        """The manifest of an encoder by name, None: the configured one. Raises InvalidInput (`unknown_encoder`)."""
        if name is None:
            return self.default
        try:
            return self._names[name]
        except KeyError:
            known = ", ".join(sorted(self._names))
            raise InvalidInput("unknown_encoder", f"No encoder is called {name[:80]!r} (known: {known}).") from None


T = TypeVar("T")

CHECK_INTERVAL_SECONDS: Final = 1.0
# A probe that waits longer is given up by whoever sent it.
CHECK_TIMEOUT_SECONDS: Final = 3.0


@dataclass(frozen=True)
class ReadinessReport:
    """What was found. `failure` is why no search can be answered; `checks` says it of each part, `ok` or a code."""

    at: float
    checks: dict[str, str]
    indexes: int
    messages: int | None
    failure: SparsewellError | None


class ReadinessMonitor:
    """Made with the process's parts. `drain` is for good."""

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
        """From now on this process is not ready, because it is about to end."""
        self._draining = True

    async def said(self) -> dict[str, Any]:
        """The answer of a process that is ready. Raises the reason why it is not, with `checks` of every part."""
        if self._draining:
            raise BackendUnavailable("draining", "This process is about to end: ask another one.", checks={})
        look = await self._look()
        if look.failure is not None:
            error = look.failure
            raise type(error)(error.code, error.detail, **error.extra, checks=look.checks)
        default = self._tables.default
        return {
            "status": "ready",
            "encoder": {"name": default.name, "fingerprint": default.fingerprint},
            "indexes": look.indexes,
            "queue": {"reachable": look.messages is not None, "messages": look.messages},
            "checks": look.checks,
        }

    async def _look(self) -> ReadinessReport:
        async with self._lock:
            if self._last is None or time.monotonic() - self._last.at >= CHECK_INTERVAL_SECONDS:
                self._last = await self._looked()
            return self._last

    async def _looked(self) -> ReadinessReport:
        (indexes, failure), messages = await asyncio.gather(self._indexes(), self._messages())
        tables = isinstance(failure, EncoderMismatch)
        checks = {
            "opensearch": "ok" if failure is None or tables else failure.code,
            "query_tables": failure.code if tables and failure is not None else "ok" if failure is None else "unknown",
            "redis": "redis_unavailable" if messages is None else "ok",
        }
        return ReadinessReport(time.monotonic(), checks, indexes, messages, failure)

    async def _indexes(self) -> tuple[int, SparsewellError | None]:
        """How many there are, and why they cannot be searched."""
        try:
            call = replace(list_generations_call(self._names, near=True), timeout=CHECK_TIMEOUT_SECONDS)
            generations = read_active_generations(await _with_timeout(self._search.send(call)))
        except SparsewellError as error:
            return 0, error
        except TimeoutError:
            return 0, BackendUnavailable("opensearch_timeout", "OpenSearch did not answer in time.")
        for one in generations:
            if not self._tables.serves(one.encoder.fingerprint):
                return len(generations), EncoderMismatch(
                    "encoder_mismatch",
                    f"No query table for the index {one.index!r}, which {one.encoder.name} "
                    f"({one.encoder.fingerprint}) encoded.",
                )
        return len(generations), None

    async def _messages(self) -> int | None:
        """Messages in the queue of the API's own encoder; None while Redis does not answer, which no search needs."""
        queue = encode_queue(self._tables.default.name)
        try:
            return await _with_timeout(asyncio.to_thread(self._publisher.depth, queue))
        except (BackendUnavailable, TimeoutError):
            return None


async def _with_timeout(answer: Awaitable[T]) -> T:
    async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
        return await answer
