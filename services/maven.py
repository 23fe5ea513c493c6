"""A client for Maven: fetches artifacts with mvn, shows its output on stderr and passes on SSL_CERT_FILE.

OpenSSL, curl and Python honour SSL_CERT_FILE, but Java does not. Where a company's proxy signs the traffic, its
authority is in that file, and Maven would refuse the connection. So the file is converted to a Java trust store.
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

# A file of public certificates holds no secret; the password only guards against accidental changes.
TRUSTSTORE_PASSWORD = "changeit"  # noqa: S105 - Java's own default for certificate stores
DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"

_SMALL_FILE = re.compile(rb"Download(ing|ed) from \S+ \S+\.(pom|jar|xml)\b")


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact by its Maven coordinates. `packaging` is also the ending of its file."""

    group: str
    artifact: str
    version: str
    packaging: str = "jar"

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}:{self.packaging}"


def copy_artifact(artifact: Artifact, directory: Path, *, without: str) -> Path:
    """Fetch a file into `directory`, checked against its published checksum (SHA-1). Raises as `run_maven`."""
    goal = [f"{DEPENDENCY_PLUGIN}:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={directory}"]
    run_maven(goal, what=str(artifact), without=without)
    return directory / f"{artifact.artifact}-{artifact.version}.{artifact.packaging}"


def run_maven(arguments: Sequence[str], *, what: str, without: str) -> None:
    """Run mvn to fetch `what`. `without` is the message for a machine without Maven.

    Raises ConfigurationError: `no_mvn`, and `download_failed` with Maven's last lines.
    """
    mvn = shutil.which("mvn")
    if mvn is None:
        raise ConfigurationError("no_mvn", without)
    # --update-snapshots: retry a failed fetch now, although Maven remembers the failure for a day.
    command = [mvn, "--strict-checksums", "--update-snapshots", *arguments]
    # Maven's progress display would be thousands of lines outside a terminal.
    command += [] if sys.stderr.isatty() else ["--batch-mode"]
    with TemporaryDirectory(prefix="sparsewell-") as scratch:
        code, tail = _run_with_output(command, {**os.environ, **trust_options(os.environ, Path(scratch))})
    if code != 0:
        raise ConfigurationError(
            "download_failed",
            f"mvn could not fetch {what} (exit status {code}). Check the network, Maven's settings and that the "
            f"version exists, then run the same command again. Maven's last lines:\n{tail}",
        )


def _run_with_output(command: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Run the command, copy its output to stderr, and return the exit status and the last lines.

    On a terminal the bytes are copied unchanged, so that Maven's progress line works. Elsewhere the lines about the few
    hundred small files of Maven's plugin are left out.
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


def trust_options(environment: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """Return MAVEN_OPTS that make Java trust the certificates of SSL_CERT_FILE, unless they already name a store."""
    bundle = Path(environment.get("SSL_CERT_FILE", ""))
    options = environment.get("MAVEN_OPTS", "")
    if not bundle.is_file() or "javax.net.ssl.trustStore" in options:
        return {}
    store = scratch / "certificates.jks"
    if write_truststore(bundle, store) == 0:
        return {}
    added = f"-Djavax.net.ssl.trustStore={store} -Djavax.net.ssl.trustStorePassword={TRUSTSTORE_PASSWORD}"
    return {"MAVEN_OPTS": f"{options} {added}".strip()}


def write_truststore(bundle: Path, target: Path) -> int:
    """Write the certificates of a PEM bundle as a Java key store (JKS, version 2) and return their number.

    The format: magic, version, count; per entry the tag 2, an alias, a time, "X.509" and the DER bytes; at the end a
    SHA-1 over the password in UTF-16, a fixed phrase and everything before.
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
