"""The registry of running workers: one Redis hash with a field a worker, refreshed every few seconds.

It informs people (`sparsewell status`, the page); nothing depends on it.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson
import redis

from services.errors import BackendUnavailable

WORKERS_KEY: Final = "sparsewell:workers"
HEARTBEAT_SECONDS: Final = 10.0
# A worker that missed three heartbeats is gone, or its connection to Redis is.
HEARTBEAT_EXPIRY_SECONDS: Final = 35.0
_TIMEOUT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class RegisteredWorker:
    """A worker as it described itself `seen_ago` seconds ago, by the clocks of both machines."""

    name: str
    encoder: str
    fingerprint: str
    processes: int
    version: str
    seen_ago: float


class WorkerRegistry:
    """A client of the registry. Every method but `close` raises BackendUnavailable (`redis_unavailable`)."""

    def __init__(self, redis_url: str) -> None:
        self._client = redis.Redis.from_url(
            redis_url, socket_connect_timeout=_TIMEOUT_SECONDS, socket_timeout=_TIMEOUT_SECONDS
        )

    def announce(self, name: str, **facts: str | int) -> None:
        """Record that this worker is running, with facts about it."""
        self._execute("hset", WORKERS_KEY, name, orjson.dumps(facts | {"at": time.time()}))

    def remove(self, name: str) -> None:
        """Record that this worker has stopped."""
        self._execute("hdel", WORKERS_KEY, name)

    def workers(self) -> list[RegisteredWorker]:
        """Return the workers seen lately, sorted by name, and delete workers that stopped long ago."""
        recent, expired = [], []
        for field, value in self._execute("hgetall", WORKERS_KEY).items():
            name = field.decode(errors="replace")
            try:
                facts = orjson.loads(value)
                ago = max(0.0, time.time() - facts.pop("at"))
                worker = RegisteredWorker(name, **facts, seen_ago=round(ago, 1))
            except (ValueError, TypeError, KeyError, AttributeError):  # written by another version or program
                continue
            if worker.seen_ago <= HEARTBEAT_EXPIRY_SECONDS:
                recent.append(worker)
            elif worker.seen_ago > 100 * HEARTBEAT_EXPIRY_SECONDS:
                expired.append(field)
        if expired:
            self._execute("hdel", WORKERS_KEY, *expired)
        return sorted(recent, key=lambda worker: worker.name)

    def close(self) -> None:
        """Close the connection."""
        with suppress(redis.RedisError):
            self._client.close()

    def _execute(self, command: str, *arguments: Any) -> Any:
        try:
            return getattr(self._client, command)(*arguments)
        except redis.RedisError as error:
            raise BackendUnavailable("redis_unavailable", f"Redis did not answer ({type(error).__name__}).") from error
