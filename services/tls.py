"""TLS towards our servers: whom we trust, and the certificate that says who we are, read again when it is replaced.

Files that hold a secret, such as those that Kubernetes mounts, and what tells that a file was replaced.
"""

import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import certifi

from services.errors import ConfigurationError

FileStamp = tuple[int, int, int]


def read_file_stamp(path: Path) -> FileStamp | None:
    """Tells one content of a file from the next; None while there is none. (Costs 1.5 µs.)"""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


class SecretFile:
    """One line, read again when the file has changed. The content is never part of an error."""

    def __init__(self, setting: str, path: Path) -> None:
        self._setting, self._path = setting, path
        self._seen: FileStamp | None = None
        self._text = ""

    def text(self) -> str:
        """The content without the end of its line. While the file is away, or empty, what it was last.

        Raises ConfigurationError (`bad_secret_file`) where it never was anything.
        """
        now = read_file_stamp(self._path)
        if now is None or now != self._seen:
            self._read(now)
        return self._text

    def _read(self, now: FileStamp | None) -> None:
        try:
            text, reason = self._path.read_text().rstrip("\r\n"), "it is empty"
        except (OSError, UnicodeDecodeError) as error:
            text, reason = "", getattr(error, "strerror", None) or "it is no text"
        if text:
            self._text, self._seen = text, now
        elif not self._text:
            raise ConfigurationError(
                "bad_secret_file", f"SPARSEWELL_{self._setting}={self._path} cannot be read: {reason}."
            )


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files in PEM. `ca` None: the authorities that this machine trusts. `server` names the settings in errors."""

    server: str
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True


class ClientContext(ssl.SSLContext):
    """A context that looks, before each new connection, whether its certificate's files were replaced.

    Connections that stand go on as they are. A pair that does not fit together (half replaced) is left for next time.
    """

    _files: TlsFiles
    _seen: tuple[FileStamp | None, ...]
    _lock: threading.Lock

    @classmethod
    def of(cls, files: TlsFiles) -> "ClientContext":
        """Raises ConfigurationError (`bad_certificate`) that names the setting whose file is no use."""
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        if not files.verify:
            log.warning("SPARSEWELL_%s_VERIFY is off: anybody may answer in its place", files.server)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context._files, context._lock = files, threading.Lock()
        context._seen = context._stamps()
        try:
            context._trust()
        except (OSError, ValueError) as error:
            raise _unusable_file(f"SPARSEWELL_{files.server}_CA={files.ca}", error) from None
        if files.cert:
            try:
                context.load_cert_chain(files.cert, files.key, _refuse_password)
            except (OSError, ValueError) as error:
                names = f"SPARSEWELL_{files.server}_CERT={files.cert}"
                names += f" with SPARSEWELL_{files.server}_KEY={files.key}" if files.key else ""
                raise _unusable_file(names, error) from None
        return context

    def wrap_socket(self, *given: Any, **named: Any) -> ssl.SSLSocket:
        """Threads' connections begin here."""
        self._look_again()
        return super().wrap_socket(*given, **named)

    def wrap_bio(self, *given: Any, **named: Any) -> ssl.SSLObject:
        """Event loops' connections begin here."""
        self._look_again()
        return super().wrap_bio(*given, **named)

    def _trust(self) -> None:
        if self._files.ca:
            self.load_verify_locations(self._files.ca)
            return
        self.load_default_certs()
        if not self.cert_store_stats()["x509_ca"]:  # an image without the system's
            self.load_verify_locations(certifi.where())

    def _stamps(self) -> tuple[FileStamp | None, ...]:
        return tuple(read_file_stamp(path) for path in (self._files.ca, self._files.cert, self._files.key) if path)

    def _look_again(self) -> None:
        now = self._stamps()
        if now == self._seen:
            return
        with self._lock:
            try:
                if self._files.cert:
                    # In a context of no use first: a pair that does not fit would take the one that we have.
                    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
                        self._files.cert, self._files.key, _refuse_password
                    )
                    self.load_cert_chain(self._files.cert, self._files.key, _refuse_password)
                if self._files.ca:
                    self.load_verify_locations(self._files.ca)  # added to those that are trusted until the next start
            except (OSError, ValueError) as error:
                log.warning(
                    "%s's certificate files changed and are not usable yet: %s",
                    self._files.server,
                    _error_reason(error),
                )
                return
            self._seen = now
            log.info("%s's certificate files changed and were read again", self._files.server)


def _refuse_password() -> str:
    # (without this OpenSSL would ask at the terminal)
    raise ValueError("the key is encrypted; give one that is not")


def _unusable_file(what: str, error: Exception) -> ConfigurationError:
    return ConfigurationError("bad_certificate", f"{what} cannot be used: {_error_reason(error)}.")


def _error_reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no certificate in PEM").replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)
