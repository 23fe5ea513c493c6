"""TLS towards our servers: whom we trust, and the certificate that says who we are, read again when it is replaced."""

import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import certifi

from services.errors import ConfigurationError
from services.secret_files import Stamp, stamp

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
    _seen: tuple[Stamp | None, ...]
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
            raise _unusable(f"SPARSEWELL_{files.server}_CA={files.ca}", error) from None
        if files.cert:
            try:
                context.load_cert_chain(files.cert, files.key, _no_password)
            except (OSError, ValueError) as error:
                names = f"SPARSEWELL_{files.server}_CERT={files.cert}"
                names += f" with SPARSEWELL_{files.server}_KEY={files.key}" if files.key else ""
                raise _unusable(names, error) from None
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

    def _stamps(self) -> tuple[Stamp | None, ...]:
        return tuple(stamp(path) for path in (self._files.ca, self._files.cert, self._files.key) if path)

    def _look_again(self) -> None:
        now = self._stamps()
        if now == self._seen:
            return
        with self._lock:
            try:
                if self._files.cert:
                    # In a context of no use first: a pair that does not fit would take the one that we have.
                    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
                        self._files.cert, self._files.key, _no_password
                    )
                    self.load_cert_chain(self._files.cert, self._files.key, _no_password)
                if self._files.ca:
                    self.load_verify_locations(self._files.ca)  # added to those that are trusted until the next start
            except (OSError, ValueError) as error:
                log.warning(
                    "%s's certificate files changed and are not usable yet: %s", self._files.server, _why(error)
                )
                return
            self._seen = now
            log.info("%s's certificate files changed and were read again", self._files.server)


def _no_password() -> str:
    # (without this OpenSSL would ask at the terminal)
    raise ValueError("the key is encrypted; give one that is not")


def _unusable(what: str, error: Exception) -> ConfigurationError:
    return ConfigurationError("bad_certificate", f"{what} cannot be used: {_why(error)}.")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no certificate in PEM").replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)
