"""SSL_CERT_FILE for Java. OpenSSL, curl and Python honour that variable, Java's own certificates know nothing of it.

Where a company's proxy signs what goes through it, its authority is in that file; Maven would refuse the connection.
"""

import hashlib
import ssl
import struct
from pathlib import Path

# The password only guards against accidental change; a file of public certificates has no secret.
PASSWORD = "changeit"  # noqa: S105 - Java's own default for certificate stores


def write_truststore(bundle: Path, target: Path) -> int:
    """Writes the certificates of a PEM bundle as a Java key store (JKS, version 2); returns how many there are.

    The format: magic, version, count; per entry the tag 2, an alias, a time, "X.509", the DER bytes; and a SHA-1 over
    the password in UTF-16, a fixed phrase and everything before.
    """
    certificates = _certificates(bundle)
    body = struct.pack(">III", 0xFEEDFEED, 2, len(certificates))
    for number, der in enumerate(certificates):
        body += struct.pack(">I", 2) + _text(f"certificate-{number}") + struct.pack(">q", 0)
        body += _text("X.509") + struct.pack(">I", len(der)) + der
    guard = hashlib.sha1(PASSWORD.encode("utf-16-be") + b"Mighty Aphrodite" + body)  # noqa: S324 - the format's own
    target.write_bytes(body + guard.digest())
    return len(certificates)


def _certificates(bundle: Path) -> list[bytes]:
    end = ssl.PEM_FOOTER
    blocks = (part[part.index(ssl.PEM_HEADER) :] for part in bundle.read_text().split(end) if ssl.PEM_HEADER in part)
    return [ssl.PEM_cert_to_DER_cert(f"{block}{end}") for block in blocks]


def _text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode("ascii")
