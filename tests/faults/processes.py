"""Kill, pause and restart real processes. Each has its own process group, and tests stop it by pid."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree

import psutil
import pytest
import redis

from infra import processes
from infra.local_servers import LocalSettings
from infra.opensearch.node import Node, NodeConfig, start_node
from infra.ports import find_free_port, is_port_taken
from infra.processes import ChildProcess
from infra.redis import redis_command
from services.directories import child_account, make_directory
from tests.preloaded import start_program


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Return once the condition holds. Fail and name the condition if it does not hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"after {seconds:.0f} s still waiting until {what}")
        time.sleep(0.05)


@dataclass(frozen=True)
class Running:
    """A process that a test started, with all its child processes."""

    child: ChildProcess

    @classmethod
    def start(cls, name: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> "Running":
        return cls(start_program(name, arguments, log, environment=environment, directory=log.parent))

    @property
    def alive(self) -> bool:
        return self.child.alive()

    @property
    def log(self) -> str:
        """Return the log of the process so far."""
        return Path(self.child.log).read_text(errors="replace")

    @property
    def children(self) -> list[psutil.Process]:
        """Return the child processes, such as a worker's pool."""
        try:
            return psutil.Process(self.child.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        os.kill(self.child.pid, number)

    def send_all(self, number: signal.Signals) -> None:
        """Send a signal to the process and all its children."""
        for process in [*self.children, psutil.Process(self.child.pid)]:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def kill(self) -> None:
        """Send SIGKILL to the process and its pool."""
        self.send_all(signal.SIGKILL)
        wait_for(lambda: not self.alive, 60, f"{self.child.name} is dead")
        processes.stop_child(self.child, 0)

    def pause(self) -> None:
        self.send_all(signal.SIGSTOP)

    def resume(self) -> None:
        self.send_all(signal.SIGCONT)

    def terminate(self, seconds: float = 30) -> None:
        """Send SIGTERM and wait until the process has ended."""
        self.send(signal.SIGTERM)
        wait_for(lambda: not self.alive, seconds, f"{self.child.name} has ended")
        processes.stop_child(self.child, 0)

    def close(self) -> None:
        """Kill the process in any state. The tests do not need its last output, so they do not stop it in order."""
        if self.alive:
            self.kill()
        processes.stop_child(self.child, 0)


class RedisProcess:
    """A redis-server with one port and one data directory, through several restarts.

    `append_only` writes every change to the append-only file. `max_memory` is in bytes, 0 for no limit. Redis refuses
    writes beyond it and drops nothing.
    """

    def __init__(self, directory: Path, local: LocalSettings, *, append_only: bool = True, max_memory: int = 0) -> None:
        self.append_only, self.max_memory = append_only, max_memory
        self.port = find_free_port()
        self.url = self.database(0)
        self._account = child_account(local.run_as)
        self._directory = directory
        self._running: Running | None = None

    def database(self, number: int) -> str:
        """Return the address of one of its sixteen databases.

        Installations that share a Redis must not share a queue.
        """
        return f"redis://127.0.0.1:{self.port}/{number}"

    @property
    def data(self) -> Path:
        return self._directory / "data"

    def start(self) -> None:
        """Return once Redis has loaded its file and answers."""
        binary = shutil.which("redis-server")
        assert binary, "redis-server is not on the PATH"
        data = make_directory(self.data, self._account)
        arguments = redis_command(binary, port=self.port, data=data, databases=16)
        arguments += ["--appendonly", "yes" if self.append_only else "no", "--maxmemory", str(self.max_memory)]
        child = processes.start_child(
            "redis",
            arguments,
            self._directory / "redis.log",
            environment={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
            directory=data,
            account=self._account,
            tied=True,
        )
        self._running = Running(child)
        wait_for(self.answers, 60, "Redis answers")

    def answers(self) -> bool:
        with closing(self.client()) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def client(self) -> "redis.Redis":
        return redis.Redis.from_url(self.url, socket_timeout=5, socket_connect_timeout=2)

    @property
    def process(self) -> Running:
        assert self._running is not None, "it was not started"
        return self._running

    def kill(self) -> None:
        self.process.kill()

    def limit(self, max_memory: int) -> None:
        """Set the memory limit without a restart. The limit 1 makes Redis full."""
        with closing(self.client()) as client:
            client.config_set("maxmemory", max_memory)

    def delete_data(self) -> None:
        """Remove the data on disk after a kill."""
        rmtree(self.data)

    def close(self) -> None:
        if self._running is not None:
            self._running.close()


class OpenSearchProcess:
    """A node of a test with one port and one data directory, through several restarts.

    `further` are lines of its opensearch.yml.
    """

    def __init__(
        self, directory: Path, local: LocalSettings, heap: str = "512m", further: Mapping[str, object] | None = None
    ) -> None:
        self.port = find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._config = replace(
            NodeConfig.of(local),
            root=directory / "opensearch",
            data=None,
            http_port=self.port,
            transport_port=0,
            heap=heap,
            tied=True,
            extra_settings=further or {},
        )
        self._node: Node | None = None

    def start(self) -> None:
        """Return once the node is green."""
        self._node = start_node(self._config)

    @property
    def process(self) -> Running:
        assert self._node is not None, "it was not started"
        return Running(self._node.child)

    def kill(self) -> None:
        """Send SIGKILL.

        The threads end one after the other, so the port may stay in use a little longer than the process.
        """
        self.process.kill()
        wait_for(lambda: not is_port_taken(self.port), 60, "its port is free again")

    def close(self) -> None:
        if self._node is not None:
            self.process.close()
