"""The node's process: prepared, started, waited for, found again and stopped.

What a node that ended or did not become ready said last, as an error that names the way out.

Where a node can keep data: Java looks for the file system of a directory in the mount table and fails without it.

In a chroot whose root is no mount point (a root file system laid out in an ordinary directory), everything outside the
mounts in it is such a place: OpenSearch ends with "Mount point not found".
"""

import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from infra import processes
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
from infra.processes import ChildProcess, find_free_port, require_free_port
from infra.settings import LocalSettings
from services.directories import (
    Account,
    child_account,
    hold_lock,
    make_directory,
    resolve_cache_directory,
    resolve_state_directory,
)
from services.errors import BackendUnavailable, ConfigurationError, SparsewellError


def startup_failure(layout: NodeDirectories) -> SparsewellError:
    """The error for a node that ended while it started, from what it logged."""
    end = read_log_tail(layout)
    if "failed to obtain node locks" in end:
        return ConfigurationError(
            "data_dir_locked",
            "Another OpenSearch uses this data directory. Stop that node (sparsewell node stop), or choose another "
            f"directory with SPARSEWELL_OPENSEARCH_DATA_DIR. The node said:\n{_relevant_lines(end, 'failed to obtain')}",
        )
    if "Address already in use" in end:
        return ConfigurationError(
            "port_in_use",
            "One of OpenSearch's ports was taken while it started. Start again, or choose others with "
            "SPARSEWELL_OPENSEARCH_PORT and SPARSEWELL_OPENSEARCH_TRANSPORT_PORT. The node said:\n"
            + _relevant_lines(end, "Address already in use"),
        )
    return BackendUnavailable(
        "node_died", f"OpenSearch ended while it started. Its last log lines ({layout.logs}):\n{end}"
    )


def _relevant_lines(text: str, part: str) -> str:
    return next((line for line in text.splitlines() if part in line), "")


def read_log_tail(layout: NodeDirectories) -> str:
    """The last lines of its logs."""
    parts = (processes.read_last_lines(layout.logs / name, 20) for name in ("opensearch.log", "console.log"))
    return "\n".join(part for part in parts if part)


MEMORY_DIRECTORY = Path("/dev/shm/sparsewell")  # noqa: S108 - a mount that every Linux has, in a chroot too


def has_mount_entry(
    path: Path, table: str, device_of: Callable[[Path], int] = lambda directory: directory.stat().st_dev
) -> bool:
    """Whether the mount point above `path` is named in `table` (the text of /proc/self/mounts), as Java looks it up."""
    here = path.resolve()
    while not here.exists():
        here = here.parent
    device = device_of(here)
    while here != here.parent and device_of(here.parent) == device:
        here = here.parent
    # Spaces and the like are written as octal escapes in the table.
    points = {line.split()[1].encode().decode("unicode_escape") for line in table.splitlines() if line.strip()}
    return str(here) in points


def resolve_data_directory(wanted: Path, table: Path = Path("/proc/self/mounts")) -> Path:
    """Return `wanted`, or a directory in memory where Java cannot work with `wanted`. `table` lists the mounts."""
    if not table.exists() or has_mount_entry(wanted, table.read_text()):
        return wanted
    return MEMORY_DIRECTORY / wanted.relative_to("/")


Report = Callable[[str], None]


@dataclass(frozen=True)
class NodeConfig:
    """One node: where it keeps its files (`root`), what it listens on and what runs it. Ports of 0: any free one.

    `further` are lines of opensearch.yml that replace or complete ours, `files` more files of its configuration.
    `context`: it speaks TLS, and this is how to speak with it as somebody who may.
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
    further: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    context: ssl.SSLContext | None = None

    @classmethod
    def of(cls, settings: LocalSettings) -> "NodeConfig":
        """The node that the settings describe."""
        return cls(
            root=resolve_state_directory(settings) / "opensearch",
            cache=resolve_cache_directory(settings),
            distribution=Distribution(settings.opensearch_version),
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


@dataclass(frozen=True)
class Node:
    """A running node. As a context manager it is stopped at the end."""

    url: str
    version: str
    java: str
    child: ChildProcess
    root: Path
    stop_timeout: float = 30.0

    def stop(self) -> bool:
        """Stops the node and forgets its record; False when it was not running any more."""
        stopped = processes.stop_child(self.child, self.stop_timeout)
        _record_path(self.root).unlink(missing_ok=True)
        return stopped

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def find_node(root: Path) -> Node | None:
    """The node that was started in `root` and still runs."""
    record = processes.load_child(_record_path(root))
    if record is None or not record[0].alive():
        return None
    child, facts = record
    return Node(str(facts["url"]), str(facts["version"]), str(facts["java"]), child, root)


@dataclass(frozen=True)
class StartingNode:
    """A node whose process runs and that need not answer yet."""

    node: Node
    config: NodeConfig
    java: JavaRuntime

    def wait(self, report: Report = lambda message: None, *, nodes: int = 1) -> Node:
        """Returns once the health of its cluster of `nodes` is green; stops it and raises when that fails."""
        try:
            _wait_until_green(self, nodes, report)
        except BaseException:
            self.node.stop()
            raise
        return self.node


def start_node(config: NodeConfig, report: Report = lambda message: None) -> Node:
    """Starts a node and returns once its health is green; the one that already runs in `root` is returned as it is.

    Raises ConfigurationError or BackendUnavailable with a stable code: no_mvn, download_failed, no_java,
    java_unusable, port_in_use, data_dir_locked, node_died (with its last log lines), node_not_ready. Nothing is left
    running then.
    """
    make_directory(config.root, child_account(config.run_as))
    with hold_lock(config.root.parent / f".{config.root.name}.lock", lambda: report("Another process is starting it.")):
        running = find_node(config.root)
        if running is not None:
            return replace(running, stop_timeout=config.stop_timeout)
        return launch_node(config, report).wait(report)


def launch_node(config: NodeConfig, report: Report = lambda message: None) -> StartingNode:
    """Starts a node that nobody else starts, without the wait: nodes of a cluster become ready together."""
    account = child_account(config.run_as)
    make_directory(config.root, account)
    if config.http_port:
        require_free_port(config.http_port, "OpenSearch", "SPARSEWELL_OPENSEARCH_PORT")
    if config.transport_port:
        require_free_port(config.transport_port, "OpenSearch's transport layer", "SPARSEWELL_OPENSEARCH_TRANSPORT_PORT")
    home = locate_distribution(
        config.distribution, given=config.home, cache=config.cache, account=account, report=report
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
            f"This is a chroot whose root is no mount point, and Java cannot work on {wanted}: data is kept in memory, "
            f"in {data}, until that is emptied."
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
    node = Node(f"{scheme}://127.0.0.1:{port}", home.version, str(java.home), child, config.root, config.stop_timeout)
    try:
        processes.save_child(child, _record_path(config.root), url=node.url, version=node.version, java=node.java)
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
        further=config.further,
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
    """A short environment: a stray JAVA_HOME, JAVA_OPTS or proxy of ours is none of the node's business."""
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
    told = began
    status = "does not answer yet"
    with httpx.Client(base_url=node.url, timeout=5, trust_env=False, verify=config.context or True) as client:
        while (now := time.monotonic()) - began < config.start_timeout:
            if not node.child.alive():
                raise startup_failure(layout)
            try:
                health = client.get("/_cluster/health").json()
                status = f"is {health['status']}"
                ours = health["cluster_name"] == config.cluster_name and health["number_of_nodes"] >= nodes
                if health["status"] == "green" and ours and _is_security_ready(client, config):
                    template = build_index_template(has_thai=starting.java.has_thai)
                    client.put("/_index_template/sparsewell-local-node", json=template).raise_for_status()
                    report(f"OpenSearch is green after {now - began:.0f} s: {node.url}")
                    return
            except (httpx.HTTPError, ValueError, KeyError):
                pass
            if now - told >= 10:
                told = now
                report(f"Waiting for OpenSearch, {now - began:.0f} s so far; it {status}.")
            time.sleep(0.2)
    raise BackendUnavailable(
        "node_not_ready",
        f"OpenSearch {status} after {config.start_timeout:.0f} s and was stopped. Raise SPARSEWELL_START_TIMEOUT on a "
        f"slow machine. Its last log lines ({layout.logs}):\n{read_log_tail(layout)}",
    )


def _is_security_ready(client: httpx.Client, config: NodeConfig) -> bool:
    """Whether the security plugin, if there is one, has read its configuration: that comes after green."""
    return config.context is None or client.get("/_plugins/_security/health").json()["status"] == "UP"


def _record_path(root: Path) -> Path:
    return root / "node.json"
