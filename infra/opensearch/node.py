"""OpenSearch node as a child process: start, readiness, lookup of a running node, stop.

A node is ready when its cluster is green. An error has the end of the node's log and names the remedy. The node runs
with a record on disk, from which later commands find it (docs/decisions/0010, 0011).

Java looks up a directory's file system in the mount table and fails without an entry ("Mount point not found"). In a
chroot whose root is not a mount point, directories outside its mounts have none; the data then lie in memory.
"""

import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import httpx

from infra import processes
from infra.local_servers import LocalServer, LocalSettings, Report, start_once
from infra.opensearch.configuration import (
    LOG4J_PROPERTIES,
    JavaRuntime,
    NodeDirectories,
    build_index_template,
    find_java,
    render_jvm_options,
    render_opensearch_yml,
)
from infra.opensearch.distribution import (
    Distribution,
    OpenSearchHome,
    locate_distribution,
    minimum_java_release,
    newest_java_release,
)
from infra.ports import find_free_port, require_free_port
from services.directories import (
    Account,
    child_account,
    make_directory,
    resolve_cache_directory,
    resolve_state_directory,
)
from services.errors import BackendUnavailable, ConfigurationError, SparsewellError

MEMORY_DIRECTORY = Path("/dev/shm/sparsewell")  # noqa: S108 - every Linux has this mount, also in a chroot


@dataclass(frozen=True)
class NodeConfig:
    """Configuration of a node: `root` holds its files; port 0 is any free port; `tied` ends it with this process.

    `extra_settings`: lines of opensearch.yml that replace or complete ours. `files`: more files of the configuration
    directory. `context`: the node speaks TLS, and a client with this context has an administrator's rights.
    """

    root: Path
    cache: Path
    distribution: Distribution
    home: Path | None = None
    java_home: Path | None = None
    data: Path | None = None
    http_port: int = 19200
    transport_port: int = 0
    heap: str = "1g"
    cluster_name: str = "sparsewell"
    run_as: str = "nobody"
    start_timeout: float = 300.0
    stop_timeout: float = 30.0
    tied: bool = False
    extra_settings: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    context: ssl.SSLContext | None = None

    @classmethod
    def of(cls, settings: LocalSettings) -> "NodeConfig":
        """Return the configuration that the settings describe."""
        return cls(
            root=resolve_state_directory(settings) / "opensearch",
            cache=resolve_cache_directory(settings),
            distribution=Distribution(settings.opensearch_version, sha256=settings.opensearch_sha256),
            home=settings.opensearch_home,
            java_home=settings.java_home,
            data=settings.opensearch_data_dir,
            http_port=settings.opensearch_port,
            transport_port=settings.opensearch_transport_port,
            heap=settings.opensearch_heap,
            cluster_name=settings.opensearch_cluster_name,
            run_as=settings.run_as,
            start_timeout=settings.start_timeout,
            stop_timeout=settings.stop_timeout,
        )


@dataclass(frozen=True, kw_only=True)
class Node(LocalServer):
    """Running node. `java`: the directory of its Java runtime."""

    title: ClassVar[str] = "OpenSearch"
    record_name: ClassVar[str] = "node.json"

    version: str
    java: str


@dataclass(frozen=True)
class StartingNode:
    """Node whose process runs and that may not answer yet."""

    node: Node
    config: NodeConfig
    java: JavaRuntime

    def wait(self, report: Report = lambda message: None, *, nodes: int = 1) -> Node:
        """Return once its cluster has `nodes` nodes and is green; on a failure stop the node and raise."""
        try:
            _wait_until_green(self, nodes, report)
        except BaseException:
            self.node.stop()
            raise
        return self.node


def start_node(config: NodeConfig, report: Report = lambda message: None) -> Node:
    """Start a node and return once it is green; return the node that already runs in `root` as it is.

    Raises ConfigurationError or BackendUnavailable (`no_mvn`, `download_failed`, `no_java`, `java_unusable`,
    `port_in_use`, `data_dir_locked`, `node_died` with its last log lines, `node_not_ready`). After an error, no process
    is left.
    """
    return start_once(Node, config, lambda: launch_node(config, report).wait(report), report)


def launch_node(config: NodeConfig, report: Report = lambda message: None) -> StartingNode:
    """Start a node without the wait and without the lock; nodes of a cluster become ready together."""
    account = child_account(config.run_as)
    make_directory(config.root, account)
    if config.http_port:
        require_free_port(config.http_port, "OpenSearch", "SPARSEWELL_OPENSEARCH_PORT")
    if config.transport_port:
        require_free_port(config.transport_port, "OpenSearch's transport layer", "SPARSEWELL_OPENSEARCH_TRANSPORT_PORT")
    home = locate_distribution(
        config.distribution, home=config.home, cache=config.cache, account=account, report=report
    )
    java = find_java(
        minimum_java_release(home.version),
        newest=newest_java_release(home.version),
        named=config.java_home,
        bundled=home.path / "jdk",
        cache=config.cache,
        account=account,
    )
    return StartingNode(_launch(config, home, java, account, report), config, java)


def _launch(
    config: NodeConfig, home: OpenSearchHome, java: JavaRuntime, account: Account | None, report: Report
) -> Node:
    layout = NodeDirectories(config.root)
    wanted = config.data or config.root / "data"
    data = resolve_data_directory(wanted)
    if data != wanted:
        report(
            f"This is a chroot whose root is not a mount point, so Java cannot use {wanted}. The data are in memory, "
            f"in {data}, and are lost at a restart of the machine."
        )
    make_directory(data, account)
    for directory in (layout.config, layout.logs, layout.tmp):
        make_directory(directory, account)
    port = config.http_port or find_free_port()
    _write_configuration(config, layout, data, home, java, port)
    console = layout.logs / "console.log"
    processes.rotate_log(console)
    report(f"Starting OpenSearch {home.version} on Java {java.release}, port {port}, data in {data}.")
    child = processes.start_child(
        "opensearch",
        [str(home.path / "bin" / "opensearch")],
        console,
        environment=_environment(layout, home, java),
        directory=config.root,
        account=account,
        tied=config.tied,
    )
    scheme = "https" if config.context else "http"
    node = Node(
        url=f"{scheme}://127.0.0.1:{port}",
        child=child,
        root=config.root,
        stop_timeout=config.stop_timeout,
        version=home.version,
        java=str(java.home),
    )
    try:
        node.save()
    except BaseException:
        node.stop()
        raise
    return node


def _write_configuration(
    config: NodeConfig, layout: NodeDirectories, data: Path, home: OpenSearchHome, java: JavaRuntime, http_port: int
) -> None:
    settings = render_opensearch_yml(
        cluster_name=config.cluster_name,
        data=data,
        logs=layout.logs,
        http_port=http_port,
        transport_port=config.transport_port or find_free_port(),
        security_plugin=(home.path / "plugins" / "opensearch-security").is_dir(),
        extra_settings=config.extra_settings,
    )
    options = render_jvm_options(
        (home.path / "config" / "jvm.options").read_text(),
        heap=config.heap,
        logs=layout.logs,
        has_vector_module=java.has_vector_module,
    )
    (layout.config / "opensearch.yml").write_text(settings)
    (layout.config / "jvm.options").write_text(options)
    (layout.config / "log4j2.properties").write_text(LOG4J_PROPERTIES)
    for name, text in config.files.items():
        path = layout.config / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def _environment(layout: NodeDirectories, home: OpenSearchHome, java: JavaRuntime) -> dict[str, str]:
    """Return a minimal environment: our JAVA_HOME, JAVA_OPTS and proxy settings must not reach the node."""
    chosen = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(layout.root),
        "TMPDIR": str(layout.tmp),
        "OPENSEARCH_HOME": str(home.path),
        "OPENSEARCH_JAVA_HOME": str(java.home),
        "OPENSEARCH_PATH_CONF": str(layout.config),
        "OPENSEARCH_TMPDIR": str(layout.tmp),
    }
    if options := os.environ.get("OPENSEARCH_JAVA_OPTS"):
        chosen["OPENSEARCH_JAVA_OPTS"] = options
    return chosen


def _wait_until_green(starting: StartingNode, nodes: int, report: Report) -> None:
    node, config, layout = starting.node, starting.config, NodeDirectories(starting.config.root)
    began = time.monotonic()
    reported = began
    status = "does not answer yet"

    def is_green() -> bool:
        nonlocal reported, status
        try:
            health = client.get("/_cluster/health").json()
            status = f"is {health['status']}"
            ours = health["cluster_name"] == config.cluster_name and health["number_of_nodes"] >= nodes
            if health["status"] == "green" and ours and _is_security_ready(client, config):
                template = build_index_template(has_thai=starting.java.has_thai)
                client.put("/_index_template/sparsewell-local-node", json=template).raise_for_status()
                return True
        except (httpx.HTTPError, ValueError, KeyError):
            pass
        now = time.monotonic()
        if now - reported >= 10:
            reported = now
            report(f"Waiting for OpenSearch since {now - began:.0f} s; it {status}.")
        return False

    with httpx.Client(base_url=node.url, timeout=5, trust_env=False, verify=config.context or True) as client:
        processes.wait_until_ready(
            node.child,
            is_green,
            config.start_timeout,
            pause=0.2,
            died=lambda: startup_failure(layout),
            late=lambda: BackendUnavailable(
                "node_not_ready",
                f"OpenSearch {status} after {config.start_timeout:.0f} s and was stopped. Raise "
                f"SPARSEWELL_START_TIMEOUT on a slow machine. Its last log lines ({layout.logs}):\n"
                f"{read_log_tail(layout)}",
            ),
        )
    report(f"OpenSearch is green after {time.monotonic() - began:.0f} s: {node.url}")


def _is_security_ready(client: httpx.Client, config: NodeConfig) -> bool:
    """Return whether the security plugin has read its configuration, which happens after green; True without it."""
    return config.context is None or client.get("/_plugins/_security/health").json()["status"] == "UP"


def startup_failure(layout: NodeDirectories) -> SparsewellError:
    """Return the error of a node that ended during its start, according to its log."""
    end = read_log_tail(layout)
    if "failed to obtain node locks" in end:
        return ConfigurationError(
            "data_dir_locked",
            "Another OpenSearch uses this data directory. Stop that node (sparsewell node stop), or choose another "
            "directory with SPARSEWELL_OPENSEARCH_DATA_DIR. The node's log:\n"
            + _first_line_with(end, "failed to obtain"),
        )
    if "Address already in use" in end:
        return ConfigurationError(
            "port_in_use",
            "Another process took one of OpenSearch's ports during the start. Start again, or choose other ports with "
            "SPARSEWELL_OPENSEARCH_PORT and SPARSEWELL_OPENSEARCH_TRANSPORT_PORT. The node's log:\n"
            + _first_line_with(end, "Address already in use"),
        )
    return BackendUnavailable(
        "node_died", f"OpenSearch ended during its start. Its last log lines ({layout.logs}):\n{end}"
    )


def _first_line_with(text: str, phrase: str) -> str:
    return next((line for line in text.splitlines() if phrase in line), "")


def read_log_tail(layout: NodeDirectories) -> str:
    """Return the last lines of the node's log and of its output."""
    tails = (processes.read_last_lines(layout.logs / name, 20) for name in ("opensearch.log", "console.log"))
    return "\n".join(tail for tail in tails if tail)


def resolve_data_directory(wanted: Path, table: Path = Path("/proc/self/mounts")) -> Path:
    """Return `wanted`, or a directory in memory where Java cannot work with `wanted`. `table`: the mount table."""
    if not table.exists() or has_mount_entry(wanted, table.read_text()):
        return wanted
    return MEMORY_DIRECTORY / wanted.relative_to("/")


def has_mount_entry(
    path: Path, table: str, device_of: Callable[[Path], int] = lambda directory: directory.stat().st_dev
) -> bool:
    """Return whether `table` (/proc/self/mounts as text) names the mount point above `path`.

    This is the lookup of Java's file store.
    """
    folder = path.resolve()
    while not folder.exists():
        folder = folder.parent
    device = device_of(folder)
    while folder != folder.parent and device_of(folder.parent) == device:
        folder = folder.parent
    # The table has octal escapes for spaces and the like.
    points = {line.split()[1].encode().decode("unicode_escape") for line in table.splitlines() if line.strip()}
    return str(folder) in points
