"""Several nodes on this machine that form one cluster and survive the loss of any of them.

Two nodes hold data. A third, small one holds none and only votes: of two that vote, one alone is never a majority, so
without it the death of the wrong node would stop every write (docs/decisions/0094).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from infra.opensearch.node import Node, NodeConfig, Report, launch_node
from infra.opensearch.temporary import temporary_config
from infra.ports import LOOPBACK, free_port
from infra.settings import LocalSettings

DATA_HEAP, VOTER_HEAP = "512m", "256m"


@dataclass(frozen=True)
class Cluster:
    """The running nodes that hold data, and the one that only votes."""

    data: Sequence[Node]
    voter: Node

    @property
    def url(self) -> str:
        """The addresses of the data nodes, as OPENSEARCH_URL takes them."""
        return ",".join(node.url for node in self.data)


def cluster_configs(base: NodeConfig, directory: Path, nodes: int) -> list[NodeConfig]:
    """`nodes` data nodes and a voter, each with files and ports of its own, that find each other on loopback."""
    names = [*(f"data-{i}" for i in range(1, nodes + 1)), "voter"]
    ports = {name: free_port() for name in names}
    together = {
        "discovery.type": "zen",
        "discovery.seed_hosts": [f"{LOOPBACK}:{port}" for port in ports.values()],
        # One of them founds the cluster and the others join it: so it is known which one leads at first.
        "cluster.initial_cluster_manager_nodes": [names[0]],
    }
    roles = {"voter": ["cluster_manager"]}
    return [
        replace(
            base,
            root=directory / name,
            data=None,
            http_port=0,
            transport_port=ports[name],
            heap=VOTER_HEAP if name == "voter" else DATA_HEAP,
            tied=True,
            further={
                **base.further,
                **together,
                "node.name": name,
                "node.roles": roles.get(name, ["cluster_manager", "data", "ingest"]),
            },
        )
        for name in names
    ]


@contextmanager
def temporary_cluster(
    settings: LocalSettings, nodes: int = 2, report: Report = lambda message: None
) -> Iterator[Cluster]:
    """A cluster on free ports with temporary data directories, green, gone at the end. For tests and tries.

    `data[0]` founded it, so at first it is the elected cluster manager. Raises what `start_node` raises.
    """
    with ExitStack() as undo:
        base = undo.enter_context(temporary_config(settings))
        running = start_together(cluster_configs(base, base.root, nodes), report, undo)
        yield Cluster(running[:-1], running[-1])


def start_together(configs: Sequence[NodeConfig], report: Report, undo: ExitStack) -> list[Node]:
    """Nodes of one cluster, which become ready together; `undo` stops them, those too that never did."""
    starting = []
    for config in configs:
        starting.append(launch_node(config, report))
        undo.callback(starting[-1].node.stop)
    return [one.wait(report, nodes=len(starting)) for one in starting]
