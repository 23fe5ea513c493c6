"""Processes and clients of the soak test.

`SoakStack` has two data nodes and a voter, Redis, two APIs, a worker and the sweeper, and restarts each of them.
`SoakClients` send searches and writes at a rate, and log the outcome of each.
"""

import asyncio
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson
import psutil

from benchmarks.service import LoopbackConnection, start_process
from infra import processes
from infra.local_servers import LocalSettings
from infra.opensearch.cluster import cluster_configs, start_nodes, temporary_config
from infra.opensearch.node import Node, NodeConfig, launch_node
from infra.ports import find_free_port
from infra.processes import ChildProcess
from infra.redis import RedisConfig, RedisServer, start_redis
from services.settings import Settings

SOAK_INDEX = "soak"
_MAX_ATTEMPTS = 60
_PAUSE_SECONDS = 0.5
_STOP_SECONDS = 60.0


@dataclass
class SoakStack:
    """Running processes.

    A restart returns once the new process is ready. If possible, the new process starts before the old one stops.
    """

    settings: Settings
    directory: Path
    configs: list[NodeConfig]
    nodes: list[Node]
    redis: RedisServer
    redis_config: RedisConfig
    ports: tuple[int, int]
    parts: dict[str, ChildProcess] = field(default_factory=dict)
    _starts: int = 0

    def start(self) -> None:
        """Start the service's own processes."""
        for name in ("worker", "sweeper", "api-0", "api-1"):
            self.parts[name] = self._start(name)

    def restarts(self) -> dict[str, Callable[[], None]]:
        """Return the restarts by name, in the order of a rolling restart."""
        rolled = {name: self._roller(name) for name in ("api-0", "api-1", "worker", "sweeper")}
        nodes = {f"opensearch-{at}": self._node_roller(at) for at in range(len(self.nodes))}
        return rolled | {"redis": self._roll_redis} | nodes

    def memory(self) -> dict[str, tuple[int, float]]:
        """Return process id and MiB of resident memory of each of the service's processes, with their children."""
        sizes: dict[str, tuple[int, float]] = {}
        for name, child in list(self.parts.items()):
            try:
                process = psutil.Process(child.pid)
                tree = [process, *process.children(recursive=True)]
                sizes[name] = child.pid, sum(member.memory_info().rss for member in tree) / 1024**2
            except psutil.NoSuchProcess:
                continue
        return sizes

    def stop(self) -> None:
        """Stop everything, the stores last."""
        for child in self.parts.values():
            processes.stop_child(child, _STOP_SECONDS)
        self.redis.stop()
        for node in self.nodes:
            node.stop()

    def _start(self, name: str) -> ChildProcess:
        kind, _, number = name.partition("-")
        settings = self.settings.model_copy(update={"api_port": self.ports[int(number)]} if number else {})
        self._starts += 1
        return start_process(settings, kind, self.directory / f"{name}-{self._starts}.log")

    def _roller(self, name: str) -> Callable[[], None]:
        def roll() -> None:
            old = self.parts[name]
            if name.startswith("api"):  # the new API needs the port; the other API answers meanwhile
                processes.stop_child(old, _STOP_SECONDS)
                self.parts[name] = self._start(name)
            else:
                self.parts[name] = self._start(name)
                processes.stop_child(old, _STOP_SECONDS)

        return roll

    def _roll_redis(self) -> None:
        self.redis.stop()
        self.redis = start_redis(self.redis_config)

    def _node_roller(self, at: int) -> Callable[[], None]:
        def roll() -> None:
            self.nodes[at].stop()
            self.nodes[at] = launch_node(self.configs[at], print).wait(print, nodes=len(self.configs))

        return roll


@contextmanager
def open_soak_stack(workers: int) -> Iterator[SoakStack]:
    """Run the whole stack on free ports with temporary data."""
    local = LocalSettings.read()
    with ExitStack() as undo:
        base = undo.enter_context(temporary_config(local))
        logs = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="sparsewell-soak-")))
        configs = [replace(config, http_port=find_free_port()) for config in cluster_configs(base, base.root, 2)]
        nodes = start_nodes(configs, print, undo)
        redis_config = replace(
            RedisConfig.of(local), root=base.root.parent / "redis", data=None, port=find_free_port(), tied=True
        )
        redis = start_redis(redis_config)
        settings = Settings(
            opensearch_url=",".join(node.url for node in nodes[:-1]),
            redis_url=redis.url,
            index_prefix="soak",
            replicas=1,
            worker_concurrency=workers,
        )
        stack = SoakStack(settings, logs, configs, nodes, redis, redis_config, (find_free_port(), find_free_port()))
        undo.callback(stack.stop)
        stack.start()
        yield stack


@dataclass
class SoakLog:
    """Outcomes: searches as (seconds since the start, milliseconds), and acknowledged documents by version."""

    searches: list[tuple[float, float]] = field(default_factory=list)
    repeated_searches: int = 0
    failed: list[str] = field(default_factory=list)
    acknowledged: dict[str, int] = field(default_factory=dict)
    repeated_writes: int = 0


class BalancedClient:
    """Client of two APIs that sends a failed request to the other one, as a load balancer does."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = list(addresses)
        self._at = 0
        self._kept: LoopbackConnection | None = None

    async def send(self, method: str, path: str, body: bytes, tries: int) -> tuple[Any, int]:
        """Return the answer, and the number of repeats. Raises the last error after `tries` attempts."""
        for attempt in range(tries):
            try:
                if self._kept is None:
                    self._kept = await LoopbackConnection(self._addresses[self._at]).__aenter__()
                return await self._kept.send(method, path, body), attempt
            except (OSError, EOFError, RuntimeError, asyncio.IncompleteReadError):
                self._kept = None
                self._at = (self._at + 1) % len(self._addresses)
                if attempt == tries - 1:
                    raise
                if attempt:
                    await asyncio.sleep(_PAUSE_SECONDS)
        raise AssertionError(tries)


class SoakClients:
    """Clients with `connections` connections that share one stream of work."""

    def __init__(
        self, addresses: Sequence[str], queries: Sequence[str], texts: Sequence[str], connections: int
    ) -> None:
        self.log = SoakLog()
        self._queries, self._texts = queries, texts
        self._free: asyncio.Queue[BalancedClient] = asyncio.Queue()
        for _ in range(connections):
            self._free.put_nowait(BalancedClient(addresses))
        self._chance = random.Random(1)
        self._written = 0

    async def search(self, due: float, started: float) -> None:
        """Send a hybrid search; its duration counts from when it was due."""
        body = orjson.dumps({"query": self._chance.choice(self._queries)})
        client = await self._free.get()
        try:
            _, repeats = await client.send("POST", f"/v1/indexes/{SOAK_INDEX}/search", body, 3)
            self.log.repeated_searches += repeats > 0
            self.log.searches.append((due - started, (perf_counter() - due) * 1000))
        except (OSError, EOFError, RuntimeError) as error:
            self.log.failed.append(f"{due - started:.1f} s: {str(error)[:200]}")
        finally:
            self._free.put_nowait(client)

    async def write(self, max_ids: int) -> None:
        """Write a document with one of `max_ids` ids in turn, in a newer version, until it is acknowledged."""
        number = self._written
        self._written += 1
        name, version = f"d{number % max_ids}", number // max_ids + 1
        text = self._texts[number % len(self._texts)]
        body = orjson.dumps([{"id": name, "text": text, "version": version}])
        client = await self._free.get()
        try:
            answer, repeats = await client.send("POST", f"/v1/indexes/{SOAK_INDEX}/documents", body, _MAX_ATTEMPTS)
            self.log.repeated_writes += repeats
            if answer["rejected"]:
                raise RuntimeError(str(answer["rejected"])[:200])
            self.log.acknowledged[name] = max(version, self.log.acknowledged.get(name, 0))
        except (OSError, EOFError, RuntimeError) as error:
            self.log.failed.append(f"document {name}: {str(error)[:200]}")
        finally:
            self._free.put_nowait(client)

    async def closed_loop(self, seconds: float, share: int, max_ids: int) -> float:
        """Return units of work per second (`share` searches and a write) with all connections busy."""
        started, done = perf_counter(), 0

        async def work() -> None:
            nonlocal done
            while perf_counter() < started + seconds:
                for _ in range(share):
                    await self.search(perf_counter(), started)
                await self.write(max_ids)
                done += 1

        await asyncio.gather(*(work() for _ in range(self._free.qsize())))
        return done / (perf_counter() - started)

    async def at_rate(self, rate: float, seconds: float, share: int, max_ids: int) -> None:
        """Send units of work as a Poisson process, before earlier ones are answered."""
        started = due = perf_counter()
        under_way: set[asyncio.Task[None]] = set()
        each = rate * (share + 1)
        while due < started + seconds:
            await asyncio.sleep(max(0.0, due - perf_counter()))
            request = self.write(max_ids) if self._chance.random() < 1 / (share + 1) else self.search(due, started)
            task = asyncio.create_task(request)
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            due += self._chance.expovariate(each)
        await asyncio.gather(*under_way)
