"""What is stored of a key: its rights, and the digests of at most two secrets, so that one replaces the other.

The text of a key, `sw_<id>_<secret>`, and what is kept of it.

The secret is 256 random bits, so nobody finds it by trying, whatever a hash costs: SHA-256 is as good as a slow
password hash here, and a thousand times cheaper on every request (docs/decisions/0200).

Whether callers are asked who they are: as the settings say, and never unasked where others can reach the service.
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
# A credential as an Authorization header takes it (RFC 6750, b64token).
TOKEN_PATTERN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_ID_BYTES, _SECRET_BYTES = 10, 32


def generate_key_id() -> str:
    """80 random bits: it is no secret, and is never given twice."""
    return _random_text(_ID_BYTES)


def generate_key(key_id: str) -> str:
    """The whole text of a key of that id."""
    return f"sw_{key_id}_{_random_text(_SECRET_BYTES)}"


def parse_key_id(key: str) -> str | None:
    """The id in a key's text; None for what is not of the form."""
    found = KEY_PATTERN.fullmatch(key)
    return found[1] if found else None


def digest_key(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_same_digest(one: str, other: str) -> bool:
    """Whether two digests are equal, in a time that does not tell how far they are."""
    return hmac.compare_digest(one, other)


def _random_text(size: int) -> str:
    return base64.b32encode(secrets.token_bytes(size)).decode().rstrip("=").lower()


AccessMode = Literal["open", "keys"]
MIN_KEY_CHARACTERS: Final = 32


def resolve_access_mode(settings: Settings, host: str | None = None) -> AccessMode:
    """The mode of a service that listens on `host` (none: the API's).

    Raises ConfigurationError (`access_undecided`) where it would be open to others and nobody said so.
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
        f"The service would listen on {host} and let everybody in. Set SPARSEWELL_ACCESS=keys with "
        "SPARSEWELL_ADMIN_KEY_FILE (`sparsewell keys generate` makes one) or SPARSEWELL_OIDC_ISSUER, or "
        "SPARSEWELL_ACCESS=open where something in front of it asks who comes.",
    )


def read_model_keys(settings: Settings, host: str) -> tuple[str, ...]:
    """The keys that a model process which listens on `host` asks for; none: it asks nobody.

    Raises ConfigurationError (`access_undecided`) where it would be open to others and nobody said so.
    """
    keys = read_key_file(settings.model_key_file, "SPARSEWELL_MODEL_KEY_FILE")
    if keys or settings.access == "open" or is_loopback_host(host):
        return keys
    raise ConfigurationError(
        "access_undecided",
        f"The model process would listen on {host} and let everybody in. Set SPARSEWELL_MODEL_KEY_FILE here and for "
        "the API (`sparsewell keys generate` makes one), or SPARSEWELL_ACCESS=open.",
    )


def is_loopback_host(host: str) -> bool:
    """Whether only this machine reaches an address. A name but `localhost` is none that one could know of."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_key_file(path: str, variable: str) -> tuple[str, ...]:
    """The keys in a file, one a line: two while one replaces the other; none for no file.

    Raises ConfigurationError (`bad_key_file`), whose words never hold what the file does.
    """
    if not path:
        return ()
    try:
        lines = Path(path).read_text().split()
    except (OSError, ValueError) as error:
        raise ConfigurationError("bad_key_file", f"{variable} cannot be read ({type(error).__name__}).") from None
    if not lines or not all(TOKEN_PATTERN.fullmatch(one) and len(one) >= MIN_KEY_CHARACTERS for one in lines):
        raise ConfigurationError(
            "bad_key_file",
            f"{variable} holds one key a line, each of {MIN_KEY_CHARACTERS} or more letters, digits and -._~+/: "
            "`sparsewell keys generate` makes one.",
        )
    return tuple(lines)


MAX_SECRETS: Final = 2


@dataclass(frozen=True, slots=True)
class KeySecret:
    """The digest of one secret; moments are milliseconds since 1970, `ends_at` None: with the key."""

    digest: str
    created_at: int
    ends_at: int | None = None

    def holds(self, now: int) -> bool:
        return self.ends_at is None or now < self.ends_at


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its text, which is shown once, when it is made."""

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

    @classmethod
    def read(cls, source: Mapping[str, Any]) -> Self:
        """The key in what `source` made. Raises TypeError, KeyError or ValueError for what it cannot have made."""
        # (what a later version adds is null where it says nothing; what it says may be a limit that we do not know)
        kept = {name: value for name, value in source.items() if value is not None or name in cls.__slots__}
        kept["secrets"] = tuple(KeySecret(**one) for one in source["secrets"])
        return cls(**kept | {"scopes": tuple(source["scopes"]), "indexes": tuple(source["indexes"])})

    def source(self) -> dict[str, Any]:
        """What is stored."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        secrets = [{name: getattr(one, name) for name in one.__slots__} for one in self.secrets]
        return plain | {"secrets": secrets}

    def lives(self, now: int) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def accepts(self, digest: str, now: int) -> bool:
        """Whether a secret of that digest opens anything now. Every secret is compared, whichever fits."""
        fits = [is_same_digest(one.digest, digest) and one.holds(now) for one in self.secrets]
        return any(fits) and self.lives(now)

    def rotated(self, digest: str, now: int, overlap: int) -> Self:
        """With a new secret beside the one that there is, which ends after `overlap` milliseconds.

        Raises Conflict (`key_rotating`) while two are in use, (`key_ended`) for one that opens nothing any more.
        """
        if not self.lives(now):
            raise Conflict("key_ended", "The key is revoked or has expired: create another.")
        active = [one for one in self.secrets if one.holds(now)]
        if len(active) >= MAX_SECRETS:
            raise Conflict(
                "key_rotating", "The key has two secrets in use; it gets another once the older of them has ended."
            )
        ending = [replace(one, ends_at=now + overlap) for one in active]
        return replace(self, secrets=(*ending, KeySecret(digest, now)))

    def principal(self) -> Principal:
        """Who asks with this key."""
        seen = orjson.dumps([self.id, self.indexes, self.filter])
        return Principal(
            self.id,
            frozenset(self.scopes),
            self.indexes,
            self.filter,
            RateLimits(self.rate, self.burst, self.daily),
            hashlib.sha256(seen).hexdigest(),
        )


@dataclass(frozen=True, slots=True)
class ResolvedKey:
    """A key and its principal, made once for each time that the key is read."""

    key: ApiKey
    principal: Principal = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "principal", self.key.principal())
