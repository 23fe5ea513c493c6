"""Starts, watches and stops the parts together; remembers between commands what it started.

The processes of the service: how each is started and how one sees that it is ready.
"""

import os
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import httpx

from infra import processes
from infra.opensearch.node import NodeConfig, find_node, start_node
from infra.processes import ChildProcess, raise_on_signals, require_free_port
from infra.redis import RedisConfig, find_redis, start_redis
from infra.settings import LocalSettings
from services.directories import hold_lock, make_directory, resolve_state_directory
from services.encoders.manifest import MANIFEST_FILE, WEIGHTS_ROOT, expand_path
from services.errors import BackendUnavailable, ConfigurationError, EncoderMismatch
from services.settings import Settings, format_http_address, redact_addresses

# In the order of their ports, from SPARSEWELL_METRICS_PORT on.
METRICS_PORTS = ("api", "worker", "sweeper", "models")


@dataclass(frozen=True)
class ServiceProcess:
    """A process of the service. `ready` looks once; it is asked again until it says yes."""

    name: str
    command: tuple[str, ...]
    address: str
    ready: Callable[[ChildProcess], bool]


def service_processes(settings: Settings) -> tuple[ServiceProcess, ...]:
    """The service's own processes, in the order in which they are started.

    The model process is one of them where the API is told to ask the one that would listen here.
    """
    api = format_http_address(settings.api_host, settings.api_port)
    models = format_http_address(settings.model_host, settings.model_port)
    ready = partial(_is_healthy, models)
    here = settings.model_url.rstrip("/") == models
    return (
        *((ServiceProcess("models", _cli_command("models", "serve"), models, ready),) if here else ()),
        ServiceProcess("worker", _cli_command("worker"), "", lambda child: _worker_answers(settings)),
        ServiceProcess("sweeper", _cli_command("sweeper"), "", _survives_startup),
        ServiceProcess("api", _cli_command("api"), api, lambda child: _api_is_ready(api)),
    )


def _cli_command(*words: str) -> tuple[str, ...]:
    # The interpreter that runs us, so that the children have the same environment whatever the PATH says.
    return (sys.executable, "-m", "cli.main", *words)


def settings_environment(settings: Settings) -> dict[str, str]:
    """The environment variables that make a child read the same settings; only what differs from the defaults.

    A child works in another directory, so a relative path of an encoder becomes an absolute one.
    """
    chosen = settings.model_dump(exclude_defaults=True)
    # (a name of shipped weights comes first, as in services.encoders.manifest.resolve_model_directory; what is neither is left for its error)
    if not (WEIGHTS_ROOT / settings.encoder / MANIFEST_FILE).is_file():
        directory = expand_path(settings.encoder)
        if directory.is_dir():
            chosen["encoder"] = directory.resolve()
    return {f"SPARSEWELL_{name.upper()}": str(value) for name, value in chosen.items() if value is not None}


def metrics_environment(settings: Settings, part: str) -> dict[str, str]:
    """Of parts that share a machine each has a port of its own for its metrics, counted from that of the settings."""
    if not settings.metrics_port:
        return {}
    return {"SPARSEWELL_METRICS_PORT": str(settings.metrics_port + METRICS_PORTS.index(part))}


def wait_until_ready(part: ServiceProcess, child: ChildProcess, timeout: float) -> None:
    """Returns once the part is ready; `part_died` or `part_not_ready`, with the end of its log, otherwise."""
    deadline = time.monotonic() + timeout
    while not part.ready(child):
        if not child.alive():
            raise BackendUnavailable(
                "part_died",
                f"The {part.name} ended while it started. The end of its log ({child.log}):\n"
                f"{processes.read_last_lines(Path(child.log))}",
            )
        if time.monotonic() > deadline:
            raise BackendUnavailable(
                "part_not_ready",
                f"The {part.name} was not ready within {timeout:.0f} s. The end of its log ({child.log}):\n"
                f"{processes.read_last_lines(Path(child.log))}",
            )
        time.sleep(0.2)


def _is_healthy(address: str, child: ChildProcess) -> bool:
    try:
        return httpx.get(f"{address}/healthz", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _api_is_ready(address: str) -> bool:
    try:
        answer = httpx.get(f"{address}/readyz", timeout=2, trust_env=False)
        problem = {} if answer.is_success else answer.json()
    except (httpx.HTTPError, ValueError):
        return False
    if problem.get("code") == "encoder_mismatch":
        # Waiting does not help: an index here was encoded with something that this API has no query table for.
        raise EncoderMismatch("encoder_mismatch", f"The API is up and refuses to search. {problem.get('detail', '')}")
    return answer.is_success


def _worker_answers(settings: Settings) -> bool:
    from celery import Celery
    from kombu.exceptions import OperationalError

    with Celery(broker=settings.redis_address, set_as_current=False) as app:
        try:
            return bool(app.control.ping(timeout=0.5, limit=1))
        except (OperationalError, OSError):
            return False


def _survives_startup(child: ChildProcess) -> bool:
    """The sweeper serves nobody whom one could ask: it is ready once it has lived through its imports."""
    return child.alive() and time.time() - child.started > 1.5


Report = Callable[[str], None]


@dataclass(frozen=True)
class ProcessStatus:
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
        self._directory = resolve_state_directory(local) / "stack"
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
        return format_http_address(self._settings.api_host, self._settings.api_port)

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
            for part in service_processes(self._settings):
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

    def status(self) -> list[ProcessStatus]:
        """Every part, running or not."""
        children = {name: child for name, child, _ in self._running()}
        logs = resolve_state_directory(self._local)
        node_url = self._settings.opensearch_url
        rows = [
            self._row("redis", children, self._settings.redis_url, logs / "redis", bool(self._local.redis_url)),
            self._row("opensearch", children, node_url, logs / "opensearch" / "logs", bool(self._local.opensearch_url)),
        ]
        parts = service_processes(self._settings)
        return rows + [self._row(part.name, children, part.address, self._log(part.name), False) for part in parts]

    def _row(
        self, name: str, children: dict[str, ChildProcess], where: str, log: Path, external: bool
    ) -> ProcessStatus:
        child = children.get(name)
        return ProcessStatus(
            name, child is not None, child.pid if child else None, redact_addresses(where), str(log), external
        )

    def _lock(self, report: Report) -> AbstractContextManager[None]:
        return hold_lock(self._directory / ".lock", lambda: report("Another sparsewell command is at it; waiting."))

    def _start_redis(self, started: list[str], report: Report, tied: bool) -> None:
        if self._local.redis_url:
            report(f"REDIS_URL is set: {redact_addresses(self._local.redis_url)} is used, none is started.")
            return
        config = RedisConfig.of(self._local)
        if find_redis(config.root) is None:
            server = start_redis(replace(config, tied=tied), report)
            self._settings = self._settings.model_copy(update={"redis_url": server.url})
            started.append("redis")

    def _start_node(self, started: list[str], report: Report, tied: bool) -> None:
        if self._local.opensearch_url:
            report(f"OPENSEARCH_URL is set: {redact_addresses(self._local.opensearch_url)} is used, none is started.")
            return
        config = NodeConfig.of(self._local)
        if find_node(config.root) is None:
            node = start_node(replace(config, tied=tied), report)
            self._settings = self._settings.model_copy(update={"opensearch_url": node.url})
            started.append("opensearch")

    def _start_part(self, part: ServiceProcess, started: list[str], report: Report, tied: bool) -> None:
        if self._child(part.name) is not None:
            return
        if part.name == "api":
            require_free_port(self._settings.api_port, "the API", "SPARSEWELL_API_PORT")
        log = self._log(part.name)
        processes.rotate_log(log)
        report(f"Starting the {part.name}.")
        child = processes.start_child(
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
        processes.save_child(child, self._record(part.name), where=part.address)

    def _wait(self, report: Report) -> None:
        for part in service_processes(self._settings):
            child = self._child(part.name)
            if child is None:
                # It died between its start and now: the wait says so, with its log.
                child = ChildProcess(part.name, 0, 0.0, str(self._log(part.name)))
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

    def _running(self) -> list[tuple[str, ChildProcess, Callable[[], object]]]:
        """Name, process and way to stop of what runs, in the order of starting."""
        found: list[tuple[str, ChildProcess, Callable[[], object]]] = []
        if server := find_redis(RedisConfig.of(self._local).root):
            found.append(("redis", server.child, server.stop))
        if node := find_node(NodeConfig.of(self._local).root):
            found.append(("opensearch", node.child, node.stop))
        children = (self._child(part.name) for part in service_processes(self._settings))
        found.extend((child.name, child, self._stopper(child)) for child in children if child)
        return found

    def _stopper(self, child: ChildProcess) -> Callable[[], object]:
        def stop() -> None:
            processes.stop_child(child, self._local.stop_timeout)
            self._record(child.name).unlink(missing_ok=True)

        return stop

    def _child(self, name: str) -> ChildProcess | None:
        record = processes.load_child(self._record(name))
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
    with raise_on_signals():
        started = stack.up(report, tied=not keep)
        try:
            yield stack
        except BaseException:
            stack.down(report, started)
            raise
    if not keep:
        stack.down(report, started)
