"""Who asks, and what that one may do. Every request has a principal; without authentication it is `EVERYBODY`."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from services.errors import Forbidden, Unauthorized

Scope = Literal["search", "ingest", "admin"]
SCOPES: Final[tuple[Scope, ...]] = ("search", "ingest", "admin")
EVERY: Final = "*"
# The name of an index, or how names begin, followed by a star.
PATTERN: Final = re.compile(r"\*|[a-z0-9][a-z0-9_-]{0,99}\*?")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a principal may ask: requests a second, so many at once; None: as the service's settings say."""

    rate: float | None = None
    burst: int | None = None
    daily: int | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller. `indexes` are patterns; `filter`, in our filter language, says which documents exist for it.

    `admin` includes the other scopes. A principal with a filter may search and nothing else (docs/decisions/0201).
    """

    id: str
    scopes: frozenset[Scope]
    indexes: tuple[str, ...] = (EVERY,)
    filter: Any = None
    limits: Limits = field(default_factory=Limits)
    # What binds cursors to the principal that opened them: it differs where anything that is seen does.
    mark: str = ""

    def may(self, index: str) -> bool:
        """Whether it has a right to an index of that name, be there one or not."""
        return any(
            pattern in (EVERY, index) or (pattern[-1] == EVERY and index.startswith(pattern[:-1]))
            for pattern in self.indexes
        )

    @property
    def sees_everything(self) -> bool:
        """Whether all documents of all indexes are there for it."""
        return self.filter is None and EVERY in self.indexes

    def demand_scope(self, any_of: Collection[Scope]) -> None:
        """Raises Unauthorized (`no_credentials`), Forbidden (`insufficient_scope`)."""
        if "admin" in self.scopes or not self.scopes.isdisjoint(any_of):
            return
        if self is NOBODY:
            raise no_credentials()
        wanted = sorted(any_of)
        raise Forbidden(
            "insufficient_scope", f"This takes a key with the scope {' or '.join(wanted)}.", scopes=list(wanted)
        )

    def demand_index(self, index: str) -> None:
        """Raises Forbidden (`index_forbidden`), which says nothing of whether there is such an index."""
        if self.indexes != (EVERY,) and not self.may(index):
            raise Forbidden("index_forbidden", f"This key has no right to an index {index[:100]!r}.")


# Where nothing is asked of callers; and the caller who has said nothing, where something is.
EVERYBODY: Final = Principal("everybody", frozenset({"admin"}))
NOBODY: Final = Principal("nobody", frozenset(), ())


def no_credentials() -> Unauthorized:
    """The error for a request without a key."""
    return Unauthorized("no_credentials", "This service asks for a key: send it as `Authorization: Bearer …`.")
