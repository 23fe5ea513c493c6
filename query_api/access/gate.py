"""Authentication and authorisation of every request.

`AuthenticationMiddleware` determines the principal before any of the body is read. `authorise_request` compares its
scopes with `OPERATION_SCOPES`; an operation that is missing from that table fails. Keys are accepted only as
`Authorization: Bearer …` (RFC 6750): OIDC tokens use it as well, and proxies and tools keep it out of their logs
(docs/decisions/0200).
"""

import logging
import math
import time
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address, ip_network
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from query_api.access.key_ring import KeyRing
from query_api.access.oidc import RefusedToken, TokenIssuer
from query_api.access.rate_limit import FailureLimiter, RateLimiter, RateLimitStatus, TokenBucket
from services.access.api_keys import KEY_PATTERN, AccessMode, ResolvedKey, digest_key
from services.access.principals import EVERYBODY, NOBODY, KeyScope, Principal, missing_credentials
from services.dates import now_ms
from services.errors import Forbidden, InvalidInput, Overloaded, SparsewellError, Unauthorized
from services.web.http_auth import AllowedHosts, bad_credentials, matches_any_digest, read_bearer_key
from services.web.problems import answer_error

log = logging.getLogger(__name__)

ADMIN_PRINCIPAL: Final = Principal("admin", frozenset({"admin"}), fingerprint="admin")
# Failed authentications from one address: a burst of 20, then one a second. Further failures are counted, not logged.
MAX_FAILURES_PER_SECOND: Final = 1.0
MAX_FAILURE_BURST: Final = 20
# Verified signatures a second, for all callers of a process; a token that was verified before costs none. A signature
# takes 43 us (RS256) to 70 us (ES256), so a flood of tokens takes 7 % of a core. Addresses with too many failures share
# half of them, because behind a proxy everybody has such an address.
MAX_VERIFICATIONS_PER_SECOND: Final = 1000.0
_MAX_SOURCES: Final = 10_000
_MAX_SOURCE_CHARACTERS: Final = 64
# Query parameters by which other services take keys.
_CREDENTIAL_PARAMETERS: Final = frozenset({"api_key", "apikey", "access_token", "key", "token", "authorization"})
# The member of the ASGI scope that holds the principal.
PRINCIPAL_KEY: Final = "sparsewell.principal"

RequiredScopes = frozenset[KeyScope]

# Public operations reveal nothing about documents. Probes and browsers call them before they have a key.
PUBLIC_OPERATION: Final[RequiredScopes] = frozenset()
_SEARCH: Final[RequiredScopes] = frozenset({"search"})
_INGEST: Final[RequiredScopes] = frozenset({"ingest"})
_SEARCH_OR_INGEST: Final[RequiredScopes] = frozenset({"search", "ingest"})
_ADMIN: Final[RequiredScopes] = frozenset({"admin"})

# One of these scopes suffices. Keys: operation ids; for the page's files, which have none, the paths.
OPERATION_SCOPES: Final[Mapping[str, RequiredScopes]] = MappingProxyType(
    {
        "/": PUBLIC_OPERATION,
        "/operate": PUBLIC_OPERATION,
        "/favicon.ico": PUBLIC_OPERATION,
        "/static/{name}": PUBLIC_OPERATION,
        "live": PUBLIC_OPERATION,
        "ready": PUBLIC_OPERATION,
        "version": _SEARCH_OR_INGEST,
        "search": _SEARCH,
        "search_simply": _SEARCH,
        "search_across": _SEARCH,
        "search_batch": _SEARCH,
        "suggest": _SEARCH,
        "get_document": _SEARCH,
        "get_chapters": _SEARCH,
        "export": _SEARCH,
        "get_index": _SEARCH_OR_INGEST,
        "list_indexes": _SEARCH_OR_INGEST,
        "list_encoders": _SEARCH_OR_INGEST,
        "ingest": _INGEST,
        "put_document": _INGEST,
        "delete_document": _INGEST,
        "get_job": _INGEST,
        "list_dead_letters": _INGEST,
        "retry_dead_letters": _INGEST,
        # the former paths of these two
        "list_dead": _INGEST,
        "retry_dead": _INGEST,
        "create_index": _ADMIN,
        "delete_index": _ADMIN,
        "get_curation": _ADMIN,
        "put_curation": _ADMIN,
        "list_curation_versions": _ADMIN,
        "get_curation_version": _ADMIN,
        "dry_run_curation": _ADMIN,
        "status": _ADMIN,
        "list_queries": _ADMIN,
        "add_queries": _ADMIN,
        "delete_queries": _ADMIN,
        # These also need a key for every index: `query_api.routes.keys` checks it.
        "create_key": _ADMIN,
        "list_keys": _ADMIN,
        "get_key": _ADMIN,
        "rotate_key": _ADMIN,
        "revoke_key": _ADMIN,
        "who_am_i": _SEARCH_OR_INGEST,
    }
)


async def authorise_request(request: Request) -> None:
    """Check that the caller may perform the operation. It is a dependency of every route.

    Raises Unauthorized (`no_credentials`), Forbidden (`insufficient_scope`, `index_forbidden`).
    """
    route = request.scope["route"]
    require_scopes(
        request_principal(request), OPERATION_SCOPES[route.operation_id or route.path], request.path_params.get("index")
    )


def require_scopes(principal: Principal, rule: RequiredScopes, index: str | None) -> None:
    """Check that a principal has one of the scopes, for this index. Raises as `authorise_request`."""
    if rule is PUBLIC_OPERATION:
        return
    principal.demand_scope(rule)
    if index is not None:
        principal.demand_index(index)


def request_principal(request: Request) -> Principal:
    """Return the principal of a request; NOBODY when the middleware has set none."""
    principal: Principal = request.scope.get(PRINCIPAL_KEY, NOBODY)
    return principal


class AuthenticationMiddleware:
    """ASGI middleware that sets the principal of each request and applies its rate limit.

    It runs outside of all other middleware that reads a request.
    """

    def __init__(
        self,
        app: ASGIApp,
        mode: AccessMode,
        ring: KeyRing,
        admin_keys: tuple[str, ...],
        limiter: RateLimiter,
        issuer: TokenIssuer | None = None,
        *,
        hosts: AllowedHosts,
    ) -> None:
        self._app = app
        self._mode = mode
        self._ring = ring
        self._admin_digests = tuple(digest_key(key) for key in admin_keys)
        self._limiter = limiter
        self._issuer = issuer
        self._hosts = hosts
        now = time.monotonic()
        self._verifications = TokenBucket.full(MAX_VERIFICATIONS_PER_SECOND, MAX_VERIFICATIONS_PER_SECOND, now)
        half = MAX_VERIFICATIONS_PER_SECOND / 2
        self._doubtful_verifications = TokenBucket.full(half, half, now)
        self._failures = FailureLimiter(MAX_FAILURES_PER_SECOND, MAX_FAILURE_BURST, _MAX_SOURCES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "websocket":  # The service has no websockets. A later one must not bypass authentication.
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http" and not self._hosts.admit(scope["headers"]):
            await (await answer_error(Request(scope), _host_forbidden()))(scope, receive, send)
            return
        if scope["type"] != "http" or self._mode == "open":
            scope[PRINCIPAL_KEY] = EVERYBODY
            await self._app(scope, receive, send)
            return
        try:
            principal = scope[PRINCIPAL_KEY] = await self._authenticate_limited(scope)
            # Pages and probes have no limit. A shared limit would let any client make the probes fail.
            status = None if principal is NOBODY else self._limiter.admit(principal)
        except SparsewellError as error:
            await (await answer_error(Request(scope), error))(scope, receive, send)
            return
        await self._app(scope, receive, send if status is None else _send_with_rate_limit(status, send))

    async def _authenticate_limited(self, scope: Scope) -> Principal:
        """Authenticate as `_authenticate`. Raises Overloaded (`too_many_failures`) after many failures of a source."""
        try:
            return await self._authenticate(scope)
        except Unauthorized as error:
            if error.code == "no_credentials" or isinstance(error, RefusedToken):
                raise
            if wait := self._failures.record_failure(request_source(scope), time.monotonic()):
                raise Overloaded(
                    "too_many_failures",
                    "This address sent too many invalid keys. A valid key is accepted at any time.",
                    retry_after=max(1, math.ceil(wait)),
                ) from None
            log.info("%s from %s", error.code, request_source(scope))
            raise

    async def _authenticate(self, scope: Scope) -> Principal:
        if scope["query_string"]:
            _refuse_credentials_in_url(scope["query_string"])
        token = read_bearer_key(scope)
        if token is None:
            # Public operations take no body, so a request with a body needs a key before the body is read.
            if scope["path"].startswith("/v1/") or _has_body(scope):
                raise missing_credentials()
            return NOBODY
        digest = digest_key(token)
        # The admin keys need no lookup, so they work while OpenSearch is away.
        if matches_any_digest(digest, self._admin_digests):
            return ADMIN_PRINCIPAL
        if (match := KEY_PATTERN.fullmatch(token)) is not None:
            resolved = await self._ring.current(match[1])
            if not _is_accepted(resolved, digest):  # The key may have been created or rotated a moment ago.
                resolved = await self._ring.look_up(match[1])
            if resolved is not None and _is_accepted(resolved, digest):
                return resolved.principal
        elif self._issuer is not None and token.count(".") == 2:
            return self._issuer.cached_principal(token) or await self._verify_token(self._issuer, token, scope)
        raise bad_credentials()

    async def _verify_token(self, issuer: TokenIssuer, token: str, scope: Scope) -> Principal:
        """Verify an OIDC token. Raises Overloaded (`too_many_tokens`) and as `TokenIssuer.principal`."""
        now = time.monotonic()
        doubtful = self._failures.is_exhausted(request_source(scope), now)
        if (doubtful and self._doubtful_verifications.take(1, now)) or self._verifications.take(1, now):
            raise Overloaded(
                "too_many_tokens",
                "Too many tokens that this process has not seen before wait for their verification.",
                retry_after=1,
            )
        return await issuer.principal(token)


def request_source(scope: Scope) -> str:
    """Return the client's address for IPv4 and its /64 for IPv6, where one host has many addresses."""
    host = str((scope.get("client") or ("unknown", 0))[0])
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:  # a Unix socket, or a name that a proxy gave
        return host[:_MAX_SOURCE_CHARACTERS]
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:  # On a dual-stack socket all of IPv4 would be one /64.
        return str(address.ipv4_mapped)
    return str(ip_network((address, 64), strict=False))


def _host_forbidden() -> Forbidden:
    return Forbidden(
        "host_forbidden",
        "The request's Host header names a host that this service does not answer for. Add the name to "
        "SPARSEWELL_ALLOWED_HOSTS, or require keys (SPARSEWELL_ADMIN_KEY_FILE).",
    )


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return headers.get(b"content-length", b"0").strip() not in (b"", b"0") or b"transfer-encoding" in headers


def _send_with_rate_limit(status: RateLimitStatus, send: Send) -> Send:
    """Add the rate-limit headers to an answer."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *status.headers()]
        await send(message)

    return send_with_headers


def _is_accepted(resolved: ResolvedKey | None, digest: str) -> bool:
    return resolved is not None and resolved.key.accepts(digest, now_ms())


def _refuse_credentials_in_url(query: bytes) -> None:
    """Raise InvalidInput (`key_in_address`): URLs are logged, kept in histories and sent to other hosts."""
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name.lower() in _CREDENTIAL_PARAMETERS:
            raise InvalidInput(
                "key_in_address",
                f"Do not send a key in the URL (`{name[:20]}`): send it as `Authorization: Bearer …`. Rotate this "
                "key, because URLs are logged in many places.",
            )
