"""Who works: each worker says so in Redis every few seconds, and whoever asks sees those that did so lately.

One hash, a field a worker. Nothing depends on it: it is for people who look.
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
# Three that were missed: then it is gone, or its Redis is.
HEARTBEAT_EXPIRY_SECONDS: Final = 35.0
_TIMEOUT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class RegisteredWorker:
    """One worker, as it said of itself; `seen_ago` seconds ago, by the clocks of both."""

    name: str
    encoder: str
    fingerprint: str
    processes: int
    version: str
    seen_ago: float


class WorkerRegistry:
    """One connection. Raises BackendUnavailable (`redis_unavailable`) from every method."""

    def __init__(self, redis_url: str) -> None:
        self._client = redis.Redis.from_url(
            redis_url, socket_connect_timeout=_TIMEOUT_SECONDS, socket_timeout=_TIMEOUT_SECONDS
        )

    def say(self, name: str, **said: str | int) -> None:
        """This worker is there."""
        self._ask("hset", WORKERS_KEY, name, orjson.dumps(said | {"at": time.time()}))

    def leave(self, name: str) -> None:
        """This worker ends."""
        self._ask("hdel", WORKERS_KEY, name)

    def workers(self) -> list[RegisteredWorker]:
        """Those that were there lately, by name. One that is long gone is forgotten."""
        found, gone = [], []
        for field, value in self._ask("hgetall", WORKERS_KEY).items():
            name = field.decode(errors="replace")
            try:
                said = orjson.loads(value)
                ago = max(0.0, time.time() - said.pop("at"))
                one = RegisteredWorker(name, **said, seen_ago=round(ago, 1))
            except (ValueError, TypeError, KeyError, AttributeError):  # of another version, or somebody else's
                continue
            if one.seen_ago <= HEARTBEAT_EXPIRY_SECONDS:
                found.append(one)
            elif one.seen_ago > 100 * HEARTBEAT_EXPIRY_SECONDS:
                gone.append(field)
        if gone:
            self._ask("hdel", WORKERS_KEY, *gone)
        return sorted(found, key=lambda one: one.name)

    def close(self) -> None:
        with suppress(redis.RedisError):
            self._client.close()

    def _ask(self, command: str, *arguments: Any) -> Any:
        try:
            return getattr(self._client, command)(*arguments)
        except redis.RedisError as error:
            raise BackendUnavailable("redis_unavailable", f"Redis did not answer ({type(error).__name__}).") from error
