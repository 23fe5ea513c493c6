"""What the claims of a token allow, by the settings.

Who asks, and what that one may do. Every request has a principal; without authentication it is `EVERYBODY`.

Filters that keys carry: those of searches, as far as a document alone decides them (docs/decisions/0201).
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from services.errors import ConfigurationError, Forbidden, InvalidInput, Unauthorized
from services.filters.tree import STATE
from services.settings import Settings, split_names

KeyScope = Literal["search", "ingest", "admin"]
SCOPES: Final[tuple[KeyScope, ...]] = ("search", "ingest", "admin")
ALL_INDEXES: Final = "*"
# The name of an index, or how names begin, followed by a star.
INDEX_PATTERN: Final = re.compile(r"\*|[a-z0-9][a-z0-9_-]{0,99}\*?")


@dataclass(frozen=True, slots=True)
class RateLimits:
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
    scopes: frozenset[KeyScope]
    indexes: tuple[str, ...] = (ALL_INDEXES,)
    filter: Any = None
    limits: RateLimits = field(default_factory=RateLimits)
    # What binds cursors to the principal that opened them: it differs where anything that is seen does.
    mark: str = ""

    def may(self, index: str) -> bool:
        """Whether it has a right to an index of that name, be there one or not."""
        return any(
            pattern in (ALL_INDEXES, index) or (pattern[-1] == ALL_INDEXES and index.startswith(pattern[:-1]))
            for pattern in self.indexes
        )

    @property
    def sees_everything(self) -> bool:
        """Whether all documents of all indexes are there for it."""
        return self.filter is None and ALL_INDEXES in self.indexes

    def demand_scope(self, any_of: Collection[KeyScope]) -> None:
        """Raises Unauthorized (`no_credentials`), Forbidden (`insufficient_scope`)."""
        if "admin" in self.scopes or not self.scopes.isdisjoint(any_of):
            return
        if self is NOBODY:
            raise missing_credentials()
        wanted = sorted(any_of)
        raise Forbidden(
            "insufficient_scope", f"This takes a key with the scope {' or '.join(wanted)}.", scopes=list(wanted)
        )

    def demand_index(self, index: str) -> None:
        """Raises Forbidden (`index_forbidden`), which says nothing of whether there is such an index."""
        if self.indexes != (ALL_INDEXES,) and not self.may(index):
            raise Forbidden("index_forbidden", f"This key has no right to an index {index[:100]!r}.")


# Where nothing is asked of callers; and the caller who has said nothing, where something is.
EVERYBODY: Final = Principal("everybody", frozenset({"admin"}))
NOBODY: Final = Principal("nobody", frozenset(), ())


def missing_credentials() -> Unauthorized:
    """The error for a request without a key."""
    return Unauthorized("no_credentials", "This service asks for a key: send it as `Authorization: Bearer …`.")


_MAX_DEPTH: Final = 8
_OPERATORS: Final = {"is", "any_of", "range", "prefix", "exists"}
_BOOLEAN_OPERATORS: Final = {"all", "any", "not"}


def check_key_filter(value: Any, scopes: Collection[KeyScope]) -> None:
    """Holds a filter against its form; against the fields of an index it is held where it is used.

    Raises InvalidInput (`bad_key_filter`).
    """
    if set(scopes) != {"search"}:
        raise InvalidInput(
            "bad_key_filter",
            "A key with a filter has the scope `search` alone: it could write over documents that it may not see.",
        )
    _check_condition(value, "filter", 1)
    try:
        orjson.dumps(value)
    except TypeError:
        raise _bad_key_filter("filter", "it holds a number or a text that cannot be stored") from None


def _check_condition(value: Any, where: str, depth: int) -> None:
    if not isinstance(value, Mapping) or depth > _MAX_DEPTH:
        raise _bad_key_filter(where, f"a filter is an object, {_MAX_DEPTH} levels deep at most")
    if "field" in value:
        operators = set(value) - {"field"}
        if not isinstance(value["field"], str) or len(operators) != 1:
            raise _bad_key_filter(where, "a condition has a `field` and one operator")
        if value["field"] == STATE or operators == {"match"}:
            raise _bad_key_filter(where, "a document alone must decide it, so `match` and `_state` are not for keys")
        if not operators <= _OPERATORS:
            raise _bad_key_filter(where, f"there is no operator {operators.pop()[:40]!r}")
        return
    if len(value) != 1 or not set(value) <= _BOOLEAN_OPERATORS:
        raise _bad_key_filter(where, "a filter has a `field` with one operator, or one of `all`, `any` and `not` alone")
    ((name, inner),) = value.items()
    parts = [inner] if name == "not" else inner
    if not isinstance(parts, list) or not parts:
        raise _bad_key_filter(where, f"`{name}` has a list of one part at least")
    for n, one in enumerate(parts):
        _check_condition(one, f"{where}.{name}[{n}]", depth + 1)


def _bad_key_filter(where: str, what: str) -> InvalidInput:
    return InvalidInput("bad_key_filter", f"{where}: {what}.", where=where)


# Signatures by a key that the issuer alone has. Never `none`, nor HS256 and its kin, whose key who verifies has too.
TOKEN_ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)


class ClaimMapping:
    """Reads principals out of claims that were verified."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError (`bad_oidc`)."""
        self._scope_claim: Final = settings.oidc_scope_claim
        self._prefix: Final = settings.oidc_scope_prefix
        self._indexes_claim: Final = settings.oidc_indexes_claim
        self._filter: Any = None
        self.algorithms: Final = split_names(settings.oidc_algorithms)
        if not settings.oidc_audience:
            raise bad_claim_settings(
                "SPARSEWELL_OIDC_AUDIENCE is needed: a token that was made for another service is none for this"
            )
        if not self.algorithms or not TOKEN_ALGORITHMS.issuperset(self.algorithms):
            raise bad_claim_settings(f"SPARSEWELL_OIDC_ALGORITHMS names some of {', '.join(sorted(TOKEN_ALGORITHMS))}")
        if settings.oidc_filter:
            try:
                self._filter = orjson.loads(settings.oidc_filter)
                check_key_filter(self._filter, ["search"])
            except (orjson.JSONDecodeError, InvalidInput) as error:
                raise bad_claim_settings(
                    f"SPARSEWELL_OIDC_FILTER is no filter in JSON that a key may have ({error})"
                ) from None

    def principal(self, claims: Mapping[str, Any]) -> Principal:
        """Who asks. A token with the scope `admin` has no filter; one with a filter may search and nothing else.

        Raises Forbidden (`claim_missing`) for a token that lacks what the filter is made of.
        """
        named = _claim_texts(claims.get(self._scope_claim))
        scopes = frozenset(one for one in SCOPES if f"{self._prefix}{one}" in named)
        indexes: tuple[str, ...] = (ALL_INDEXES,)
        if self._indexes_claim:
            indexes = tuple(
                one for one in _claim_texts(claims.get(self._indexes_claim)) if INDEX_PATTERN.fullmatch(one)
            )
        own = None
        if self._filter is not None and "admin" not in scopes:
            own = _fill_template(self._filter, claims)
            scopes &= {"search"}
        who = hashlib.sha256(orjson.dumps([claims["iss"], claims["sub"]])).hexdigest()
        mark = hashlib.sha256(orjson.dumps([who, indexes, own])).hexdigest()
        return Principal(f"oidc:{who[:24]}", scopes, indexes, own, mark=mark)


def bad_claim_settings(what: str) -> ConfigurationError:
    return ConfigurationError("bad_oidc", f"{what}.")


def _claim_texts(value: Any) -> list[str]:
    """A claim that is a text with several words, or a list of texts."""
    parts = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return [one for one in parts if isinstance(one, str) and one]


def _fill_template(template: Any, claims: Mapping[str, Any]) -> Any:
    """A filter whose `{"claim": NAME}` are what the token says."""
    if isinstance(template, Mapping):
        if template.keys() == {"claim"}:
            value = claims.get(str(template["claim"]))
            if not _is_value(value):
                raise Forbidden("claim_missing", f"The token lacks the claim {str(template['claim'])[:80]!r}.")
            return value
        return {name: _fill_template(one, claims) for name, one in template.items()}
    if isinstance(template, list):
        return [_fill_template(one, claims) for one in template]
    return template


def _is_value(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(one, str | int | float | bool) for one in values)
