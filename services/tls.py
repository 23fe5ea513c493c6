"""TLS for connections to servers: trusted authorities and client certificates, reloaded when their files change.

`SecretFile` does the same for passwords. Kubernetes replaces mounted files in place, so changes are detected by inode,
modification time and size.
"""

import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import certifi

from services.errors import ConfigurationError

log = logging.getLogger(__name__)

FileStamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a connection. `ca` None: the authorities that this machine trusts.

    `server` names the settings in errors.
    """

    server: str
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True


class ClientContext(ssl.SSLContext):
    """An SSL context that reloads its certificate files if they changed, before each new connection.

    Open connections are not affected. A pair that does not match (half replaced) is left for the next connection.
    """

    _files: TlsFiles
    _seen: tuple[FileStamp | None, ...]
    _lock: threading.Lock

    @classmethod
    def of(cls, files: TlsFiles) -> "ClientContext":
        """Create a context.

        Raises ConfigurationError (`bad_certificate`) that names the setting of the unusable file.
        """
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        if not files.verify:
            log.warning("SPARSEWELL_%s_VERIFY is off: any server can impersonate it", files.server)
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

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """Begin a connection of a thread."""
        self._reload_if_changed()
        return super().wrap_socket(*args, **kwargs)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a connection of an event loop."""
        self._reload_if_changed()
        return super().wrap_bio(*args, **kwargs)

    def _trust(self) -> None:
        if self._files.ca:
            self.load_verify_locations(self._files.ca)
            return
        self.load_default_certs()
        if not self.cert_store_stats()["x509_ca"]:  # a container image without system certificates
            self.load_verify_locations(certifi.where())

    def _stamps(self) -> tuple[FileStamp | None, ...]:
        return tuple(read_file_stamp(path) for path in (self._files.ca, self._files.cert, self._files.key) if path)

    def _reload_if_changed(self) -> None:
        now = self._stamps()
        if now == self._seen:
            return
        with self._lock:
            try:
                if self._files.cert:
                    # Try the pair in a throwaway context, because a pair that does not match would replace ours.
                    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
                        self._files.cert, self._files.key, _refuse_password
                    )
                    self.load_cert_chain(self._files.cert, self._files.key, _refuse_password)
                if self._files.ca:
                    self.load_verify_locations(self._files.ca)  # old authorities stay trusted until the restart
            except (OSError, ValueError) as error:
                log.warning(
                    "%s's certificate files changed and are not usable yet: %s",
                    self._files.server,
                    _error_reason(error),
                )
                return
            self._seen = now
            log.info("%s's certificate files changed and were reloaded", self._files.server)


def _refuse_password() -> str:
    # Without this callback OpenSSL would prompt at the terminal.
    raise ValueError("the key is encrypted; give an unencrypted one")


def _unusable_file(what: str, error: Exception) -> ConfigurationError:
    return ConfigurationError("bad_certificate", f"{what} cannot be used: {_error_reason(error)}.")


def _error_reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no certificate in PEM").replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)


class SecretFile:
    """A file with one secret line, reloaded when it changes. Errors never contain the content."""

    def __init__(self, setting: str, path: Path) -> None:
        self._setting, self._path = setting, path
        self._seen: FileStamp | None = None
        self._text = ""

    def text(self) -> str:
        """Return the content without the line end; while the file is missing or empty, the last content.

        Raises ConfigurationError (`bad_secret_file`) if there never was any.
        """
        now = read_file_stamp(self._path)
        if now is None or now != self._seen:
            self._read(now)
        return self._text

    def _read(self, now: FileStamp | None) -> None:
        try:
            text, reason = self._path.read_text().rstrip("\r\n"), "it is empty"
        except (OSError, UnicodeDecodeError) as error:
            text, reason = "", getattr(error, "strerror", None) or "it is not text"
        if text:
            self._text, self._seen = text, now
        elif not self._text:
            raise ConfigurationError(
                "bad_secret_file", f"SPARSEWELL_{self._setting}={self._path} cannot be read: {reason}."
            )


def read_file_stamp(path: Path) -> FileStamp | None:
    """Return a stamp that changes with the content of a file, or None without the file. Costs 1.5 microseconds."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
