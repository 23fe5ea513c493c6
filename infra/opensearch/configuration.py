"""The files of a node's configuration directory, as text. Pure: what is written depends on the arguments only."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.opensearch.java import VECTOR_MODULE

LOG4J = """\
status = error

appender.rolling.type = RollingFile
appender.rolling.name = rolling
appender.rolling.fileName = ${sys:opensearch.logs.base_path}${sys:file.separator}opensearch.log
appender.rolling.filePattern = ${sys:opensearch.logs.base_path}${sys:file.separator}opensearch-%i.log.gz
appender.rolling.layout.type = PatternLayout
appender.rolling.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] [%node_name]%marker %m%n
appender.rolling.policies.type = Policies
appender.rolling.policies.size.type = SizeBasedTriggeringPolicy
appender.rolling.policies.size.size = 16MB
appender.rolling.strategy.type = DefaultRolloverStrategy
appender.rolling.strategy.max = 3

rootLogger.level = info
rootLogger.appenderRef.rolling.ref = rolling

# A client that uses something deprecated is told so in the answer's headers.
appender.header_warning.type = HeaderWarningAppender
appender.header_warning.name = header_warning
logger.deprecation.name = org.opensearch.deprecation
logger.deprecation.level = deprecation
logger.deprecation.appenderRef.header_warning.ref = header_warning
"""


@dataclass(frozen=True)
class Layout:
    """A node's own directories, all below one."""

    root: Path

    @property
    def config(self) -> Path:
        """opensearch.yml, jvm.options, log4j2.properties and the keystore."""
        return self.root / "config"

    @property
    def logs(self) -> Path:
        """The node's own log and what the process printed."""
        return self.root / "logs"

    @property
    def tmp(self) -> Path:
        """Scratch space of the JVM."""
        return self.root / "tmp"


def opensearch_yml(
    *,
    cluster_name: str,
    data: Path,
    logs: Path,
    http_port: int,
    transport_port: int,
    security_plugin: bool,
    further: Mapping[str, object],
) -> str:
    """The node's settings: loopback only, alone, and content with a small or nearly full disk; `further` ones win."""
    settings: dict[str, object] = {
        "cluster.name": cluster_name,
        "node.name": f"{cluster_name}-1",
        "path.data": str(data),
        "path.logs": str(logs),
        "network.host": "127.0.0.1",
        "http.port": http_port,
        "transport.port": transport_port,
        "discovery.type": "single-node",
        # The watermarks turn indexes read-only on a developer's nearly full disk, with an error that explains little.
        "cluster.routing.allocation.disk.threshold_enabled": False,
    }
    if security_plugin:
        # A full distribution brings the plugin, which wants certificates; a node on loopback for one user does without.
        settings["plugins.security.disabled"] = True
    # JSON is YAML, so quoting is right whatever the path holds.
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in (settings | dict(further)).items())


def jvm_options(original: str, *, heap: str, logs: Path, has_vector_module: bool) -> str:
    """The distribution's own options with our heap, with files in `logs`, without garbage collection logs.

    The distribution writes into its own directory by default; ours is only read. The line that adds the vector
    module is dropped for a runtime that lacks it (only dense vectors use it).
    """
    lines = []
    for line in original.splitlines():
        option = re.sub(r"^\d+(-\d*)?:", "", line.strip())
        if option.startswith(("#", "-Xms", "-Xmx", "-Xlog:gc", "-Xloggc", "-XX:HeapDumpPath", "-XX:ErrorFile")):
            continue
        if option.startswith(("-XX:+PrintGC", "-XX:+UseGCLogFileRotation", "-XX:NumberOfGCLog", "-XX:GCLogFileSize")):
            continue
        if option == f"--add-modules={VECTOR_MODULE}" and not has_vector_module:
            continue
        if option:
            lines.append(line.strip())
    lines += [f"-Xms{heap}", f"-Xmx{heap}", f"-XX:HeapDumpPath={logs}", f"-XX:ErrorFile={logs}/hs_err_pid%p.log"]
    return "\n".join(lines) + "\n"


def index_template(*, has_thai: bool) -> dict[str, object]:
    """Defaults for every index of a local node, as the body of a composable template of the lowest priority.

    A replica on a single node is never assigned, and the cluster would stay yellow for ever. OpenSearch builds every
    analyser that it knows for each new index and fails when one cannot be built; on a runtime without Thai word
    boundaries the analyser named thai is therefore replaced by the standard one (docs/decisions/0010).
    """
    settings: dict[str, object] = {"index.number_of_replicas": 0}
    if not has_thai:
        settings["index.analysis.analyzer.thai.type"] = "standard"
    return {"index_patterns": ["*"], "priority": 0, "template": {"settings": settings}}
