"""Real processes that can be killed, paused and started again: each in a process group of its own, stopped by pid."""

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
from infra.processes import ChildProcess, find_free_port, is_port_taken
from infra.redis import redis_command
from services.directories import child_account, make_directory


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Returns once the condition holds; fails, naming it, when it does not within the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"after {seconds:.0f} s still waiting until {what}")
        time.sleep(0.05)


@dataclass(frozen=True)
class Running:
    """A started process and all that it started."""

    child: ChildProcess

    @classmethod
    def start(cls, name: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> "Running":
        return cls(
            processes.start_child(name, arguments, log, environment=environment, directory=log.parent, tied=True)
        )

    @property
    def alive(self) -> bool:
        return self.child.alive()

    @property
    def log(self) -> str:
        """The log of the process so far."""
        return Path(self.child.log).read_text(errors="replace")

    @property
    def children(self) -> list[psutil.Process]:
        """The processes that it started: a worker's pool."""
        try:
            return psutil.Process(self.child.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def send(self, number: signal.Signals) -> None:
        """To the process alone."""
        os.kill(self.child.pid, number)

    def send_all(self, number: signal.Signals) -> None:
        """To the process and all that it started."""
        for process in [*self.children, psutil.Process(self.child.pid)]:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def kill(self) -> None:
        """kill -9, pool and all."""
        self.send_all(signal.SIGKILL)
        wait_for(lambda: not self.alive, 60, f"{self.child.name} is dead")
        processes.stop_child(self.child, 0)

    def pause(self) -> None:
        self.send_all(signal.SIGSTOP)

    def resume(self) -> None:
        self.send_all(signal.SIGCONT)

    def terminate(self, seconds: float = 30) -> None:
        """SIGTERM, and waits until it has ended by itself."""
        self.send(signal.SIGTERM)
        wait_for(lambda: not self.alive, seconds, f"{self.child.name} has ended")
        processes.stop_child(self.child, 0)

    def close(self) -> None:
        """Whatever state it is in: it is gone afterwards. Nobody needs its last words, so it is not asked to end."""
        if self.alive:
            self.kill()
        processes.stop_child(self.child, 0)


class RedisProcess:
    """A redis-server on one port with one data directory, through several lives.

    `append_only`: every write in the append-only file. `max_memory`: bytes, 0 for no limit; writes beyond it are
    refused, nothing is dropped.
    """

    def __init__(self, directory: Path, local: LocalSettings, *, append_only: bool = True, max_memory: int = 0) -> None:
        self.append_only, self.max_memory = append_only, max_memory
        self.port = find_free_port()
        self.url = self.database(0)
        self._account = child_account(local.run_as)
        self._directory = directory
        self._running: Running | None = None

    def database(self, number: int) -> str:
        """The address of one of its sixteen databases: installations that share a Redis must not share a queue."""
        return f"redis://127.0.0.1:{self.port}/{number}"

    @property
    def data(self) -> Path:
        return self._directory / "data"

    def start(self) -> None:
        """Returns once it answers, its file loaded."""
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
        """From now on, without a restart. 1: it is full."""
        with closing(self.client()) as client:
            client.config_set("maxmemory", max_memory)

    def delete_data(self) -> None:
        """After a kill: what it had on disk is gone."""
        rmtree(self.data)

    def close(self) -> None:
        if self._running is not None:
            self._running.close()


class OpenSearchProcess:
    """A node of a test's own on one port with one data directory, through several lives.

    `further`: lines of its opensearch.yml.
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
        """Returns once it is green."""
        self._node = start_node(self._config)

    @property
    def process(self) -> Running:
        assert self._node is not None, "it was not started"
        return Running(self._node.child)

    def kill(self) -> None:
        """kill -9. Its threads end one after the other, so its port may be held a little longer than its process."""
        self.process.kill()
        wait_for(lambda: not is_port_taken(self.port), 60, "its port is free again")

    def close(self) -> None:
        if self._node is not None:
            self.process.close()
