"""Starts, watches and stops the parts together; remembers between commands what it started."""

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from infra import processes
from infra.opensearch.node import NodeConfig, find_node, start_node
from infra.ports import require_free
from infra.processes import Child
from infra.redis.server import RedisConfig, find_redis, start_redis
from infra.settings import LocalSettings
from infra.signals import signals_raise
from infra.stack.parts import Part, metrics_environment, service_parts, settings_environment, wait_until_ready
from services.addresses import http_address, redacted
from services.errors import ConfigurationError
from services.machine.directories import make_directory, state_dir
from services.machine.locks import exclusive
from services.settings import Settings

Report = Callable[[str], None]


@dataclass(frozen=True)
class PartStatus:
    """What `status` shows of one part. `where` is its address, `external` means that it is somebody else's server."""

    name: str
    running: bool
    pid: int | None
    where: str
    log: str
    external: bool = False


class Stack:
    """The parts of one state directory. Every command makes its own; what runs is known from the records there."""

    def __init__(self, local: LocalSettings, settings: Settings) -> None:
        self._local = local
        self._directory = state_dir(local) / "stack"
        # What runs knows its own address: with port 0 nobody else does.
        node, server = find_node(NodeConfig.of(local).root), find_redis(RedisConfig.of(local).root)
        node_url = local.opensearch_url or (node.url if node else f"http://127.0.0.1:{local.opensearch_port}")
        redis_url = local.redis_url or (server.url if server else f"redis://127.0.0.1:{local.redis_port}/0")
        self._settings = settings.model_copy(update={"opensearch_url": node_url, "redis_url": redis_url})

    @property
    def settings(self) -> Settings:
        """The settings that the parts run with, servers' addresses included."""
        return self._settings

    @property
    def api_url(self) -> str:
        """Where the API and the page are."""
        return http_address(self._settings.api_host, self._settings.api_port)

    def up(self, report: Report, *, wait: bool = True, tied: bool = False) -> list[str]:
        """Starts what does not run yet and returns its names; on an error stops exactly that again and raises.

        OpenSearch and Redis are always waited for, the other parts if `wait`. Tied parts die with this process.
        """
        if self._settings.api_port == 0:
            raise ConfigurationError(
                "bad_setting", "SPARSEWELL_API_PORT=0 is for `sparsewell api` alone: here, name the port of the API."
            )
        make_directory(self._directory)
        started: list[str] = []
        with self._lock(report), ExitStack() as undo:
            undo.callback(self._stop, started, report)
            self._start_redis(started, report, tied)
            self._start_node(started, report, tied)
            for part in service_parts(self._settings):
                self._start_part(part, started, report, tied)
            if wait:
                self._wait(report)
            undo.pop_all()
        return started

    def down(self, report: Report, only: Collection[str] | None = None) -> list[str]:
        """Stops what runs (or of it only the named parts), last started first; returns the names."""
        make_directory(self._directory)
        with self._lock(report):
            return self._stop(only, report)

    def status(self) -> list[PartStatus]:
        """Every part, running or not."""
        children = {name: child for name, child, _ in self._running()}
        logs = state_dir(self._local)
        node_url = self._settings.opensearch_url
        rows = [
            self._row("redis", children, self._settings.redis_url, logs / "redis", bool(self._local.redis_url)),
            self._row("opensearch", children, node_url, logs / "opensearch" / "logs", bool(self._local.opensearch_url)),
        ]
        parts = service_parts(self._settings)
        return rows + [self._row(part.name, children, part.address, self._log(part.name), False) for part in parts]

    def _row(self, name: str, children: dict[str, Child], where: str, log: Path, external: bool) -> PartStatus:
        child = children.get(name)
        return PartStatus(name, child is not None, child.pid if child else None, redacted(where), str(log), external)

    def _lock(self, report: Report) -> AbstractContextManager[None]:
        return exclusive(self._directory / ".lock", lambda: report("Another sparsewell command is at it; waiting."))

    def _start_redis(self, started: list[str], report: Report, tied: bool) -> None:
        if self._local.redis_url:
            report(f"REDIS_URL is set: {redacted(self._local.redis_url)} is used, none is started.")
            return
        config = RedisConfig.of(self._local)
        if find_redis(config.root) is None:
            server = start_redis(replace(config, tied=tied), report)
            self._settings = self._settings.model_copy(update={"redis_url": server.url})
            started.append("redis")

    def _start_node(self, started: list[str], report: Report, tied: bool) -> None:
        if self._local.opensearch_url:
            report(f"OPENSEARCH_URL is set: {redacted(self._local.opensearch_url)} is used, none is started.")
            return
        config = NodeConfig.of(self._local)
        if find_node(config.root) is None:
            node = start_node(replace(config, tied=tied), report)
            self._settings = self._settings.model_copy(update={"opensearch_url": node.url})
            started.append("opensearch")

    def _start_part(self, part: Part, started: list[str], report: Report, tied: bool) -> None:
        if self._child(part.name) is not None:
            return
        if part.name == "api":
            require_free(self._settings.api_port, "the API", "SPARSEWELL_API_PORT")
        log = self._log(part.name)
        processes.set_aside(log)
        report(f"Starting the {part.name}.")
        child = processes.start(
            part.name,
            part.command,
            log,
            environment={
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                **settings_environment(self._settings),
                **metrics_environment(self._settings, part.name),
            },
            directory=self._directory,
            tied=tied,
        )
        started.append(part.name)
        processes.save(child, self._record(part.name), where=part.address)

    def _wait(self, report: Report) -> None:
        for part in service_parts(self._settings):
            child = self._child(part.name)
            if child is None:
                # It died between its start and now: the wait says so, with its log.
                child = Child(part.name, 0, 0.0, str(self._log(part.name)))
            wait_until_ready(part, child, self._local.start_timeout)
            report(f"The {part.name} is ready{f': {part.address}' if part.address else '.'}")

    def _stop(self, only: Collection[str] | None, report: Report) -> list[str]:
        stopped = []
        for name, child, stop in reversed(self._running()):
            if only is None or name in only:
                report(f"Stopping {name} (process {child.pid}).")
                stop()
                stopped.append(name)
        return stopped

    def _running(self) -> list[tuple[str, Child, Callable[[], object]]]:
        """Name, process and way to stop of what runs, in the order of starting."""
        found: list[tuple[str, Child, Callable[[], object]]] = []
        if server := find_redis(RedisConfig.of(self._local).root):
            found.append(("redis", server.child, server.stop))
        if node := find_node(NodeConfig.of(self._local).root):
            found.append(("opensearch", node.child, node.stop))
        children = (self._child(part.name) for part in service_parts(self._settings))
        found.extend((child.name, child, self._stopper(child)) for child in children if child)
        return found

    def _stopper(self, child: Child) -> Callable[[], object]:
        def stop() -> None:
            processes.stop(child, self._local.stop_timeout)
            self._record(child.name).unlink(missing_ok=True)

        return stop

    def _child(self, name: str) -> Child | None:
        record = processes.load(self._record(name))
        return record[0] if record and record[0].alive() else None

    def _record(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def _log(self, name: str) -> Path:
        return self._directory / "logs" / f"{name}.log"


@contextmanager
def running_stack(local: LocalSettings, settings: Settings, report: Report, *, keep: bool = False) -> Iterator[Stack]:
    """The stack, up inside the block. At the end exactly what this call started is stopped, unless `keep`.

    An error, Ctrl-C, SIGTERM or SIGHUP stops it too, `keep` or not; parts that are not to be kept do not outlive even
    a SIGKILL of this process.
    """
    stack = Stack(local, settings)
    with signals_raise():
        started = stack.up(report, tied=not keep)
        try:
            yield stack
        except BaseException:
            stack.down(report, started)
            raise
    if not keep:
        stack.down(report, started)
