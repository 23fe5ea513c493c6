"""What is stored of a key: its rights, and the digests of at most two secrets, so that one replaces the other."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import orjson

from services.access.key_text import same
from services.access.principal import Limits, Principal, Scope
from services.errors import Conflict

MOST_SECRETS: Final = 2


@dataclass(frozen=True, slots=True)
class Secret:
    """The digest of one secret; moments are milliseconds since 1970, `ends_at` None: with the key."""

    digest: str
    created_at: int
    ends_at: int | None = None

    def holds(self, now: int) -> bool:
        return self.ends_at is None or now < self.ends_at


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its text, which is shown once, when it is made."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    indexes: tuple[str, ...]
    filter: Any
    created_at: int
    secrets: tuple[Secret, ...]
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
        kept["secrets"] = tuple(Secret(**one) for one in source["secrets"])
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
        fits = [same(one.digest, digest) and one.holds(now) for one in self.secrets]
        return any(fits) and self.lives(now)

    def rotated(self, digest: str, now: int, overlap: int) -> Self:
        """With a new secret beside the one that there is, which ends after `overlap` milliseconds.

        Raises Conflict (`key_rotating`) while two are in use, (`key_ended`) for one that opens nothing any more.
        """
        if not self.lives(now):
            raise Conflict("key_ended", "The key is revoked or has expired: create another.")
        active = [one for one in self.secrets if one.holds(now)]
        if len(active) >= MOST_SECRETS:
            raise Conflict(
                "key_rotating", "The key has two secrets in use; it gets another once the older of them has ended."
            )
        ending = [replace(one, ends_at=now + overlap) for one in active]
        return replace(self, secrets=(*ending, Secret(digest, now)))

    def principal(self) -> Principal:
        """Who asks with this key."""
        seen = orjson.dumps([self.id, self.indexes, self.filter])
        return Principal(
            self.id,
            frozenset(self.scopes),
            self.indexes,
            self.filter,
            Limits(self.rate, self.burst, self.daily),
            hashlib.sha256(seen).hexdigest(),
        )


@dataclass(frozen=True, slots=True)
class Opened:
    """A key and its principal, made once for each time that the key is read."""

    key: Key
    principal: Principal = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "principal", self.key.principal())
