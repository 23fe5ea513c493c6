"""What the claims of a token allow, by the settings."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import orjson

from services.access.filters import checked_key_filter
from services.access.principal import EVERY, PATTERN, SCOPES, Principal
from services.environment import listed
from services.errors import ConfigurationError, Forbidden, InvalidInput
from services.settings import Settings

# Signatures by a key that the issuer alone has. Never `none`, nor HS256 and its kin, whose key who verifies has too.
ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)


class Claims:
    """Reads principals out of claims that were verified."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError (`bad_oidc`)."""
        self._scope_claim: Final = settings.oidc_scope_claim
        self._prefix: Final = settings.oidc_scope_prefix
        self._indexes_claim: Final = settings.oidc_indexes_claim
        self._filter: Any = None
        self.algorithms: Final = listed(settings.oidc_algorithms)
        if not settings.oidc_audience:
            raise bad("SPARSEWELL_OIDC_AUDIENCE is needed: a token that was made for another service is none for this")
        if not self.algorithms or not ALGORITHMS.issuperset(self.algorithms):
            raise bad(f"SPARSEWELL_OIDC_ALGORITHMS names some of {', '.join(sorted(ALGORITHMS))}")
        if settings.oidc_filter:
            try:
                self._filter = orjson.loads(settings.oidc_filter)
                checked_key_filter(self._filter, ["search"])
            except (orjson.JSONDecodeError, InvalidInput) as error:
                raise bad(f"SPARSEWELL_OIDC_FILTER is no filter in JSON that a key may have ({error})") from None

    def principal(self, claims: Mapping[str, Any]) -> Principal:
        """Who asks. A token with the scope `admin` has no filter; one with a filter may search and nothing else.

        Raises Forbidden (`claim_missing`) for a token that lacks what the filter is made of.
        """
        named = _texts(claims.get(self._scope_claim))
        scopes = frozenset(one for one in SCOPES if f"{self._prefix}{one}" in named)
        indexes: tuple[str, ...] = (EVERY,)
        if self._indexes_claim:
            indexes = tuple(one for one in _texts(claims.get(self._indexes_claim)) if PATTERN.fullmatch(one))
        own = None
        if self._filter is not None and "admin" not in scopes:
            own = _filled(self._filter, claims)
            scopes &= {"search"}
        who = hashlib.sha256(orjson.dumps([claims["iss"], claims["sub"]])).hexdigest()
        mark = hashlib.sha256(orjson.dumps([who, indexes, own])).hexdigest()
        return Principal(f"oidc:{who[:24]}", scopes, indexes, own, mark=mark)


def bad(what: str) -> ConfigurationError:
    return ConfigurationError("bad_oidc", f"{what}.")


def _texts(value: Any) -> list[str]:
    """A claim that is a text with several words, or a list of texts."""
    parts = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return [one for one in parts if isinstance(one, str) and one]


def _filled(template: Any, claims: Mapping[str, Any]) -> Any:
    """A filter whose `{"claim": NAME}` are what the token says."""
    if isinstance(template, Mapping):
        if template.keys() == {"claim"}:
            value = claims.get(str(template["claim"]))
            if not _is_value(value):
                raise Forbidden("claim_missing", f"The token lacks the claim {str(template['claim'])[:80]!r}.")
            return value
        return {name: _filled(one, claims) for name, one in template.items()}
    if isinstance(template, list):
        return [_filled(one, claims) for one in template]
    return template


def _is_value(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(one, str | int | float | bool) for one in values)
