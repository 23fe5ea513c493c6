"""Local stack: Redis, OpenSearch and the service's processes, started and stopped together.

`Stack` starts missing processes in order, and stops exactly the processes that a failed start began. Each command makes
its own `Stack`; the records in the state directory list running processes (docs/decisions/0011). `service_processes`
defines the service's processes, with the command and the readiness check of each.
"""

import os
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from infra import processes
from infra.local_servers import LocalSettings, Report
from infra.opensearch.node import Node, NodeConfig, start_node
from infra.ports import require_free_port
from infra.processes import ChildProcess, raise_on_signals
from infra.redis import RedisConfig, RedisServer, start_redis
from services.directories import hold_lock, make_directory, resolve_state_directory
from services.encoders.manifest import MANIFEST_FILE, WEIGHTS_ROOT, expand_path
from services.errors import BackendUnavailable, ConfigurationError
from services.settings import Settings, format_http_address, redact_addresses

# In the order of their metrics ports, from SPARSEWELL_METRICS_PORT on.
METRICS_PORTS = ("api", "worker", "sweeper", "models")


@dataclass(frozen=True)
class ServiceProcess:
    """Process of the service. `ready` checks once; `wait_until_ready` repeats it."""

    name: str
    command: tuple[str, ...]
    address: str
    ready: Callable[[ChildProcess], bool]


def service_processes(settings: Settings) -> tuple[ServiceProcess, ...]:
    """Return the service's processes, in the order of their start.

    The model process is one of them when the settings' `model_url` is its address on this machine.
    """
    api = format_http_address(settings.api_host, settings.api_port)
    models = format_http_address(settings.model_host, settings.model_port)
    models_process = ServiceProcess(
        "models", _cli_command("models", "serve"), models, lambda child: _succeeds(f"{models}/healthz")
    )
    return (
        *((models_process,) if settings.model_url.rstrip("/") == models else ()),
        ServiceProcess("worker", _cli_command("worker"), "", lambda child: _worker_answers(settings)),
        ServiceProcess("sweeper", _cli_command("sweeper"), "", _survives_startup),
        ServiceProcess("api", _cli_command("api"), api, lambda child: _succeeds(f"{api}/readyz")),
    )


def _cli_command(*words: str) -> tuple[str, ...]:
    # The same interpreter, so that the children have our packages with any PATH.
    return (sys.executable, "-m", "cli.main", *words)


def _succeeds(url: str) -> bool:
    """Tell whether a GET of the URL is answered with a status of success."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _worker_answers(settings: Settings) -> bool:
    from celery import Celery
    from kombu.exceptions import OperationalError

    with Celery(broker=settings.redis_address, set_as_current=False) as app:
        try:
            return bool(app.control.ping(timeout=0.5, limit=1))
        except (OperationalError, OSError):
            return False


def _survives_startup(child: ChildProcess) -> bool:
    """Return whether the sweeper, which listens on no port, has run for 1.5 s and so survived its imports."""
    return child.alive() and child.age() > 1.5


def wait_until_ready(service: ServiceProcess, child: ChildProcess, timeout: float) -> None:
    """Return once the process is ready.

    Raises BackendUnavailable (`part_died`, `part_not_ready`) with the end of its log.
    """

    def error(code: str, event: str) -> BackendUnavailable:
        tail = processes.read_last_lines(Path(child.log))
        return BackendUnavailable(code, f"The {service.name} {event}. The end of its log ({child.log}):\n{tail}")

    processes.wait_until_ready(
        child,
        lambda: service.ready(child),
        timeout,
        pause=0.2,
        died=lambda: error("part_died", "ended during its start"),
        late=lambda: error("part_not_ready", f"was not ready within {timeout:.0f} s"),
    )


def settings_environment(settings: Settings) -> dict[str, str]:
    """Return the environment variables that give a child the same settings, without the defaults.

    A child has another working directory, so an encoder's relative path becomes absolute.
    """
    values = settings.model_dump(exclude_defaults=True)
    # As in resolve_model_directory, the name of shipped weights comes first; an unknown name fails in the child.
    if not (WEIGHTS_ROOT / settings.encoder / MANIFEST_FILE).is_file():
        directory = expand_path(settings.encoder)
        if directory.is_dir():
            values["encoder"] = directory.resolve()
    return {f"SPARSEWELL_{name.upper()}": str(value) for name, value in values.items() if value is not None}


def metrics_environment(settings: Settings, name: str) -> dict[str, str]:
    """Return the variable with a process's metrics port; the ports of one machine count up from the setting."""
    if not settings.metrics_port:
        return {}
    return {"SPARSEWELL_METRICS_PORT": str(settings.metrics_port + METRICS_PORTS.index(name))}


@dataclass(frozen=True)
class ProcessStatus:
    """Row of `sparsewell status`. `where` is the address; `external`: a server that sparsewell did not start."""

    name: str
    running: bool
    pid: int | None
    where: str
    log: str
    external: bool = False


class Stack:
    """Servers and processes of one state directory."""

    def __init__(self, local: LocalSettings, settings: Settings) -> None:
        self._local = local
        self._directory = resolve_state_directory(local) / "stack"
        # The record of a running server has its address; with port 0 the settings do not.
        node, server = Node.find(NodeConfig.of(local).root), RedisServer.find(RedisConfig.of(local).root)
        node_url = local.opensearch_url or (node.url if node else f"http://127.0.0.1:{local.opensearch_port}")
        redis_url = local.redis_url or (server.url if server else f"redis://127.0.0.1:{local.redis_port}/0")
        self._settings = settings.model_copy(update={"opensearch_url": node_url, "redis_url": redis_url})

    @property
    def settings(self) -> Settings:
        """Return the settings of the processes, with the servers' addresses."""
        return self._settings

    @property
    def api_url(self) -> str:
        """Return the address of the API and of the page."""
        return format_http_address(self._settings.api_host, self._settings.api_port)

    def up(self, report: Report, *, wait: bool = True, tied: bool = False) -> list[str]:
        """Start the processes that do not run yet and return their names. On an error, stop only these and raise it.

        OpenSearch and Redis are always waited for, the other processes if `wait`. `tied` processes die with this
        process.
        """
        if self._settings.api_port == 0:
            raise ConfigurationError(
                "bad_setting", "SPARSEWELL_API_PORT=0 is for `sparsewell api` alone. Set a port for the API."
            )
        make_directory(self._directory)
        started: list[str] = []
        with self._lock(report), ExitStack() as undo:
            undo.callback(self._stop, started, report)
            self._start_redis(started, report, tied)
            self._start_node(started, report, tied)
            for service in service_processes(self._settings):
                self._start_service(service, started, report, tied)
            if wait:
                self._wait(report)
            undo.pop_all()
        return started

    def down(self, report: Report, only: Collection[str] | None = None) -> list[str]:
        """Stop the running processes, or only the named ones, in reverse order of the start; return the names."""
        make_directory(self._directory)
        with self._lock(report):
            return self._stop(only, report)

    def status(self) -> list[ProcessStatus]:
        """Return a row for each server and process, running or not."""
        children = {name: child for name, child, _ in self._running()}
        logs = resolve_state_directory(self._local)
        node_url = self._settings.opensearch_url
        rows = [
            self._row("redis", children, self._settings.redis_url, logs / "redis", bool(self._local.redis_url)),
            self._row("opensearch", children, node_url, logs / "opensearch" / "logs", bool(self._local.opensearch_url)),
        ]
        services = service_processes(self._settings)
        return rows + [
            self._row(service.name, children, service.address, self._log(service.name), False) for service in services
        ]

    def _row(
        self, name: str, children: dict[str, ChildProcess], where: str, log: Path, external: bool
    ) -> ProcessStatus:
        child = children.get(name)
        return ProcessStatus(
            name, child is not None, child.pid if child else None, redact_addresses(where), str(log), external
        )

    def _lock(self, report: Report) -> AbstractContextManager[None]:
        return hold_lock(
            self._directory / ".lock",
            lambda: report("Another sparsewell command is starting or stopping the stack; waiting for it."),
        )

    def _start_redis(self, started: list[str], report: Report, tied: bool) -> None:
        if self._local.redis_url:
            report(f"REDIS_URL is set: using {redact_addresses(self._local.redis_url)}, starting no Redis.")
            return
        config = RedisConfig.of(self._local)
        if RedisServer.find(config.root) is None:
            server = start_redis(replace(config, tied=tied), report)
            self._settings = self._settings.model_copy(update={"redis_url": server.url})
            started.append("redis")

    def _start_node(self, started: list[str], report: Report, tied: bool) -> None:
        if self._local.opensearch_url:
            report(
                f"OPENSEARCH_URL is set: using {redact_addresses(self._local.opensearch_url)}, starting no OpenSearch."
            )
            return
        config = NodeConfig.of(self._local)
        if Node.find(config.root) is None:
            node = start_node(replace(config, tied=tied), report)
            self._settings = self._settings.model_copy(update={"opensearch_url": node.url})
            started.append("opensearch")

    def _start_service(self, service: ServiceProcess, started: list[str], report: Report, tied: bool) -> None:
        if self._child(service.name) is not None:
            return
        if service.name == "api":
            require_free_port(self._settings.api_port, "the API", "SPARSEWELL_API_PORT")
        log = self._log(service.name)
        processes.rotate_log(log)
        report(f"Starting the {service.name}.")
        child = processes.start_child(
            service.name,
            service.command,
            log,
            environment={
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                **settings_environment(self._settings),
                **metrics_environment(self._settings, service.name),
            },
            directory=self._directory,
            tied=tied,
        )
        started.append(service.name)
        processes.save_child(child, self._record(service.name), where=service.address)

    def _wait(self, report: Report) -> None:
        for service in service_processes(self._settings):
            child = self._child(service.name)
            if child is None:
                # It died since its start; the wait raises the error, with its log.
                child = ChildProcess(service.name, 0, 0.0, str(self._log(service.name)))
            wait_until_ready(service, child, self._local.start_timeout)
            report(f"The {service.name} is ready{f': {service.address}' if service.address else '.'}")

    def _stop(self, only: Collection[str] | None, report: Report) -> list[str]:
        stopped = []
        for name, child, stop in reversed(self._running()):
            if only is None or name in only:
                report(f"Stopping {name} (process {child.pid}).")
                stop()
                stopped.append(name)
        return stopped

    def _running(self) -> list[tuple[str, ChildProcess, Callable[[], object]]]:
        """Return name, process and stop function of each running process, in the order of the start."""
        running: list[tuple[str, ChildProcess, Callable[[], object]]] = []
        if server := RedisServer.find(RedisConfig.of(self._local).root):
            running.append(("redis", server.child, server.stop))
        if node := Node.find(NodeConfig.of(self._local).root):
            running.append(("opensearch", node.child, node.stop))
        children = (self._child(service.name) for service in service_processes(self._settings))
        running.extend((child.name, child, self._stopper(child)) for child in children if child)
        return running

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
    """Run the stack inside the block. At the end, stop exactly the processes that this call started, unless `keep`.

    An error, Ctrl-C, SIGTERM or SIGHUP stops it in any case. Without `keep`, the processes do not even outlive a
    SIGKILL of this process.
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
