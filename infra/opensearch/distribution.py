"""Where a node's files come from: OPENSEARCH_HOME, our cache, or Maven's ordinary client, in this order."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.opensearch.fetching import unpack
from infra.opensearch.modules import add_modules, add_security
from services.errors import ConfigurationError
from services.machine.accounts import Account, can_reach
from services.machine.directories import make_directory
from services.machine.locks import exclusive
from services.machine.maven import Artifact

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
        return minimum_java(self.version)


def newest_java(version: str) -> int | None:
    """The newest Java feature release that runs it: the 2.x line needs the security manager, which is gone in 24."""
    return 23 if int(version.split(".", maxsplit=1)[0]) < 3 else None


def minimum_java(version: str) -> int:
    """OpenSearch 3 needs Java 21, the 2.x line runs on 11."""
    return 21 if int(version.split(".", maxsplit=1)[0]) >= 3 else 11


@dataclass(frozen=True)
class Home:
    """An unpacked distribution; it is only read, so several nodes may share it."""

    path: Path
    version: str


def locate(
    distribution: Distribution, *, given: Path | None, cache: Path, account: Account | None, report: Report
) -> Home:
    """The unpacked distribution: `given` (OPENSEARCH_HOME) if set, else the cached one, fetched first if need be."""
    if given is not None:
        return _inspect(given, distribution.modules, account)
    target = cache / "opensearch" / distribution.name
    if not target.is_dir():
        make_directory(target.parent)
        with exclusive(
            target.parent / ".lock", lambda: report("Another process is fetching OpenSearch; waiting for it.")
        ):
            if not target.is_dir():
                _fetch(distribution, target, report)
    return _inspect(target, distribution.modules, account)


def _fetch(distribution: Distribution, target: Path, report: Report) -> None:
    """Fetches next to the target and renames at the end: a directory of that name is always whole."""
    report(f"Fetching OpenSearch {distribution.version} with mvn (about 160 MB, once; kept in {target.parent}).")
    scratch = Path(tempfile.mkdtemp(prefix=".fetching-", dir=target.parent))
    try:
        unpack(Artifact(distribution.group, distribution.artifact, distribution.version), scratch)
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
            add_security(home, distribution.version)
        home.chmod(0o755)
        home.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _inspect(path: Path, modules: tuple[str, ...], account: Account | None) -> Home:
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
    return Home(path.resolve(), versions[0])
