"""Verification of tokens of an OpenID Connect issuer.

PyJWT verifies the signatures with the keys that the issuer publishes (OpenID Connect Discovery, JWKS). The keys are
cached for ten minutes and stay valid while the issuer is away. A token that names an unknown key triggers a new read,
at most every 30 s (docs/decisions/0203).
"""

import asyncio
import logging
import time
from collections import OrderedDict
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import orjson

from services.access.api_keys import digest_key, is_loopback_host
from services.access.principals import ClaimMapping, Principal, bad_claim_settings
from services.errors import BackendUnavailable, ConfigurationError, Unauthorized
from services.settings import Settings

log = logging.getLogger(__name__)

KEY_SET_SECONDS: Final = 600.0
UNKNOWN_KEY_SECONDS: Final = 30.0
_TIMEOUT_SECONDS: Final = 5.0
_MAX_RESPONSE_BYTES: Final = 1024**2
_MAX_CACHED_TOKENS: Final = 10_000


class RefusedToken(Unauthorized):
    """A refused token that nothing shows to be forged: the issuer signed it, or the key that it names is not known.

    It does not count as a failed authentication. Every user's token expires, and behind a proxy all users share one
    address.
    """


class TokenIssuer:
    """An OpenID Connect issuer whose tokens the service accepts.

    It belongs to one event loop and connects to the issuer at the first token.
    """

    def __init__(self, settings: Settings) -> None:
        """Read the settings of the issuer. Raises ConfigurationError (`bad_oidc`, `oidc_extra_missing`)."""
        try:
            import jwt
        except ImportError:
            raise ConfigurationError(
                "oidc_extra_missing", "SPARSEWELL_OIDC_ISSUER needs the extra `oidc`: pip install -e '.[oidc]'."
            ) from None
        self._jwt: Final = jwt
        self._issuer: Final = settings.oidc_issuer
        self._audience: Final = [name.strip() for name in settings.oidc_audience.split(",") if name.strip()]
        self._leeway: Final = settings.oidc_leeway
        self._claims: Final = ClaimMapping(settings)
        parts = urlsplit(self._issuer)
        if parts.scheme != "https" and not is_loopback_host(parts.hostname or ""):
            raise bad_claim_settings(
                "SPARSEWELL_OIDC_ISSUER must begin with https://: an attacker on the network could replace its keys"
            )
        self._keys: dict[str, Any] = {}
        self._read_at = float("-inf")
        self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._verified: OrderedDict[str, tuple[Principal, float]] = OrderedDict()

    def cached_principal(self, token: str) -> Principal | None:
        """Return the principal of a token that was verified before and has not expired."""
        cached = self._verified.get(digest_key(token))
        return cached[0] if cached is not None and time.time() < cached[1] else None

    async def principal(self, token: str) -> Principal:
        """Verify a token and return its principal.

        Raises Unauthorized (`bad_token`), RefusedToken (the same code), BackendUnavailable (`oidc_unavailable`) while
        no keys could be read, and Forbidden as `ClaimMapping.principal`.
        """
        jwt = self._jwt
        try:
            head = jwt.get_unverified_header(token)
            if head.get("alg") not in self._claims.algorithms:
                raise _token_forged("this service does not accept its algorithm")
            claims = jwt.decode(
                token,
                await self._key(head.get("kid"), head["alg"]),
                algorithms=self._claims.algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.InvalidSignatureError:
            raise _token_forged("its signature is wrong") from None
        except jwt.PyJWTError as error:
            reason = _CLAIM_REASONS.get(type(error).__name__)
            raise _token_forged("it cannot be verified") if reason is None else _token_refused(reason) from None
        principal = self._claims.principal(claims)
        self._verified[digest_key(token)] = (principal, float(claims["exp"]))
        if len(self._verified) > _MAX_CACHED_TOKENS:
            self._verified.popitem(last=False)
        return principal

    async def close(self) -> None:
        """Cancel the read of the keys that is in progress."""
        if self._reading is not None:
            self._reading.cancel()

    async def _key(self, kid: Any, algorithm: str) -> Any:
        now = time.monotonic()
        known = isinstance(kid, str) and kid in self._keys
        if now - self._read_at > KEY_SET_SECONDS or (not known and now - self._tried_at > UNKNOWN_KEY_SECONDS):
            reading = self._start_read(now)
            if not known:
                await asyncio.shield(reading)
        elif self._reading is not None and not self._reading.done() and not known:
            await asyncio.shield(self._reading)
        if not self._keys:
            raise BackendUnavailable("oidc_unavailable", "The keys of the issuer cannot be read; try again.")
        if not isinstance(kid, str) or kid not in self._keys:
            raise _token_refused("the issuer has no key with its `kid`")
        key = self._keys[kid]
        if key.algorithm_name != algorithm:
            raise _token_forged("the key with its `kid` is for another algorithm")
        return key.key

    def _start_read(self, now: float) -> "asyncio.Task[None]":
        if self._reading is None or self._reading.done():
            if now - self._tried_at <= UNKNOWN_KEY_SECONDS and self._reading is not None:
                return self._reading
            self._tried_at = now
            self._reading = asyncio.create_task(self._read())
        return self._reading

    async def _read(self) -> None:
        """Read the issuer's keys. A failure is logged, and the cached keys stay valid."""
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)) as session:
                metadata = await fetch_json(session, f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
                if metadata.get("issuer") != self._issuer:
                    raise ValueError("the metadata names another issuer")
                address = str(metadata.get("jwks_uri"))
                if urlsplit(address).scheme != "https" and not is_loopback_host(urlsplit(address).hostname or ""):
                    raise ValueError("the address of its keys does not begin with https://")
                key_set = (await fetch_json(session, address)).get("keys")
                if not isinstance(key_set, list):
                    raise ValueError("the key set has no list of keys")
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
            log.warning("the keys of the OIDC issuer could not be read: %s", type(error).__name__)
            return
        keys = {}
        for jwk in key_set:
            if isinstance(jwk, dict) and jwk.get("use", "sig") == "sig" and isinstance(jwk.get("kid"), str):
                try:
                    keys[jwk["kid"]] = self._jwt.PyJWK(jwk)
                except (self._jwt.PyJWTError, ValueError, TypeError, KeyError):  # a type that PyJWT does not support
                    continue
        self._keys = keys or self._keys
        self._read_at = time.monotonic()


async def fetch_json(session: aiohttp.ClientSession, address: str) -> dict[str, Any]:
    """Fetch the JSON object at an address. Raises ValueError for any other answer, and aiohttp.ClientError."""
    async with session.get(address, allow_redirects=False) as answer:
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        content = b""
        async for piece in answer.content.iter_any():
            content += piece
            if len(content) > _MAX_RESPONSE_BYTES:
                raise ValueError(f"more than {_MAX_RESPONSE_BYTES:,} bytes")
        value = orjson.loads(content)
        if not isinstance(value, dict):
            raise ValueError("the answer is not a JSON object")
        return value


# PyJWT checks the signature before the claims.
_CLAIM_REASONS: Final = {
    "ExpiredSignatureError": "it has expired",
    "ImmatureSignatureError": "it is not valid yet",
    "InvalidAudienceError": "it is for another audience",
    "InvalidIssuerError": "another issuer signed it",
    "MissingRequiredClaimError": "it lacks one of exp, iss, aud and sub",
}


def _token_refused(why: str) -> RefusedToken:
    return RefusedToken("bad_token", f"The token is refused: {why}.")


def _token_forged(why: str) -> Unauthorized:
    return Unauthorized("bad_token", f"The token is refused: {why}.")
