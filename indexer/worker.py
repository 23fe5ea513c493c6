"""Starts a worker: how many processes, which queues, and a clear word when Redis is not there.

Says every few seconds that this worker is there, from a thread of its parent process.
"""

import logging
import math
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import redis
from celery import Celery
from celery.platforms import SecurityWarning

from services.encoders.manifest import Manifest
from services.errors import BackendUnavailable, ConfigurationError
from services.queue.messages import INGEST_QUEUE, encode_queue
from services.queue.worker_registry import HEARTBEAT_SECONDS, WorkerRegistry
from services.settings import Settings, redact_addresses

log = logging.getLogger(__name__)


@contextmanager
def announce_worker(redis_url: str, manifest: Manifest, processes: int) -> Iterator[None]:
    """Inside the block this worker is among those that `Presence.workers` lists."""
    name, ended = f"{socket.gethostname()}:{os.getpid()}", threading.Event()
    presence = WorkerRegistry(redis_url)

    def say() -> None:
        while True:
            with suppress(BackendUnavailable):  # Celery's own connection says so in the log
                presence.announce(
                    name,
                    encoder=manifest.name,
                    fingerprint=manifest.fingerprint,
                    processes=processes,
                    version=version("sparsewell"),
                )
            if ended.wait(HEARTBEAT_SECONDS):
                return

    thread = threading.Thread(target=say, name="presence", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5)
        with suppress(BackendUnavailable):
            presence.remove(name)
        presence.close()


_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def available_cores(limit: str | None = None) -> int:
    """Processor cores for us: those that we may run on, or fewer where a container's share is smaller.

    `limit` is the content of cgroup's cpu.max (quota and period in microseconds, or `max`); None: read it.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if limit is None:
        try:
            limit = _CGROUP_LIMIT.read_text()
        except OSError:
            return allowed
    quota, _, period = limit.strip().partition(" ")
    if quota == "max" or not period:
        return allowed
    return max(1, min(allowed, math.ceil(int(quota) / int(period))))


def wait_for_redis(url: str, seconds: float) -> None:
    """Returns once Redis answers. Raises ConfigurationError (`bad_redis_url`, `redis_unavailable`) after `seconds`."""
    try:
        client = redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2)
    except ValueError as error:
        raise ConfigurationError("bad_redis_url", f"REDIS_URL is not usable: {error}.") from None
    end = time.monotonic() + seconds
    told = False
    with closing(client):
        while True:
            try:
                client.ping()
            except redis.RedisError as error:
                if time.monotonic() > end:
                    raise ConfigurationError(
                        "redis_unavailable",
                        f"No Redis answers at {redact_addresses(url)} ({type(error).__name__}): start it (`sparsewell up`), "
                        "or set REDIS_URL.",
                    ) from None
                if not told:
                    log.warning("waiting up to %.0f s for Redis at %s", seconds, redact_addresses(url))
                    told = True
                time.sleep(min(0.5, seconds))
            else:
                return


def run_worker(app: Celery, settings: Settings, manifest: Manifest, log_level: str) -> int:
    """Works until a signal says stop; returns the exit status. SIGTERM finishes the running tasks."""
    processes = settings.worker_concurrency or available_cores()
    queues = [encode_queue(manifest.name), INGEST_QUEUE]
    log.info("%d processes with %s (%s) on %s", processes, manifest.name, manifest.fingerprint, ", ".join(queues))
    # Celery warns root of pickled messages; ours are JSON and nothing else is accepted.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    worker = app.Worker(
        quiet=True,
        concurrency=processes,
        queues=queues,
        loglevel=log_level.upper(),
        # Workers need to know nothing of each other; these only cost messages.
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    return int(worker.exitcode or 0)
