"""Maven's ordinary client. Its output goes to our stderr, so that a user can follow.

SSL_CERT_FILE for Java. OpenSSL, curl and Python honour that variable, Java's own certificates know nothing of it.

Where a company's proxy signs what goes through it, its authority is in that file; Maven would refuse the connection.
"""

import hashlib
import os
import re
import shutil
import ssl
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from services.errors import ConfigurationError

# The password only guards against accidental change; a file of public certificates has no secret.
TRUSTSTORE_PASSWORD = "changeit"  # noqa: S105 - Java's own default for certificate stores


def write_truststore(bundle: Path, target: Path) -> int:
    """Writes the certificates of a PEM bundle as a Java key store (JKS, version 2); returns how many there are.

    The format: magic, version, count; per entry the tag 2, an alias, a time, "X.509", the DER bytes; and a SHA-1 over
    the password in UTF-16, a fixed phrase and everything before.
    """
    certificates = _certificates(bundle)
    body = struct.pack(">III", 0xFEEDFEED, 2, len(certificates))
    for number, der in enumerate(certificates):
        body += struct.pack(">I", 2) + _encode_modified_utf8(f"certificate-{number}") + struct.pack(">q", 0)
        body += _encode_modified_utf8("X.509") + struct.pack(">I", len(der)) + der
    guard = hashlib.sha1(TRUSTSTORE_PASSWORD.encode("utf-16-be") + b"Mighty Aphrodite" + body)  # noqa: S324 - the format's own
    target.write_bytes(body + guard.digest())
    return len(certificates)


def _certificates(bundle: Path) -> list[bytes]:
    end = ssl.PEM_FOOTER
    blocks = (part[part.index(ssl.PEM_HEADER) :] for part in bundle.read_text().split(end) if ssl.PEM_HEADER in part)
    return [ssl.PEM_cert_to_DER_cert(f"{block}{end}") for block in blocks]


def _encode_modified_utf8(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode("ascii")


_SMALL_FILE = re.compile(rb"Download(ing|ed) from \S+ \S+\.(pom|jar|xml)\b")
DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"


@dataclass(frozen=True, slots=True)
class Artifact:
    """What is fetched, by Maven's coordinates."""

    group: str
    artifact: str
    version: str

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"


def copy_artifact(artifact: Artifact, directory: Path, *, without: str) -> Path:
    """Fetches a jar, checked against the published checksum, into `directory`. Raises as `run`."""
    goal = [f"{DEPENDENCY_PLUGIN}:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={directory}"]
    run_maven(goal, what=str(artifact), without=without)
    return directory / f"{artifact.artifact}-{artifact.version}.jar"


def run_maven(arguments: Sequence[str], *, what: str, without: str) -> None:
    """Runs mvn. `what` is fetched by it, `without` says why it is needed and what to do where there is none.

    Raises ConfigurationError: `no_mvn` when there is no Maven, and `download_failed`, with Maven's last lines, when it
    does not succeed.
    """
    mvn = shutil.which("mvn")
    if mvn is None:
        raise ConfigurationError("no_mvn", without)
    # --update-snapshots: a fetch that failed is tried again now, not when Maven's memory of the failure has expired.
    command = [mvn, "--strict-checksums", "--update-snapshots", *arguments]
    # On a terminal Maven draws its own progress; elsewhere that would be thousands of lines.
    command += [] if sys.stderr.isatty() else ["--batch-mode"]
    with TemporaryDirectory(prefix="sparsewell-") as scratch:
        code, tail = _run_with_output(command, {**os.environ, **trust_options(os.environ, Path(scratch))})
    if code != 0:
        raise ConfigurationError(
            "download_failed",
            f"mvn could not fetch {what} (exit status {code}). Check the network, Maven's settings and that the "
            f"version exists, then run the same command again. Maven's last lines:\n{tail}",
        )


def trust_options(environment: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """Return MAVEN_OPTS that make Java trust the certificates of SSL_CERT_FILE, unless they name a store already."""
    bundle = Path(environment.get("SSL_CERT_FILE", ""))
    options = environment.get("MAVEN_OPTS", "")
    if not bundle.is_file() or "javax.net.ssl.trustStore" in options:
        return {}
    store = scratch / "certificates.jks"
    if write_truststore(bundle, store) == 0:
        return {}
    added = f"-Djavax.net.ssl.trustStore={store} -Djavax.net.ssl.trustStorePassword={TRUSTSTORE_PASSWORD}"
    return {"MAVEN_OPTS": f"{options} {added}".strip()}


def _run_with_output(command: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Runs the command, shows its output on stderr as it comes, and returns the exit status and the last lines.

    On a terminal the bytes go through as they are, so that Maven's own progress line works. Elsewhere the lines about
    the few hundred small files that Maven's plugin consists of are left out.
    """
    kept: deque[bytes] = deque(maxlen=400)
    raw = "--batch-mode" not in command
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as mvn:
        assert mvn.stdout is not None  # noqa: S101 - asked for above
        descriptor = mvn.stdout.fileno()
        while chunk := os.read(descriptor, 4096) if raw else mvn.stdout.readline():
            kept.append(chunk)
            if raw or not _SMALL_FILE.search(chunk):
                sys.stderr.write(chunk.decode(errors="replace"))
                sys.stderr.flush()
    lines = b"".join(kept).decode(errors="replace").replace("\r", "\n").splitlines()
    return mvn.returncode, "\n".join(line for line in lines[-12:] if line.strip())
