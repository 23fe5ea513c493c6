"""The start of a worker: its processes, its queues, its heartbeat and the metrics that its processes share.

`run_worker` runs Celery with one process per available core. `share_metrics` precedes the first import of
prometheus_client, so this module does not import it. `announce_worker` sends a heartbeat to Redis from a thread
of the parent process. `wait_for_redis` reports a Redis that does not answer at the start.
"""

import logging
import math
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

import redis
from celery import Celery
from celery.platforms import SecurityWarning
from celery.worker.control import Panel

from services.encoders.manifest import Manifest
from services.errors import BackendUnavailable, ConfigurationError
from services.queue.lanes import INGEST_QUEUE, encode_queues
from services.queue.worker_registry import HEARTBEAT_SECONDS, WorkerRegistry
from services.settings import Settings, redact_addresses

log = logging.getLogger(__name__)

_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")
# The health checks ping. Celery's other remote commands (shutdown, revoke, add_consumer, conf, stats, ...) let any
# client that reaches Redis stop a worker or read its tasks and its settings.
REMOTE_COMMANDS: Final = frozenset({"ping"})
# With this variable prometheus_client keeps values in files that processes share. It is read at import time.
_MULTIPROCESS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


def run_worker(app: Celery, settings: Settings, manifest: Manifest, log_level: str) -> int:
    """Run a worker until a signal stops it, and return the exit status. On SIGTERM it finishes the running tasks."""
    processes = settings.worker_concurrency or available_cores()
    queues = [*encode_queues(manifest.name), INGEST_QUEUE]
    log.info(
        "%d processes with %s (%s) on %s and its load lanes", processes, manifest.name, manifest.fingerprint, queues[0]
    )
    limit_remote_control()
    # Celery warns the root user of pickled messages, but this application accepts only JSON.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    worker = app.Worker(
        quiet=True,
        concurrency=processes,
        queues=queues,
        loglevel=log_level.upper(),
        # Workers need not know each other, and these features cost messages.
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def limit_remote_control() -> None:
    """Remove Celery's remote commands from this process, except those that the health checks send."""
    for name in Panel.data.keys() - REMOTE_COMMANDS:
        del Panel.data[name]


def available_cores(limit: str | None = None) -> int:
    """Return the processor cores of this process: its CPU affinity, limited by the CPU quota of its container.

    `limit` is the content of the cgroup's `cpu.max` (quota and period in microseconds, or `max`); None: read the file.
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
    """Wait until Redis answers, at most `seconds`.

    Raises ConfigurationError (`bad_redis_url`, `redis_unavailable`).
    """
    try:
        client = redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2)
    except ValueError as error:
        raise ConfigurationError("bad_redis_url", f"REDIS_URL is not usable: {error}.") from None
    deadline = time.monotonic() + seconds
    warned = False
    with closing(client):
        while True:
            try:
                client.ping()
            except redis.RedisError as error:
                if time.monotonic() > deadline:
                    raise ConfigurationError(
                        "redis_unavailable",
                        f"No Redis answers at {redact_addresses(url)} ({type(error).__name__}): "
                        "start it (`sparsewell up`), or set REDIS_URL.",
                    ) from None
                if not warned:
                    log.warning("waiting up to %.0f s for Redis at %s", seconds, redact_addresses(url))
                    warned = True
                time.sleep(min(0.5, seconds))
            else:
                return


@contextmanager
def share_metrics() -> Iterator[None]:
    """Keep metrics in files that the processes of a worker share, so that the values of a killed child are not lost.

    The files are below TMPDIR. Raises RuntimeError if prometheus_client is already imported.
    """
    if "prometheus_client" in sys.modules:
        raise RuntimeError("share_metrics must be called before prometheus_client is imported")
    owner = os.getpid()
    directory = tempfile.mkdtemp(prefix="sparsewell-metrics-")
    os.environ[_MULTIPROCESS_VARIABLE] = directory
    try:
        yield
    finally:
        if os.getpid() == owner:  # not in a child that ends by an exception
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def announce_worker(redis_url: str, manifest: Manifest, processes: int) -> Iterator[None]:
    """List this worker in the `WorkerRegistry` while the block runs."""
    name, ended = f"{socket.gethostname()}:{os.getpid()}", threading.Event()
    registry = WorkerRegistry(redis_url)

    def send_heartbeats() -> None:
        while True:
            with suppress(BackendUnavailable):  # Celery logs the failure of its own connection.
                registry.announce(
                    name,
                    encoder=manifest.name,
                    fingerprint=manifest.fingerprint,
                    processes=processes,
                    version=version("sparsewell"),
                )
            if ended.wait(HEARTBEAT_SECONDS):
                return

    thread = threading.Thread(target=send_heartbeats, name="presence", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5)
        with suppress(BackendUnavailable):
            registry.remove(name)
        registry.close()
