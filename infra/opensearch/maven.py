"""Maven's ordinary client, asked to unpack one artifact. Its output goes to our stderr, so that a user can follow."""

import os
import shutil
import subprocess
import sys
from collections import deque
from pathlib import Path

from services.errors import ConfigurationError

POM = Path(__file__).with_name("pom.xml")


def unpack(*, group: str, artifact: str, version: str, directory: Path) -> None:
    """Fetches the zip artifact, checks it against the published checksum and unpacks it into `directory`.

    Raises `no_mvn` when there is no Maven and `download_failed`, with Maven's last lines, when it does not succeed.
    """
    mvn = shutil.which("mvn")
    if mvn is None:
        raise ConfigurationError(
            "no_mvn",
            "OpenSearch must be fetched once, and there is no mvn on the PATH to do it. Install Maven (Debian: "
            "apt-get install maven), or set OPENSEARCH_HOME to an unpacked OpenSearch, or OPENSEARCH_URL to a "
            "running one.",
        )
    command = [mvn, "--strict-checksums", "-f", str(POM), "dependency:unpack@distribution"]
    command += [f"-Dopensearch.group={group}", f"-Dopensearch.artifact={artifact}", f"-Dopensearch.version={version}"]
    command += [f"-Dunpack.directory={directory}"]
    # On a terminal Maven draws its own progress; elsewhere that would be thousands of lines.
    command += [] if sys.stderr.isatty() else ["--batch-mode"]
    code, tail = _follow(command)
    if code != 0:
        raise ConfigurationError(
            "download_failed",
            f"mvn could not fetch {group}:{artifact}:{version} (exit status {code}). Check the network, Maven's "
            f"settings and that the version exists, then run the same command again. Maven's last lines:\n{tail}",
        )


def _follow(command: list[str]) -> tuple[int, str]:
    """Runs the command, copies its output to stderr as it comes, and keeps the end of it."""
    kept: deque[bytes] = deque(maxlen=400)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as mvn:
        assert mvn.stdout is not None  # noqa: S101 - asked for above
        descriptor = mvn.stdout.fileno()

        while chunk := os.read(descriptor, 4096):
            kept.append(chunk)
            sys.stderr.write(chunk.decode(errors="replace"))
            sys.stderr.flush()
    lines = b"".join(kept).decode(errors="replace").replace("\r", "\n").splitlines()
    return mvn.returncode, "\n".join(line for line in lines[-12:] if line.strip())
