"""The door that every request comes through: whose it is, before anything of it is read.

A key is in `Authorization: Bearer …` (RFC 6750) and nowhere else: that is what OIDC tokens use as well, what clients
send by themselves, and what proxies and tools leave out of their logs. See docs/decisions/0200.

What each operation asks of a key, in one table. An operation that is not in it is refused: see `authorise_request`.
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
from query_api.access.oidc import TokenIssuer
from query_api.access.rate_limit import FailureLimiter, RateLimiter, RateLimitStatus
from services.access.api_keys import KEY_PATTERN, AccessMode, ResolvedKey, digest_key
from services.access.principals import EVERYBODY, NOBODY, KeyScope, Principal, missing_credentials
from services.errors import Forbidden, InvalidInput, Overloaded, SparsewellError, Unauthorized
from services.web.http_auth import bad_credentials, has_public_host, matches_any_digest, read_bearer_key
from services.web.problems import answer_error

RequiredScopes = frozenset[KeyScope]

# Anybody: what says nothing of documents, and what a probe or a browser asks before it has a key.
PUBLIC_OPERATION: Final[RequiredScopes] = frozenset()
_SEARCH: Final[RequiredScopes] = frozenset({"search"})
_INGEST: Final[RequiredScopes] = frozenset({"ingest"})
_SEARCH_OR_INGEST: Final[RequiredScopes] = frozenset({"search", "ingest"})
_ADMIN: Final[RequiredScopes] = frozenset({"admin"})

# By operation id; the page's files, which the OpenAPI document does not show, by path.
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
        # (of every index, too: see `query_api.routes.admin`)
        "create_key": _ADMIN,
        "list_keys": _ADMIN,
        "get_key": _ADMIN,
        "rotate_key": _ADMIN,
        "revoke_key": _ADMIN,
        "who_am_i": _SEARCH_OR_INGEST,
    }
)
# Where the gate leaves who asks.
PRINCIPAL_KEY: Final = "sparsewell.who"


async def authorise_request(request: Request) -> None:
    """A dependency of every route: nothing behind it runs unless the caller may do this.

    Raises Unauthorized (`no_credentials`), Forbidden (`insufficient_scope`, `index_forbidden`).
    """
    route = request.scope["route"]
    require_scopes(
        request_principal(request), OPERATION_SCOPES[route.operation_id or route.path], request.path_params.get("index")
    )


def require_scopes(who: Principal, rule: RequiredScopes, index: str | None) -> None:
    """Raises what `authorise_request` does."""
    if rule is PUBLIC_OPERATION:
        return
    who.demand_scope(rule)
    if index is not None:
        who.demand_index(index)


def request_principal(request: Request) -> Principal:
    """Who asks; nobody where no gate was passed."""
    who: Principal = request.scope.get(PRINCIPAL_KEY, NOBODY)
    return who


log = logging.getLogger(__name__)

ADMIN_PRINCIPAL: Final = Principal("admin", frozenset({"admin"}), mark="admin")
# Keys that open nothing, from one address: so many at once, then one a second. What is behind it is only counted.
MAX_FAILURES_PER_SECOND: Final = 1.0
MAX_FAILURE_BURST: Final = 20
_MAX_SOURCES: Final = 10_000
_MAX_SOURCE_CHARACTERS: Final = 64
# Parameters by which other services take keys.
_CREDENTIAL_PARAMETERS: Final = frozenset({"api_key", "apikey", "access_token", "key", "token", "authorization"})


class AuthenticationMiddleware:
    """ASGI middleware, outside of all others that look at a request."""

    def __init__(
        self,
        app: ASGIApp,
        mode: AccessMode,
        ring: KeyRing,
        admin_keys: tuple[str, ...],
        limiter: RateLimiter,
        issuer: TokenIssuer | None = None,
        *,
        unasked: bool = False,
    ) -> None:
        """`unasked`: where it is open, nobody asked for that by name: it is for this machine alone."""
        self._app = app
        self._mode = mode
        self._ring = ring
        self._admin = tuple(digest_key(one) for one in admin_keys)
        self._limiter = limiter
        self._issuer = issuer
        self._unasked = unasked
        self._attempts = FailureLimiter(MAX_FAILURES_PER_SECOND, MAX_FAILURE_BURST, _MAX_SOURCES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # there is none, and none is to come by without being looked at
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http" or self._mode == "open":
            if self._unasked and scope["type"] == "http" and has_public_host(scope["headers"]):
                await (await answer_error(Request(scope), _host_forbidden()))(scope, receive, send)
                return
            scope[PRINCIPAL_KEY] = EVERYBODY
            await self._app(scope, receive, send)
            return
        try:
            who = scope[PRINCIPAL_KEY] = await self._listened_to(scope)
            # Pages and probes have no limit: one for all of them would let anybody end the service by its own probes.
            standing = None if who is NOBODY else self._limiter.admit(who)
        except SparsewellError as error:
            await (await answer_error(Request(scope), error))(scope, receive, send)
            return
        await self._app(scope, receive, send if standing is None else _send_with_rate_limit(standing, send))

    async def _listened_to(self, scope: Scope) -> Principal:
        """Who asks. Raises Overloaded (`too_many_failures`) in place of what `_who` does, for a source of many."""
        try:
            return await self._who(scope)
        except Unauthorized as error:
            if error.code == "no_credentials":
                raise
            if wait := self._attempts.failed(request_source(scope), time.monotonic()):
                raise Overloaded(
                    "too_many_failures",
                    "Too many keys that open nothing came from this address; a right one is answered at any time.",
                    retry_after=max(1, math.ceil(wait)),
                ) from None
            log.info("%s from %s", error.code, request_source(scope))
            raise

    async def _who(self, scope: Scope) -> Principal:
        if scope["query_string"]:
            _refuse_credentials_in_url(scope["query_string"])
        token = read_bearer_key(scope)
        if token is None:
            # Nothing of a body is read: what is for everybody takes none.
            if scope["path"].startswith("/v1/") or _has_body(scope):
                raise missing_credentials()
            return NOBODY
        presented = digest_key(token)
        if matches_any_digest(presented, self._admin):  # (asks nobody, so it opens while OpenSearch is away)
            return ADMIN_PRINCIPAL
        if (found := KEY_PATTERN.fullmatch(token)) is not None:
            opened = await self._ring.current(found[1])
            if not _is_accepted(opened, presented):  # perhaps it was made, or rotated, a moment ago
                opened = await self._ring.look_up(found[1])
            if opened is not None and _is_accepted(opened, presented):
                return opened.principal
        elif self._issuer is not None and token.count(".") == 2:
            return self._issuer.known(token) or await self._verified(self._issuer, token, scope)
        raise bad_credentials()

    async def _verified(self, issuer: TokenIssuer, token: str, scope: Scope) -> Principal:
        """Whose token it is. Verifying costs more than comparing, so a source of many failures has to wait for it."""
        if self._attempts.exhausted(request_source(scope), time.monotonic()):
            raise bad_credentials()
        return await issuer.principal(token)


def request_source(scope: Scope) -> str:
    """Where a request comes from; of IPv6 the network, of which one host has as many addresses as it wants."""
    host = str((scope.get("client") or ("unknown", 0))[0])
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:  # a socket of this machine, or a proxy's own word
        return host[:_MAX_SOURCE_CHARACTERS]
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:  # where one socket takes both kinds: all of IPv4 is one /64 there
        return str(address.ipv4_mapped)
    return str(ip_network((address, 64), strict=False))


def _host_forbidden() -> Forbidden:
    return Forbidden(
        "host_forbidden",
        "This service is open because only its own machine reaches it, and this request came by the name of another. "
        "Ask for keys (SPARSEWELL_ADMIN_KEY_FILE), or set SPARSEWELL_ACCESS=open.",
    )


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return headers.get(b"content-length", b"0").strip() not in (b"", b"0") or b"transfer-encoding" in headers


def _send_with_rate_limit(standing: RateLimitStatus, send: Send) -> Send:
    """Sends with what is left of the caller's limit."""

    async def said(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *standing.headers()]
        await send(message)

    return said


def _is_accepted(opened: ResolvedKey | None, presented: str) -> bool:
    return opened is not None and opened.key.accepts(presented, time.time_ns() // 1_000_000)


def _refuse_credentials_in_url(query: bytes) -> None:
    """Raises InvalidInput (`key_in_address`): addresses are logged, kept in histories and sent to others."""
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name.lower() in _CREDENTIAL_PARAMETERS:
            raise InvalidInput(
                "key_in_address",
                f"A key does not belong in an address (`{name[:20]}`): send it as `Authorization: Bearer …`, and "
                "rotate it, because addresses are written down in many places.",
            )
