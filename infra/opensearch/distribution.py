"""OpenSearch distribution: from OPENSEARCH_HOME, from the cache, or fetched by Maven, in this order.

Maven Central has the releases as the artifact `integ-test-zip`. Since 3.5.0 it is complete. The artifact of 2.19 has
one module, its transport; the modules that searches need are separate jars, laid down as modules here
(docs/decisions/0112, 0208). OpenSearch's own downloads, packages and images have all modules. Each zip must have the
SHA-256 that is pinned here, because Maven itself checks a SHA-1 that comes from the same server as the file.
"""

import hashlib
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.local_servers import Report
from services import maven
from services.directories import Account, can_reach, hold_lock, make_directory
from services.errors import ConfigurationError
from services.maven import Artifact

MODULES_POM = Path(__file__).with_name("modules.pom.xml")
MISSING_MAVEN_HELP = (
    "OpenSearch must be fetched once, and there is no mvn on the PATH. Install Maven (Debian: "
    "apt-get install maven), or set OPENSEARCH_HOME to an unpacked OpenSearch, or OPENSEARCH_URL to a running one."
)
SECURITY_PLUGIN = "opensearch-security"
# SHA-256 of each zip by its name, of the releases that the tests run on.
PINNED_ZIPS: Final = {
    "opensearch-3.6.0": "a91faa1dc1cadc78cb278b4f63847e19e1627a4e9de698e14e7efc14ee37b286",
    "opensearch-2.19.4": "3902e642715210d1d9d7cbdcc8f5abd6f931d1d7a679cea3750937becf16c406",
    "opensearch-security-2.19.4.0": "1f673622c462c4171a8c53f9b1ad20e5b839834cb79b0d3b388da180a0e514e8",
}


@dataclass(frozen=True)
class Distribution:
    """Release to fetch, and the modules that our queries need in it.

    `security`: with the security plugin, which Maven Central has for some releases only. `sha256`: of the zip of a
    release that is not in `PINNED_ZIPS`.
    """

    version: str
    group: str = "org.opensearch.distribution.integ-test-zip"
    artifact: str = "opensearch"
    modules: tuple[str, ...] = ("analysis-common", "lang-painless", "mapper-extras", "reindex")
    security: bool = False
    sha256: str = ""

    @property
    def name(self) -> str:
        """Return the name of the release's directory in the cache."""
        return f"{self.artifact}-{self.version}{'-security' if self.security else ''}"


def minimum_java_release(version: str) -> int:
    """Return the oldest Java feature release that runs a release: 21 for OpenSearch 3, 11 for 2.x."""
    return 21 if int(version.split(".", maxsplit=1)[0]) >= 3 else 11


def newest_java_release(version: str) -> int | None:
    """Return the newest Java feature release that runs a release; Java 24 lost 2.x's security manager."""
    return 23 if int(version.split(".", maxsplit=1)[0]) < 3 else None


@dataclass(frozen=True)
class OpenSearchHome:
    """Unpacked distribution, read-only, so that several nodes can share it."""

    path: Path
    version: str


def locate_distribution(
    distribution: Distribution, *, home: Path | None, cache: Path, account: Account | None, report: Report
) -> OpenSearchHome:
    """Return the unpacked distribution: `home` (OPENSEARCH_HOME), else the cached one, fetched first if missing.

    Raises ConfigurationError (`no_distribution`, `missing_modules`, `directory_unreachable`, and as
    `unpack_distribution`).
    """
    if home is not None:
        return _inspect_home(home, distribution.modules, account)
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
    """Fetch into a scratch directory and rename it at the end, so that a directory of that name is complete."""
    report(f"Fetching OpenSearch {distribution.version} with mvn (about 160 MB, once; kept in {target.parent}).")
    scratch = Path(tempfile.mkdtemp(prefix=".fetching-", dir=target.parent))
    try:
        artifact = Artifact(distribution.group, distribution.artifact, distribution.version, "zip")
        unpack_distribution(artifact, scratch, distribution.sha256)
        unpacked = next(iter(scratch.glob("*/bin/opensearch")), None)
        if unpacked is None:
            raise ConfigurationError(
                "download_failed",
                f"{distribution.group}:{distribution.artifact}:{distribution.version} has no bin/opensearch. Choose "
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
            f"{path} is not an unpacked OpenSearch: bin/opensearch or lib/opensearch-VERSION.jar is missing. Set "
            "OPENSEARCH_HOME to an unpacked OpenSearch, or unset it to fetch one.",
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
            f"The user {account.name if account else 'running this'} cannot enter {path}: a directory above it is "
            "closed to other users. Move the distribution, or set SPARSEWELL_RUN_AS.",
        )
    return OpenSearchHome(path.resolve(), versions[0])


def unpack_distribution(artifact: Artifact, directory: Path, sha256: str = "") -> None:
    """Fetch a zip, compare its SHA-256 with the pinned value, or else with `sha256`, and unpack it into `directory`.

    Raises ConfigurationError (`unpinned_release`, `no_mvn`, `checksum_mismatch`; `download_failed` with Maven's last
    lines).
    """
    pinned = PINNED_ZIPS.get(f"{artifact.artifact}-{artifact.version}", sha256)
    if not pinned:
        raise ConfigurationError(
            "unpinned_release",
            f"The SHA-256 of {artifact} is not known. Set SPARSEWELL_OPENSEARCH_SHA256 to that of a zip that you "
            "trust, or OPENSEARCH_HOME to an unpacked OpenSearch.",
        )
    with tempfile.TemporaryDirectory(prefix=".zip-", dir=directory.parent) as scratch:
        file = maven.copy_artifact(artifact, Path(scratch), without=MISSING_MAVEN_HELP)
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != pinned:
            raise ConfigurationError(
                "checksum_mismatch",
                f"{artifact} has the SHA-256 {found} and not {pinned}: the file was changed on its way, or in Maven's "
                "local repository. Nothing was unpacked.",
            )
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                target = archive.extract(member, directory)
                # zipfile drops the modes, and the start scripts are executable.
                if mode := member.external_attr >> 16 & 0o777:
                    Path(target).chmod(mode)


@dataclass(frozen=True, slots=True)
class PluginModule:
    """Source of a module of the 2.x line, and the content of its descriptor."""

    artifact: str
    plugin: str
    extends: str = ""
    grants: str = ""


PLUGIN_MODULES = {
    "lang-painless": PluginModule(
        "lang-painless",
        "org.opensearch.painless.PainlessPlugin",
        # Painless generates classes from scripts and looks up the classes that scripts may use.
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
    """Fetch the missing modules. Raises the errors of `services.maven.run_maven`."""
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
                # OpenSearch refuses two jars with the same class, so jars of the node itself are left out.
                if _artifact_name(jar) not in present:
                    jar.rename(target / jar.name)
            (target / "plugin-descriptor.properties").write_text(render_descriptor(name, module, version))
            if module.grants:
                (target / "plugin-security.policy").write_text(f"grant {{\n  {module.grants}\n}};\n")


def render_descriptor(name: str, module: PluginModule, version: str) -> str:
    """Return a module's plugin-descriptor.properties."""
    lines = {
        "description": name, "version": version, "name": name, "classname": module.plugin, "java.version": "11",
        "opensearch.version": version, "extended.plugins": module.extends, "has.native.controller": "false",
    }  # fmt: skip
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def _artifact_name(jar: Path) -> str:
    """Return the name of a jar without its version."""
    return re.sub(r"-\d[^/]*$", "", jar.stem)


def add_security_plugin(home: Path, version: str) -> None:
    """Fetch the security plugin, whose version has a fourth number. Raises the errors of `run_maven`."""
    target = home / "plugins" / SECURITY_PLUGIN
    target.mkdir(parents=True, mode=0o755)
    unpack_distribution(Artifact("org.opensearch.plugin", SECURITY_PLUGIN, f"{version}.0", "zip"), target)
