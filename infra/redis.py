"""Local Redis server: start, readiness, lookup of a running server, stop.

The server keeps a queue, so it logs every write (append-only file) and never evicts a key. It runs as a child process
with a record on disk, from which later commands find it (docs/decisions/0011).
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import redis

from infra import processes
from infra.local_servers import LocalServer, LocalSettings, Report, start_once
from infra.ports import LOOPBACK, find_free_port, require_free_port
from services.directories import (
    child_account,
    make_directory,
    resolve_state_directory,
    temporary_state_directory,
)
from services.errors import BackendUnavailable, ConfigurationError


@dataclass(frozen=True)
class RedisConfig:
    """Configuration of a server: `root` holds its files; port 0 is any free port; `tied` ends it with this process."""

    root: Path
    data: Path | None = None
    port: int = 16379
    databases: int = 16
    run_as: str = "nobody"
    start_timeout: float = 300.0
    stop_timeout: float = 30.0
    tied: bool = False

    @classmethod
    def of(cls, settings: LocalSettings) -> "RedisConfig":
        """Return the configuration that the settings describe."""
        return cls(
            root=resolve_state_directory(settings) / "redis",
            data=settings.redis_data_dir,
            port=settings.redis_port,
            run_as=settings.run_as,
            start_timeout=settings.start_timeout,
            stop_timeout=settings.stop_timeout,
        )


@dataclass(frozen=True, kw_only=True)
class RedisServer(LocalServer):
    """Running Redis."""

    title: ClassVar[str] = "Redis"
    record_name: ClassVar[str] = "redis.json"


def start_redis(config: RedisConfig, report: Report = lambda message: None) -> RedisServer:
    """Start Redis and return once it answers; return the server that already runs in `root` as it is.

    Raises ConfigurationError or BackendUnavailable (`no_redis_server`, `port_in_use`, `redis_died` with its last log
    lines, `redis_not_ready`). After an error, no process is left. As root, the server runs as `run_as`.
    """
    return start_once(RedisServer, config, lambda: _launch(config, report), report)


def _launch(config: RedisConfig, report: Report) -> RedisServer:
    account = child_account(config.run_as)
    binary = shutil.which("redis-server")
    if binary is None:
        raise ConfigurationError(
            "no_redis_server",
            "There is no redis-server on the PATH. Install it (Debian: apt-get install redis-server), or set "
            "REDIS_URL to a running Redis.",
        )
    if config.port:
        require_free_port(config.port, "Redis", "SPARSEWELL_REDIS_PORT")
    port = config.port or find_free_port()
    data = make_directory(config.data or config.root / "data", account)
    log = config.root / "redis.log"
    processes.rotate_log(log)
    report(f"Starting Redis, port {port}, data in {data}.")
    child = processes.start_child(
        "redis",
        redis_command(binary, port=port, data=data, databases=config.databases),
        log,
        environment={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
        directory=data,
        account=account,
        tied=config.tied,
    )
    server = RedisServer(
        url=f"redis://{LOOPBACK}:{port}/0", child=child, root=config.root, stop_timeout=config.stop_timeout
    )
    try:
        server.save()
        _wait_until_ready(server, log, config.start_timeout)
    except BaseException:
        server.stop()
        raise
    report(f"Redis answers: {server.url}")
    return server


def redis_command(binary: str, *, port: int, data: Path, databases: int) -> list[str]:
    """Return the command line: loopback only, append-only file, no eviction.

    With eviction, a queue that loses messages under memory pressure would look healthy; `noeviction` refuses writes.
    """
    settings = {
        "bind": LOOPBACK,
        "port": str(port),
        "databases": str(databases),
        "protected-mode": "yes",
        "daemonize": "no",
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    return [binary, *(word for name, value in settings.items() for word in (f"--{name}", value))]


def _wait_until_ready(server: RedisServer, log: Path, timeout: float) -> None:
    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False

    def error(code: str, event: str) -> BackendUnavailable:
        return BackendUnavailable(code, f"{event} Its last log lines ({log}):\n{processes.read_last_lines(log)}")

    with redis.Redis.from_url(server.url, socket_timeout=2) as client:
        processes.wait_until_ready(
            server.child,
            answers,
            timeout,
            pause=0.05,
            died=lambda: error("redis_died", "Redis ended during its start."),
            late=lambda: error("redis_not_ready", f"Redis did not answer within {timeout:.0f} s and was stopped."),
        )


@contextmanager
def temporary_redis(
    settings: LocalSettings, report: Report = lambda message: None, *, databases: int = 16
) -> Iterator[RedisServer]:
    """Run a server on a free port with a temporary data directory, for tests and benchmarks.

    The kernel ends it as well when the calling thread dies without stopping it.
    """
    with temporary_state_directory(child_account(settings.run_as)) as directory:
        config = replace(
            RedisConfig.of(settings), root=directory / "redis", data=None, port=0, tied=True, databases=databases
        )
        with start_redis(config, report) as server:
            yield server
