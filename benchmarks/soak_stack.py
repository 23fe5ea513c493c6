"""Everything that a soak restarts in turn: two data nodes and a voter, Redis, two APIs, a worker, the sweeper.

Clients of a soak: two addresses as of a balancer, searches and documents at a rate, and what became of each.
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
from infra.opensearch.cluster import cluster_configs, start_nodes, temporary_config
from infra.opensearch.node import Node, NodeConfig, launch_node
from infra.processes import ChildProcess, find_free_port
from infra.redis import RedisConfig, RedisServer, start_redis
from infra.settings import LocalSettings
from services.settings import Settings

_MAX_ATTEMPTS = 60
_PAUSE_SECONDS = 0.5
SOAK_INDEX = "soak"


class BalancedClient:
    """A client of two APIs: what one does not answer is asked of the other, as a balancer in front of them does."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = list(addresses)
        self._at = 0
        self._kept: LoopbackConnection | None = None

    async def send(self, method: str, path: str, body: bytes, tries: int) -> tuple[Any, int]:
        """The answer, and how often it had to ask again. Raises the last error."""
        for again in range(tries):
            try:
                if self._kept is None:
                    self._kept = await LoopbackConnection(self._addresses[self._at]).__aenter__()
                return await self._kept.send(method, path, body), again
            except (OSError, EOFError, RuntimeError, asyncio.IncompleteReadError):
                self._kept = None
                self._at = (self._at + 1) % len(self._addresses)
                if again == tries - 1:
                    raise
                if again:
                    await asyncio.sleep(_PAUSE_SECONDS)
        raise AssertionError(tries)


@dataclass
class SoakLog:
    """What happened: (seconds since the beginning, milliseconds) of searches; documents acknowledged, by version."""

    searches: list[tuple[float, float]] = field(default_factory=list)
    asked_again: int = 0
    failed: list[str] = field(default_factory=list)
    acknowledged: dict[str, int] = field(default_factory=dict)
    refused: int = 0


class SoakClients:
    """`connections` clients that share one stream of work."""

    def __init__(
        self, addresses: Sequence[str], queries: Sequence[str], texts: Sequence[str], connections: int
    ) -> None:
        self.kept = SoakLog()
        self._queries, self._texts = queries, texts
        self._free: asyncio.Queue[BalancedClient] = asyncio.Queue()
        for _ in range(connections):
            self._free.put_nowait(BalancedClient(addresses))
        self._chance = random.Random(1)
        self._written = 0

    async def search(self, due: float, began: float) -> None:
        """One hybrid search, by the clock from when it was due."""
        body = orjson.dumps({"query": self._chance.choice(self._queries)})
        client = await self._free.get()
        try:
            _, again = await client.send("POST", f"/v1/indexes/{SOAK_INDEX}/search", body, 3)
            self.kept.asked_again += again > 0
            self.kept.searches.append((due - began, (perf_counter() - due) * 1000))
        except (OSError, EOFError, RuntimeError) as error:
            self.kept.failed.append(f"{due - began:.1f} s: {str(error)[:200]}")
        finally:
            self._free.put_nowait(client)

    async def write(self, most: int) -> None:
        """One document of `most` ids in turn, each time in a newer version; sent until it is acknowledged."""
        number = self._written
        self._written += 1
        name, version = f"d{number % most}", number // most + 1
        text = self._texts[number % len(self._texts)]
        body = orjson.dumps([{"id": name, "text": text, "version": version}])
        client = await self._free.get()
        try:
            answer, again = await client.send("POST", f"/v1/indexes/{SOAK_INDEX}/documents", body, _MAX_ATTEMPTS)
            self.kept.refused += again
            if answer["rejected"]:
                raise RuntimeError(str(answer["rejected"])[:200])
            self.kept.acknowledged[name] = max(version, self.kept.acknowledged.get(name, 0))
        except (OSError, EOFError, RuntimeError) as error:
            self.kept.failed.append(f"document {name}: {str(error)[:200]}")
        finally:
            self._free.put_nowait(client)

    async def closed_loop(self, seconds: float, share: int, most: int) -> float:
        """Units of work a second (`share` searches and a document) with as many under way as there are clients."""
        began, done = perf_counter(), 0

        async def one() -> None:
            nonlocal done
            while perf_counter() < began + seconds:
                for _ in range(share):
                    await self.search(perf_counter(), began)
                await self.write(most)
                done += 1

        await asyncio.gather(*(one() for _ in range(self._free.qsize())))
        return done / (perf_counter() - began)

    async def at_rate(self, rate: float, seconds: float, share: int, most: int) -> None:
        """Units of work as a Poisson process, whether earlier ones are answered or not."""
        began = due = perf_counter()
        under_way: set[asyncio.Task[None]] = set()
        each = rate * (share + 1)
        while due < began + seconds:
            await asyncio.sleep(max(0.0, due - perf_counter()))
            work = self.write(most) if self._chance.random() < 1 / (share + 1) else self.search(due, began)
            task = asyncio.create_task(work)
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            due += self._chance.expovariate(each)
        await asyncio.gather(*under_way)


_STOP_SECONDS = 60.0


@dataclass
class SoakStack:
    """What runs. Each restart returns once the new process is ready; where it can, the new one starts first."""

    settings: Settings
    directory: Path
    configs: list[NodeConfig]
    nodes: list[Node]
    redis: RedisServer
    redis_config: RedisConfig
    ports: tuple[int, int]
    parts: dict[str, ChildProcess] = field(default_factory=dict)
    _made: int = 0

    def start(self) -> None:
        """The service's own processes."""
        for name in ("worker", "sweeper", "api-0", "api-1"):
            self.parts[name] = self._started(name)

    def restarts(self) -> dict[str, Callable[[], None]]:
        """By name, in the order in which an operator would roll them."""
        rolled = {name: self._roller(name) for name in ("api-0", "api-1", "worker", "sweeper")}
        nodes = {f"opensearch-{at}": self._node_roller(at) for at in range(len(self.nodes))}
        return rolled | {"redis": self._roll_redis} | nodes

    def memory(self) -> dict[str, tuple[int, float]]:
        """Process and MiB of resident memory of each part of the service, its children counted."""
        found: dict[str, tuple[int, float]] = {}
        for name, child in list(self.parts.items()):
            try:
                process = psutil.Process(child.pid)
                tree = [process, *process.children(recursive=True)]
                found[name] = child.pid, sum(one.memory_info().rss for one in tree) / 1024**2
            except psutil.NoSuchProcess:
                continue
        return found

    def stop(self) -> None:
        """Everything, the stores last."""
        for child in self.parts.values():
            processes.stop_child(child, _STOP_SECONDS)
        self.redis.stop()
        for node in self.nodes:
            node.stop()

    def _started(self, name: str) -> ChildProcess:
        kind, _, number = name.partition("-")
        settings = self.settings.model_copy(update={"api_port": self.ports[int(number)]} if number else {})
        self._made += 1
        return start_process(settings, kind, self.directory / f"{name}-{self._made}.log")

    def _roller(self, name: str) -> Callable[[], None]:
        def roll() -> None:
            old = self.parts[name]
            if name.startswith("api"):  # its port is taken: the other one answers meanwhile
                processes.stop_child(old, _STOP_SECONDS)
                self.parts[name] = self._started(name)
            else:
                self.parts[name] = self._started(name)
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
    """All of it, on free ports with temporary data, gone at the end."""
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
        found = SoakStack(settings, logs, configs, nodes, redis, redis_config, (find_free_port(), find_free_port()))
        undo.callback(found.stop)
        found.start()
        yield found
