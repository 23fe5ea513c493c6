"""Where a node's files come from: OPENSEARCH_HOME, our cache, or Maven's ordinary client, in this order.

Unpacks one release of OpenSearch with Maven's ordinary client.

Modules and plugins that a release's node on Maven Central lacks, laid down beside it.

Since 3.5.0 the node of Maven Central is whole. That of 2.19 has one module, its transport; what the search needs lies
beside it as jars, and OpenSearch's own downloads, packages and images have all of them.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from services import maven
from services.directories import Account, can_reach, hold_lock, make_directory
from services.errors import ConfigurationError
from services.maven import Artifact

DISTRIBUTION_POM = Path(__file__).with_name("pom.xml")
MISSING_MAVEN_HELP = (
    "OpenSearch must be fetched once, and there is no mvn on the PATH to do it. Install Maven (Debian: "
    "apt-get install maven), or set OPENSEARCH_HOME to an unpacked OpenSearch, or OPENSEARCH_URL to a running one."
)
UNPACK_GOAL = f"{maven.DEPENDENCY_PLUGIN.rpartition(':')[0]}:unpack@distribution"


def unpack_distribution(artifact: maven.Artifact, directory: Path) -> None:
    """Fetches the zip artifact, checks it against the published checksum and unpacks it into `directory`.

    Raises `no_mvn` when there is no Maven and `download_failed`, with Maven's last lines, when it does not succeed.
    """
    arguments = ["-f", str(DISTRIBUTION_POM), UNPACK_GOAL]
    arguments += [f"-Dopensearch.group={artifact.group}", f"-Dopensearch.artifact={artifact.artifact}"]
    arguments += [f"-Dopensearch.version={artifact.version}", f"-Dunpack.directory={directory}"]
    maven.run_maven(arguments, what=str(artifact), without=MISSING_MAVEN_HELP)


MODULES_POM = Path(__file__).with_name("modules.pom.xml")
SECURITY_PLUGIN = "opensearch-security"


@dataclass(frozen=True, slots=True)
class PluginModule:
    """Where a module of the 2.x line comes from, and what its descriptor says."""

    artifact: str
    plugin: str
    extends: str = ""
    grants: str = ""


PLUGIN_MODULES = {
    "lang-painless": PluginModule(
        "lang-painless",
        "org.opensearch.painless.PainlessPlugin",
        # it makes classes from scripts, and looks up what those may use
        grants='permission java.lang.RuntimePermission "createClassLoader";\n'
        '  permission java.lang.RuntimePermission "getClassLoader";',
    ),
    "analysis-common": PluginModule(
        "analysis-common", "org.opensearch.analysis.common.CommonAnalysisPlugin", extends="lang-painless"
    ),
    "mapper-extras": PluginModule("mapper-extras-client", "org.opensearch.index.mapper.MapperExtrasPlugin"),
    "reindex": PluginModule("reindex-client", "org.opensearch.index.reindex.ReindexPlugin"),
}


def add_modules(home: Path, version: str, names: Iterable[str]) -> None:
    """Fetches the modules that are not there. Raises as `maven.run`."""
    present = {_artifact_name(jar) for jar in home.glob("lib/*.jar")}
    for name in names:
        if (home / "modules" / name).is_dir() or name not in PLUGIN_MODULES:
            continue
        module = PLUGIN_MODULES[name]
        with tempfile.TemporaryDirectory(prefix=".module-", dir=home / "modules") as scratch:
            arguments = [
                "-f",
                str(MODULES_POM),
                f"{maven.DEPENDENCY_PLUGIN}:copy-dependencies",
                "-DincludeScope=runtime",
            ]
            arguments += [f"-Dmodule.artifact={module.artifact}", f"-Dopensearch.version={version}"]
            maven.run_maven(
                [*arguments, f"-DoutputDirectory={scratch}"],
                what=f"{module.artifact}:{version}",
                without=MISSING_MAVEN_HELP,
            )
            target = home / "modules" / name
            target.mkdir(mode=0o755)
            for jar in Path(scratch).glob("*.jar"):
                # (two jars with one class are refused, so what the node has itself is left out)
                if _artifact_name(jar) not in present:
                    jar.rename(target / jar.name)
            (target / "plugin-descriptor.properties").write_text(render_descriptor(name, module, version))
            if module.grants:
                (target / "plugin-security.policy").write_text(f"grant {{\n  {module.grants}\n}};\n")


def add_security_plugin(home: Path, version: str) -> None:
    """Fetches the security plugin, which counts its releases of a node's release from 0. Raises as `maven.run`."""
    target = home / "plugins" / SECURITY_PLUGIN
    target.mkdir(parents=True, mode=0o755)
    unpack_distribution(maven.Artifact("org.opensearch.plugin", SECURITY_PLUGIN, f"{version}.0"), target)


def render_descriptor(name: str, module: PluginModule, version: str) -> str:
    """plugin-descriptor.properties of a module."""
    lines = {
        "description": name, "version": version, "name": name, "classname": module.plugin, "java.version": "11",
        "opensearch.version": version, "extended.plugins": module.extends, "has.native.controller": "false",
    }  # fmt: skip
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def _artifact_name(jar: Path) -> str:
    """The name of a jar without its version."""
    return re.sub(r"-\d[^/]*$", "", jar.stem)


Report = Callable[[str], None]


@dataclass(frozen=True)
class Distribution:
    """What to fetch and what it needs. `modules` must be in the unpacked node for our queries to work.

    `security`: with the security plugin, which Maven Central has for some releases only.
    """

    version: str
    group: str = "org.opensearch.distribution.integ-test-zip"
    artifact: str = "opensearch"
    modules: tuple[str, ...] = ("analysis-common", "lang-painless", "mapper-extras", "reindex")
    security: bool = False

    @property
    def name(self) -> str:
        """Of its directory in the cache."""
        return f"{self.artifact}-{self.version}{'-security' if self.security else ''}"

    @property
    def minimum_java(self) -> int:
        """The oldest Java feature release that runs it."""
        return minimum_java_release(self.version)


def newest_java_release(version: str) -> int | None:
    """The newest Java feature release that runs it: the 2.x line needs the security manager, which is gone in 24."""
    return 23 if int(version.split(".", maxsplit=1)[0]) < 3 else None


def minimum_java_release(version: str) -> int:
    """OpenSearch 3 needs Java 21, the 2.x line runs on 11."""
    return 21 if int(version.split(".", maxsplit=1)[0]) >= 3 else 11


@dataclass(frozen=True)
class OpenSearchHome:
    """An unpacked distribution; it is only read, so several nodes may share it."""

    path: Path
    version: str


def locate_distribution(
    distribution: Distribution, *, given: Path | None, cache: Path, account: Account | None, report: Report
) -> OpenSearchHome:
    """The unpacked distribution: `given` (OPENSEARCH_HOME) if set, else the cached one, fetched first if need be."""
    if given is not None:
        return _inspect_home(given, distribution.modules, account)
    target = cache / "opensearch" / distribution.name
    if not target.is_dir():
        make_directory(target.parent)
        with hold_lock(
            target.parent / ".lock", lambda: report("Another process is fetching OpenSearch; waiting for it.")
        ):
            if not target.is_dir():
                _fetch(distribution, target, report)
    return _inspect_home(target, distribution.modules, account)


def _fetch(distribution: Distribution, target: Path, report: Report) -> None:
    """Fetches next to the target and renames at the end: a directory of that name is always whole."""
    report(f"Fetching OpenSearch {distribution.version} with mvn (about 160 MB, once; kept in {target.parent}).")
    scratch = Path(tempfile.mkdtemp(prefix=".fetching-", dir=target.parent))
    try:
        unpack_distribution(Artifact(distribution.group, distribution.artifact, distribution.version), scratch)
        unpacked = next(iter(scratch.glob("*/bin/opensearch")), None)
        if unpacked is None:
            raise ConfigurationError(
                "download_failed",
                f"{distribution.group}:{distribution.artifact}:{distribution.version} holds no bin/opensearch; choose "
                "another release with SPARSEWELL_OPENSEARCH_VERSION.",
            )
        home = unpacked.parent.parent
        add_modules(home, distribution.version, distribution.modules)
        if distribution.security:
            add_security_plugin(home, distribution.version)
        home.chmod(0o755)
        home.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _inspect_home(path: Path, modules: tuple[str, ...], account: Account | None) -> OpenSearchHome:
    jars = [re.fullmatch(r"opensearch-(\d+\.\d+\.\d+)\S*\.jar", jar.name) for jar in path.glob("lib/opensearch-*.jar")]
    versions = [match[1] for match in jars if match]
    if not versions or not os.access(path / "bin" / "opensearch", os.X_OK):
        raise ConfigurationError(
            "no_distribution",
            f"{path} is no unpacked OpenSearch (bin/opensearch and lib/opensearch-VERSION.jar are looked for). Point "
            "OPENSEARCH_HOME at one, or unset it to have one fetched.",
        )
    missing = [name for name in modules if not (path / "modules" / name).is_dir()]
    if missing:
        raise ConfigurationError(
            "missing_modules",
            f"The OpenSearch {versions[0]} in {path} lacks the modules {', '.join(missing)}, which the search needs. "
            "Use a complete distribution.",
        )
    if not can_reach(path, account):
        raise ConfigurationError(
            "directory_unreachable",
            f"The user {account.name if account else 'running this'} cannot enter {path}, one of the directories above "
            "it is closed to other users. Move the distribution, or set SPARSEWELL_RUN_AS.",
        )
    return OpenSearchHome(path.resolve(), versions[0])
