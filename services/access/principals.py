"""Principals: the caller of each request, with scopes, indexes and an optional document filter.

A key or a token (OpenID Connect) resolves to a principal. Without authentication every request is `EVERYBODY`. The
filter of a principal is document-level security: it says which documents exist for the caller. It may only use
conditions that a document alone decides (docs/decisions/0201).
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
# The name of an index, or a prefix of names followed by a star.
INDEX_PATTERN: Final = re.compile(r"\*|[a-z0-9][a-z0-9_-]{0,99}\*?")

# Signatures with a key that only the issuer holds. `none` and HS256 to HS512 are excluded: the verifier of an HMAC
# holds the signing key.
TOKEN_ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)

_MAX_DEPTH: Final = 8
_OPERATORS: Final = {"is", "any_of", "range", "prefix", "exists"}
_BOOLEAN_OPERATORS: Final = {"all", "any", "not"}


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Limits of one principal: requests a second, at once and a day; documents and bytes that it writes a second.

    None: the limit of the settings applies.
    """

    rate: float | None = None
    burst: int | None = None
    daily: int | None = None
    document_rate: float | None = None
    byte_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller. `indexes` are patterns; `filter` (filter language of searches) limits the documents that it can see.

    `admin` includes the other scopes. A principal with a filter may only search (docs/decisions/0201).
    """

    id: str
    scopes: frozenset[KeyScope]
    indexes: tuple[str, ...] = (ALL_INDEXES,)
    filter: Any = None
    limits: RateLimits = field(default_factory=RateLimits)
    # Binds a cursor to the principal that opened it. Principals that see different documents have different ones.
    fingerprint: str = ""

    def may(self, index: str) -> bool:
        """Return whether the principal has a right to an index of that name, whether or not it exists."""
        return any(
            pattern in (ALL_INDEXES, index) or (pattern[-1] == ALL_INDEXES and index.startswith(pattern[:-1]))
            for pattern in self.indexes
        )

    @property
    def sees_everything(self) -> bool:
        """Return whether the principal sees all documents of all indexes."""
        return self.filter is None and ALL_INDEXES in self.indexes

    def demand_scope(self, any_of: Collection[KeyScope]) -> None:
        """Require one of the scopes. Raises Unauthorized (`no_credentials`), Forbidden (`insufficient_scope`)."""
        if "admin" in self.scopes or not self.scopes.isdisjoint(any_of):
            return
        if self is NOBODY:
            raise missing_credentials()
        scopes = sorted(any_of)
        raise Forbidden(
            "insufficient_scope", f"This needs a key with the scope {' or '.join(scopes)}.", scopes=list(scopes)
        )

    def demand_index(self, index: str) -> None:
        """Require a right to an index.

        Raises Forbidden (`index_forbidden`), which does not reveal whether it exists.
        """
        if self.indexes != (ALL_INDEXES,) and not self.may(index):
            raise Forbidden("index_forbidden", f"This key has no right to an index {index[:100]!r}.")


# The caller in mode `open`, and a caller without credentials in mode `keys`.
EVERYBODY: Final = Principal("everybody", frozenset({"admin"}))
NOBODY: Final = Principal("nobody", frozenset(), ())


def missing_credentials() -> Unauthorized:
    """Return the error for a request without a key."""
    return Unauthorized("no_credentials", "This service requires a key: send it as `Authorization: Bearer …`.")


class ClaimMapping:
    """The mapping of verified token claims to principals, by the OIDC settings."""

    def __init__(self, settings: Settings) -> None:
        """Check the settings. Raises ConfigurationError (`bad_oidc`)."""
        self._scope_claim: Final = settings.oidc_scope_claim
        self._prefix: Final = settings.oidc_scope_prefix
        self._indexes_claim: Final = settings.oidc_indexes_claim
        self._filter: Any = None
        self.algorithms: Final = split_names(settings.oidc_algorithms)
        if not settings.oidc_audience:
            raise bad_claim_settings(
                "SPARSEWELL_OIDC_AUDIENCE is required: without it, tokens for other services would be accepted"
            )
        if not self.algorithms or not TOKEN_ALGORITHMS.issuperset(self.algorithms):
            raise bad_claim_settings(
                f"SPARSEWELL_OIDC_ALGORITHMS must name some of {', '.join(sorted(TOKEN_ALGORITHMS))}"
            )
        if settings.oidc_filter:
            try:
                self._filter = orjson.loads(settings.oidc_filter)
                check_key_filter(self._filter, ["search"])
            except (orjson.JSONDecodeError, InvalidInput) as error:
                raise bad_claim_settings(
                    f"SPARSEWELL_OIDC_FILTER is not a valid key filter in JSON ({error})"
                ) from None

    def principal(self, claims: Mapping[str, Any]) -> Principal:
        """Return the principal of a token. With the scope `admin` it has no filter; with a filter it may only search.

        Raises Forbidden (`claim_missing`) for a token that lacks a claim of the filter template.
        """
        named = _claim_texts(claims.get(self._scope_claim))
        scopes = frozenset(scope for scope in SCOPES if f"{self._prefix}{scope}" in named)
        indexes: tuple[str, ...] = (ALL_INDEXES,)
        if self._indexes_claim:
            patterns = _claim_texts(claims.get(self._indexes_claim))
            indexes = tuple(pattern for pattern in patterns if INDEX_PATTERN.fullmatch(pattern))
        document_filter = None
        if self._filter is not None and "admin" not in scopes:
            document_filter = _fill_template(self._filter, claims)
            scopes &= {"search"}
        subject = hashlib.sha256(orjson.dumps([claims["iss"], claims["sub"]])).hexdigest()
        fingerprint = hashlib.sha256(orjson.dumps([subject, indexes, document_filter])).hexdigest()
        return Principal(f"oidc:{subject[:24]}", scopes, indexes, document_filter, fingerprint=fingerprint)


def bad_claim_settings(what: str) -> ConfigurationError:
    """Return the error for OIDC settings that cannot be used."""
    return ConfigurationError("bad_oidc", f"{what}.")


def _claim_texts(value: Any) -> list[str]:
    """Return the words of a claim that is a string of words or a list of strings."""
    parts = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return [part for part in parts if isinstance(part, str) and part]


def _fill_template(template: Any, claims: Mapping[str, Any]) -> Any:
    """Return a filter with each `{"claim": NAME}` replaced by the value of that claim."""
    if isinstance(template, Mapping):
        if template.keys() == {"claim"}:
            value = claims.get(str(template["claim"]))
            if not _is_value(value):
                raise Forbidden("claim_missing", f"The token lacks the claim {str(template['claim'])[:80]!r}.")
            return value
        return {name: _fill_template(part, claims) for name, part in template.items()}
    if isinstance(template, list):
        return [_fill_template(part, claims) for part in template]
    return template


def _is_value(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(entry, str | int | float | bool) for entry in values)


def check_key_filter(value: Any, scopes: Collection[KeyScope]) -> None:
    """Check the form of a key's filter. Its fields are checked against an index when the filter is used.

    Raises InvalidInput (`bad_key_filter`).
    """
    if set(scopes) != {"search"}:
        raise InvalidInput(
            "bad_key_filter",
            "A key with a filter must have only the scope `search`: it could overwrite documents that it must not see.",
        )
    _check_condition(value, "filter", 1)
    try:
        orjson.dumps(value)
    except TypeError:
        raise _bad_key_filter("filter", "it contains a number or a string that cannot be stored") from None


def _check_condition(value: Any, where: str, depth: int) -> None:
    if not isinstance(value, Mapping) or depth > _MAX_DEPTH:
        raise _bad_key_filter(where, f"a filter must be an object, at most {_MAX_DEPTH} levels deep")
    if "field" in value:
        operators = set(value) - {"field"}
        if not isinstance(value["field"], str) or len(operators) != 1:
            raise _bad_key_filter(where, "a condition must have a `field` and one operator")
        if value["field"] == STATE or operators == {"match"}:
            raise _bad_key_filter(where, "`match` and `_state` are not allowed: the stored document must decide alone")
        if not operators <= _OPERATORS:
            raise _bad_key_filter(where, f"there is no operator {operators.pop()[:40]!r}")
        return
    if len(value) != 1 or not set(value) <= _BOOLEAN_OPERATORS:
        raise _bad_key_filter(where, "a filter must have a `field` and one operator, or only `all`, `any` or `not`")
    ((name, inner),) = value.items()
    parts = [inner] if name == "not" else inner
    if not isinstance(parts, list) or not parts:
        raise _bad_key_filter(where, f"`{name}` must be a list of one or more filters")
    for n, part in enumerate(parts):
        _check_condition(part, f"{where}.{name}[{n}]", depth + 1)


def _bad_key_filter(where: str, what: str) -> InvalidInput:
    return InvalidInput("bad_key_filter", f"{where}: {what}.", where=where)
