"""The installation that a Redis belongs to.

The names of queues and keys are the same in every installation. A worker of a test environment that reaches the Redis
of production would take its messages, find no such documents in its own OpenSearch, and acknowledge them. So the first
process writes a mark to Redis: the index prefix and the UUID of the OpenSearch cluster. Every other process compares it
before it sends or takes messages (docs/decisions/0262).
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from services.errors import BackendUnavailable, ConfigurationError, SparsewellError
from services.opensearch.client import AsyncSearchClient, Call, SyncSearchClient
from services.queue.messages import Publisher
from services.settings import Settings, redact_addresses

log = logging.getLogger(__name__)

_CLUSTER_CALL: Final = Call("GET", "/", params={"filter_path": "cluster_uuid"}, timeout=3.0)


class InstallationClaim:
    """The claim of one process on its Redis. Without an answer of OpenSearch or Redis the claim stays open."""

    def __init__(self, settings: Settings, publisher: Publisher) -> None:
        self._settings: Final = settings
        self._publisher: Final = publisher
        self._mark: str | None = None
        self._verified = False

    @property
    def is_verified(self) -> bool:
        """Tell whether this process has compared the mark."""
        return self._verified

    def claim(self, search: SyncSearchClient) -> None:
        """Claim Redis for this installation, and write the mark again if Redis has lost it.

        Raises ConfigurationError (`foreign_redis`), and BackendUnavailable as the clients do.
        """
        if self._mark is None:
            with _permission_reported():
                self._mark = self._read_mark(search.send(_CLUSTER_CALL))
        self._compare()

    async def claim_once(self, search: AsyncSearchClient) -> None:
        """Claim Redis, unless this process has done so. `claim` names the errors."""
        if self._verified:
            return
        if self._mark is None:
            with _permission_reported():
                self._mark = self._read_mark(await search.send(_CLUSTER_CALL))
        await asyncio.to_thread(self._compare)

    def _read_mark(self, answer: Any) -> str:
        uuid = answer.get("cluster_uuid") if isinstance(answer, dict) else None
        if not uuid or uuid == "_na_":  # a cluster without a manager
            raise BackendUnavailable("opensearch_unavailable", "OpenSearch does not tell the UUID of its cluster.")
        return f"{self._settings.index_prefix}@{uuid}"

    def _compare(self) -> None:
        if self._mark is not None:
            found = self._publisher.claim(self._mark)
            if found != self._mark:
                raise foreign_redis(self._settings, found, self._mark)
        self._verified = True


@contextmanager
def _permission_reported() -> Iterator[None]:
    """Go on without a mark where the user of OpenSearch may not ask for the UUID: earlier roles lack the permission."""
    try:
        yield
    except BackendUnavailable as error:
        if error.code != "opensearch_forbidden":
            raise
        log.warning("Redis is used unchecked: the OpenSearch user lacks the permission cluster:monitor/main")


def claim_redis(settings: Settings, *, replace: bool = False) -> None:
    """Claim Redis before a process starts to work. `replace`: take it from the installation that it belonged to.

    A process starts without OpenSearch or Redis, and then claims Redis later. Raises ConfigurationError
    (`foreign_redis`); with `replace`, BackendUnavailable as well.
    """
    with closing(SyncSearchClient(settings)) as search, closing(Publisher(settings.redis_address)) as publisher:
        if replace:
            publisher.release_claim()
        try:
            InstallationClaim(settings, publisher).claim(search)
        except ConfigurationError:
            raise
        except SparsewellError as error:
            if replace:
                raise
            log.warning("whether this Redis belongs to another installation is unknown yet: %s", error)


def foreign_redis(settings: Settings, found: str, own: str) -> ConfigurationError:
    """Return the error of a Redis that belongs to another installation. `found` and `own` are marks."""
    return ConfigurationError(
        "foreign_redis",
        f"The Redis at {redact_addresses(settings.redis_url)} belongs to another installation: it is marked {found}, "
        f"and this one is {own} (index prefix @ UUID of the OpenSearch cluster). Set REDIS_URL to a Redis or a "
        "database number of its own. If the cluster was replaced and nothing else uses this Redis, run "
        "`sparsewell adopt-redis`.",
    )
