"""Temporary nodes for tests and benchmarks: one node, a node with the security plugin, a cluster.

The cluster has data nodes and a small voter. With two voting nodes, one node alone is not a majority, so the loss of
the wrong node would stop every write (docs/decisions/0094). The secured node has TLS, users and the roles of
infra/opensearch/security (docs/decisions/0206); Maven Central has the plugin for some releases only: for 2.19.4, not
for 3.6.0.
"""

import json
import ssl
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from infra.local_servers import LocalSettings, Report
from infra.opensearch.node import Node, NodeConfig, launch_node, resolve_data_directory, start_node
from infra.ports import LOOPBACK, find_free_port
from services.directories import child_account, temporary_state_directory

SECURITY_DIRECTORY = Path(__file__).with_name("security")
SECURED_VERSION = "2.19.4"
# The plugin's folder in the node's configuration.
_FOLDER = "opensearch-security"
DATA_HEAP, VOTER_HEAP = "512m", "256m"


@contextmanager
def temporary_config(settings: LocalSettings) -> Iterator[NodeConfig]:
    """Yield a node's configuration on free ports, in a temporary directory below `root` that is removed at the end.

    The kernel ends such a node when the thread that started it dies without stopping it.
    """
    # Data in memory would outlive the temporary directory, so the directory lies in memory too.
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
    """Run a node of `temporary_config`."""
    with temporary_config(settings) as config, start_node(config, report) as node:
        yield node


@dataclass(frozen=True)
class Cluster:
    """Running data nodes and the voter."""

    data: Sequence[Node]
    voter: Node

    @property
    def url(self) -> str:
        """Return the addresses of the data nodes, in the form of OPENSEARCH_URL."""
        return ",".join(node.url for node in self.data)


@contextmanager
def temporary_cluster(
    settings: LocalSettings, nodes: int = 2, report: Report = lambda message: None
) -> Iterator[Cluster]:
    """Run a green cluster on free ports with temporary data directories.

    `data[0]` founds the cluster, so at first it is the elected cluster manager. Raises the errors of `start_node`.
    """
    with ExitStack() as undo:
        base = undo.enter_context(temporary_config(settings))
        running = start_nodes(cluster_configs(base, base.root, nodes), report, undo)
        yield Cluster(running[:-1], running[-1])


def cluster_configs(base: NodeConfig, directory: Path, nodes: int) -> list[NodeConfig]:
    """Return the configurations of `nodes` data nodes and a voter that find each other on loopback."""
    names = [*(f"data-{i}" for i in range(1, nodes + 1)), "voter"]
    ports = {name: find_free_port() for name in names}
    discovery = {
        "discovery.type": "zen",
        "discovery.seed_hosts": [f"{LOOPBACK}:{port}" for port in ports.values()],
        # The first node founds the cluster and the others join it, so the first cluster manager is known.
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
            extra_settings={
                **base.extra_settings,
                **discovery,
                "node.name": name,
                "node.roles": roles.get(name, ["cluster_manager", "data", "ingest"]),
            },
        )
        for name in names
    ]


def start_nodes(configs: Sequence[NodeConfig], report: Report, undo: ExitStack) -> list[Node]:
    """Start the nodes of one cluster and wait for all; `undo` stops every node, also one that never got ready."""
    starting = []
    for config in configs:
        starting.append(launch_node(config, report))
        undo.callback(starting[-1].node.stop)
    return [node.wait(report, nodes=len(starting)) for node in starting]


@dataclass(frozen=True)
class KeyPair:
    """Certificate and key files, in PEM."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Credentials:
    """Certificate authority, node certificate, and administrator certificate, which needs no role."""

    ca: Path
    node: KeyPair
    admin: KeyPair

    @cached_property
    def context(self) -> ssl.SSLContext:
        """Return the TLS context of a client that is the administrator."""
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(self.admin.cert, self.admin.key)
        return context


def secure_config(config: NodeConfig, credentials: Credentials, admin: str, node: str) -> NodeConfig:
    """Return the configuration with TLS and roles; `admin` and `node` are the common names of those certificates."""
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
        # Snapshots hold our indexes and never the plugin's own index.
        "plugins.security.check_snapshot_restore_write_privileges": True,
        "plugins.security.enable_snapshot_restore_privilege": True,
        "plugins.security.restapi.roles_enabled": ["all_access"],
    }
    return replace(
        config,
        distribution=replace(config.distribution, version=SECURED_VERSION, security=True),
        home=None,
        files={**config.files, **files},
        extra_settings={**settings, **config.extra_settings},
        context=credentials.context,
    )


def _configuration() -> Mapping[str, str]:
    """Return the plugin's files, which it reads at its first start. JSON is YAML."""
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
    generated = {
        "config": ("config", {"config": config}),
        "internal_users": ("internalusers", {}),
        "action_groups": ("actiongroups", {}),
        "tenants": ("tenants", {}),
        "nodes_dn": ("nodesdn", {}),
    }
    shipped = {f"{name}.yml": (SECURITY_DIRECTORY / f"{name}.yml").read_text() for name in ("roles", "roles_mapping")}
    return shipped | {
        f"{name}.yml": json.dumps({"_meta": {"type": kind, "config_version": 2}} | content)
        for name, (kind, content) in generated.items()
    }
