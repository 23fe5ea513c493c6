"""Everything that a soak restarts in turn: two data nodes and a voter, Redis, two APIs, a worker, the sweeper."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from benchmarks.service import started
from infra import processes
from infra.opensearch.cluster import cluster_configs, start_together
from infra.opensearch.node import Node, NodeConfig, launch_node
from infra.opensearch.temporary import temporary_config
from infra.ports import free_port
from infra.processes import Child
from infra.redis.server import RedisConfig, RedisServer, start_redis
from infra.settings import LocalSettings
from services.settings import Settings

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
    parts: dict[str, Child] = field(default_factory=dict)
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
            processes.stop(child, _STOP_SECONDS)
        self.redis.stop()
        for node in self.nodes:
            node.stop()

    def _started(self, name: str) -> Child:
        kind, _, number = name.partition("-")
        settings = self.settings.model_copy(update={"api_port": self.ports[int(number)]} if number else {})
        self._made += 1
        return started(settings, kind, self.directory / f"{name}-{self._made}.log")

    def _roller(self, name: str) -> Callable[[], None]:
        def roll() -> None:
            old = self.parts[name]
            if name.startswith("api"):  # its port is taken: the other one answers meanwhile
                processes.stop(old, _STOP_SECONDS)
                self.parts[name] = self._started(name)
            else:
                self.parts[name] = self._started(name)
                processes.stop(old, _STOP_SECONDS)

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
def soak_stack(workers: int) -> Iterator[SoakStack]:
    """All of it, on free ports with temporary data, gone at the end."""
    local = LocalSettings.read()
    with ExitStack() as undo:
        base = undo.enter_context(temporary_config(local))
        logs = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="sparsewell-soak-")))
        configs = [replace(config, http_port=free_port()) for config in cluster_configs(base, base.root, 2)]
        nodes = start_together(configs, print, undo)
        redis_config = replace(
            RedisConfig.of(local), root=base.root.parent / "redis", data=None, port=free_port(), tied=True
        )
        redis = start_redis(redis_config)
        settings = Settings(
            opensearch_url=",".join(node.url for node in nodes[:-1]),
            redis_url=redis.url,
            index_prefix="soak",
            replicas=1,
            worker_concurrency=workers,
        )
        found = SoakStack(settings, logs, configs, nodes, redis, redis_config, (free_port(), free_port()))
        undo.callback(found.stop)
        found.start()
        yield found
