"""Several nodes on this machine that form one cluster and survive the loss of any of them.

Two nodes hold data. A third, small one holds none and only votes: of two that vote, one alone is never a majority, so
without it the death of the wrong node would stop every write (docs/decisions/0094).

A node with the security plugin: TLS, users and the roles of infra/opensearch/security. For tests and tries.

Maven Central has the plugin for some releases only: 2.19.4 is one, 3.6.0 is none.

Nodes that are gone at the end: for tests, benchmarks and tries.
"""

import json
import ssl
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from infra.opensearch.node import Node, NodeConfig, Report, launch_node, resolve_data_directory, start_node
from infra.processes import LOOPBACK, find_free_port
from infra.settings import LocalSettings
from services.directories import child_account, temporary_state_directory

SECURITY_DIRECTORY = Path(__file__).with_name("security")
SECURED_VERSION = "2.19.4"
# Where the plugin looks within the node's configuration.
_FOLDER = "opensearch-security"


@dataclass(frozen=True)
class KeyPair:
    """Files of a certificate and its key, in PEM."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Credentials:
    """The authority, the node's certificate and that of the administrator, who needs no role."""

    ca: Path
    node: KeyPair
    admin: KeyPair

    @cached_property
    def context(self) -> ssl.SSLContext:
        """For a client that is the administrator."""
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(self.admin.cert, self.admin.key)
        return context


def secure_config(config: NodeConfig, credentials: Credentials, admin: str, node: str) -> NodeConfig:
    """The same node with TLS and roles; `admin` and `node` are the names in those certificates."""
    files = {
        "ca.pem": credentials.ca.read_text(),
        "node.pem": credentials.node.cert.read_text(),
        "node.key": credentials.node.key.read_text(),
        **{f"{_FOLDER}/{name}": text for name, text in _configuration().items()},
    }
    settings: dict[str, object] = {
        **{f"plugins.security.ssl.{layer}.pemcert_filepath": "node.pem" for layer in ("http", "transport")},
        **{f"plugins.security.ssl.{layer}.pemkey_filepath": "node.key" for layer in ("http", "transport")},
        **{f"plugins.security.ssl.{layer}.pemtrustedcas_filepath": "ca.pem" for layer in ("http", "transport")},
        "plugins.security.ssl.http.enabled": True,
        "plugins.security.ssl.http.clientauth_mode": "OPTIONAL",
        "plugins.security.ssl.transport.enforce_hostname_verification": False,
        "plugins.security.authcz.admin_dn": [f"CN={admin}"],
        "plugins.security.nodes_dn": [f"CN={node}"],
        "plugins.security.allow_default_init_securityindex": True,
        "plugins.security.audit.type": "noop",
        "plugins.security.disabled": False,
        # restores are of our indexes and never of the plugin's own
        "plugins.security.check_snapshot_restore_write_privileges": True,
        "plugins.security.enable_snapshot_restore_privilege": True,
        "plugins.security.restapi.roles_enabled": ["all_access"],
    }
    return replace(
        config,
        distribution=replace(config.distribution, version=SECURED_VERSION, security=True),
        home=None,
        files={**config.files, **files},
        further={**settings, **config.further},
        context=credentials.context,
    )


def _configuration() -> Mapping[str, str]:
    """What the plugin reads at its first start. JSON is YAML."""
    authentication = {
        "basic": {
            "http_enabled": True, "transport_enabled": True, "order": 2,
            "http_authenticator": {"type": "basic", "challenge": True},
            "authentication_backend": {"type": "intern"},
        },
        "certificate": {
            "http_enabled": True, "transport_enabled": False, "order": 1,
            "http_authenticator": {"type": "clientcert", "challenge": False, "config": {"username_attribute": "cn"}},
            "authentication_backend": {"type": "noop"},
        },
    }  # fmt: skip
    config = {"dynamic": {"http": {"anonymous_auth_enabled": False}, "authc": authentication, "authz": {}}}
    own = {
        "config": ("config", {"config": config}),
        "internal_users": ("internalusers", {}),
        "action_groups": ("actiongroups", {}),
        "tenants": ("tenants", {}),
        "nodes_dn": ("nodesdn", {}),
    }
    shipped = {f"{name}.yml": (SECURITY_DIRECTORY / f"{name}.yml").read_text() for name in ("roles", "roles_mapping")}
    return shipped | {
        f"{name}.yml": json.dumps({"_meta": {"type": kind, "config_version": 2}} | content)
        for name, (kind, content) in own.items()
    }


@contextmanager
def temporary_config(settings: LocalSettings) -> Iterator[NodeConfig]:
    """A node's own, on free ports; its files lie below `root`, in a temporary directory that is gone at the end.

    The kernel ends such a node when this process (more exactly: the thread that starts it) dies without stopping it.
    """
    # (what is kept in memory would outlive the temporary directory, so that lies there too)
    within = resolve_data_directory(Path(tempfile.gettempdir()))
    with temporary_state_directory(child_account(settings.run_as), within) as directory:
        yield replace(
            NodeConfig.of(settings),
            root=directory / "opensearch",
            data=None,
            http_port=0,
            transport_port=0,
            tied=True,
        )


@contextmanager
def temporary_node(settings: LocalSettings, report: Report = lambda message: None) -> Iterator[Node]:
    """A running one of `temporary_config`."""
    with temporary_config(settings) as config, start_node(config, report) as node:
        yield node


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
    ports = {name: find_free_port() for name in names}
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
        running = start_nodes(cluster_configs(base, base.root, nodes), report, undo)
        yield Cluster(running[:-1], running[-1])


def start_nodes(configs: Sequence[NodeConfig], report: Report, undo: ExitStack) -> list[Node]:
    """Nodes of one cluster, which become ready together; `undo` stops them, those too that never did."""
    starting = []
    for config in configs:
        starting.append(launch_node(config, report))
        undo.callback(starting[-1].node.stop)
    return [one.wait(report, nodes=len(starting)) for one in starting]
