"""API keys, and the access mode that decides whether callers need one.

The text of a key is `sw_<id>_<secret>`. The secret is 256 random bits and cannot be guessed, so SHA-256 is as safe as
a slow password hash here and a thousand times cheaper on every request (docs/decisions/0200). Stored are the rights of
a key and the digests of at most two secrets, so that one can replace the other without an interruption.

In mode `auto`, a service without keys only starts where no other machine can reach it.
"""

import base64
import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

import orjson

from services.access.principals import KeyScope, Principal, RateLimits
from services.errors import ConfigurationError, Conflict
from services.settings import Settings

KEY_ID_PATTERN: Final = re.compile("[a-z2-7]{16}")
KEY_PATTERN: Final = re.compile(r"sw_([a-z2-7]{16})_([a-z2-7]{52})")
# A credential in an Authorization header (RFC 6750, b64token).
TOKEN_PATTERN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
MIN_KEY_CHARACTERS: Final = 32

MAX_SECRETS: Final = 2
_ID_BYTES, _SECRET_BYTES = 10, 32

AccessMode = Literal["open", "keys"]


@dataclass(frozen=True, slots=True)
class KeySecret:
    """The digest of one secret. Times are milliseconds since 1970; `ends_at` None: it ends with the key."""

    digest: str
    created_at: int
    ends_at: int | None = None

    def is_valid(self, now: int) -> bool:
        """Return whether the secret is still valid."""
        return self.ends_at is None or now < self.ends_at


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its text, which is shown only once, when the key is created."""

    id: str
    name: str
    scopes: tuple[KeyScope, ...]
    indexes: tuple[str, ...]
    filter: Any
    created_at: int
    secrets: tuple[KeySecret, ...]
    expires_at: int | None = None
    revoked_at: int | None = None
    rate: float | None = None
    burst: int | None = None
    daily: int | None = None
    document_rate: float | None = None
    byte_rate: float | None = None

    @classmethod
    def read(cls, source: Mapping[str, Any]) -> Self:
        """Return the key that `source` stored. Raises TypeError, KeyError or ValueError for anything else."""
        # A member of a later version may be ignored while it is null. With a value it may be a limit that this version
        # does not know, so the constructor refuses it.
        members = {name: value for name, value in source.items() if value is not None or name in cls.__slots__}
        members["secrets"] = tuple(KeySecret(**secret) for secret in source["secrets"])
        return cls(**members | {"scopes": tuple(source["scopes"]), "indexes": tuple(source["indexes"])})

    def source(self) -> dict[str, Any]:
        """Return the stored form of the key."""
        members = {name: getattr(self, name) for name in self.__slots__}
        secrets = [{name: getattr(secret, name) for name in secret.__slots__} for secret in self.secrets]
        return members | {"secrets": secrets}

    def is_active(self, now: int) -> bool:
        """Return whether the key is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def accepts(self, digest: str, now: int) -> bool:
        """Return whether a secret with that digest is valid now.

        Every secret is compared, so timing reveals nothing.
        """
        matches = [is_same_digest(secret.digest, digest) and secret.is_valid(now) for secret in self.secrets]
        return any(matches) and self.is_active(now)

    def rotated(self, digest: str, now: int, overlap: int) -> Self:
        """Return the key with a new secret; the current one stays valid for `overlap` milliseconds.

        Raises Conflict: `key_rotating` while two secrets are valid, `key_ended` for a revoked or expired key.
        """
        if not self.is_active(now):
            raise Conflict("key_ended", "The key is revoked or has expired: create another.")
        active = [secret for secret in self.secrets if secret.is_valid(now)]
        if len(active) >= MAX_SECRETS:
            raise Conflict(
                "key_rotating", "The key has two valid secrets: rotate it again once the older one has ended."
            )
        ending = [replace(secret, ends_at=now + overlap) for secret in active]
        return replace(self, secrets=(*ending, KeySecret(digest, now)))

    def principal(self) -> Principal:
        """Return the principal of requests with this key."""
        visible = orjson.dumps([self.id, self.indexes, self.filter])
        return Principal(
            self.id,
            frozenset(self.scopes),
            self.indexes,
            self.filter,
            RateLimits(self.rate, self.burst, self.daily, self.document_rate, self.byte_rate),
            hashlib.sha256(visible).hexdigest(),
        )


@dataclass(frozen=True, slots=True)
class ResolvedKey:
    """A key with its principal, which is computed once each time that the key is read."""

    key: ApiKey
    principal: Principal = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "principal", self.key.principal())


def generate_key_id() -> str:
    """Return a new key id of 80 random bits. It is not secret and never reused."""
    return _random_text(_ID_BYTES)


def generate_key(key_id: str) -> str:
    """Return the text of a new key with that id."""
    return f"sw_{key_id}_{_random_text(_SECRET_BYTES)}"


def _random_text(size: int) -> str:
    return base64.b32encode(secrets.token_bytes(size)).decode().rstrip("=").lower()


def bearer_headers(key: str) -> dict[str, str]:
    """Return the headers that carry a key; empty for an empty key."""
    return {"authorization": f"Bearer {key}"} if key else {}


def digest_key(key: str) -> str:
    """Return the digest under which a key is stored (SHA-256, hexadecimal)."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_same_digest(first: str, second: str) -> bool:
    """Compare two digests in constant time."""
    return hmac.compare_digest(first, second)


def resolve_access_mode(settings: Settings, host: str | None = None) -> AccessMode:
    """Return the access mode of a service that listens on `host` (None: the host of the API).

    Raises ConfigurationError (`access_undecided`) where it would be open to other machines without a setting that says
    so.
    """
    if settings.access != "auto":
        return settings.access
    if settings.admin_key_file or settings.oidc_issuer:
        return "keys"
    host = settings.api_host if host is None else host
    if is_loopback_host(host):
        return "open"
    raise ConfigurationError(
        "access_undecided",
        f"The service would listen on {host} without authentication. Set SPARSEWELL_ACCESS=keys with "
        "SPARSEWELL_ADMIN_KEY_FILE (`sparsewell keys generate` makes one) or SPARSEWELL_OIDC_ISSUER, or "
        "SPARSEWELL_ACCESS=open if a proxy in front of it authenticates callers.",
    )


def is_loopback_host(host: str) -> bool:
    """Return whether only this machine can reach a host. The only name that is known to be local is `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_model_keys(settings: Settings, host: str) -> tuple[str, ...]:
    """Return the keys that a model process on `host` accepts; without any it accepts every request.

    Raises ConfigurationError (`access_undecided`) where it would be open to other machines without a setting that says
    so.
    """
    keys = read_key_file(settings.model_key_file, "SPARSEWELL_MODEL_KEY_FILE")
    if keys or settings.access == "open" or is_loopback_host(host):
        return keys
    raise ConfigurationError(
        "access_undecided",
        f"The model process would listen on {host} without authentication. Set SPARSEWELL_MODEL_KEY_FILE here and for "
        "the API (`sparsewell keys generate` makes one), or SPARSEWELL_ACCESS=open.",
    )


def read_key_file(path: str, variable: str) -> tuple[str, ...]:
    """Return the keys in a file, one a line; two while one replaces the other, none without a file.

    Raises ConfigurationError (`bad_key_file`), whose message never repeats the content of the file.
    """
    if not path:
        return ()
    try:
        lines = Path(path).read_text().split()
    except (OSError, ValueError) as error:
        raise ConfigurationError("bad_key_file", f"{variable} cannot be read ({type(error).__name__}).") from None
    if not lines or not all(TOKEN_PATTERN.fullmatch(key) and len(key) >= MIN_KEY_CHARACTERS for key in lines):
        raise ConfigurationError(
            "bad_key_file",
            f"{variable} must hold one key a line, each of {MIN_KEY_CHARACTERS} or more letters, digits and -._~+/: "
            "`sparsewell keys generate` makes one.",
        )
    return tuple(lines)
