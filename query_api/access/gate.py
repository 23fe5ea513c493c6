"""The door that every request comes through: whose it is, before anything of it is read.

A key is in `Authorization: Bearer …` (RFC 6750) and nowhere else: that is what OIDC tokens use as well, what clients
send by themselves, and what proxies and tools leave out of their logs. See docs/decisions/0200.
"""

import logging
import math
import time
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from query_api.access.limiting import Limiter, Standing
from query_api.access.oidc import Issuer
from query_api.access.operations import WHO
from query_api.access.ring import KeyRing
from services.access.buckets import Attempts
from services.access.hosts import named_elsewhere
from services.access.key_text import KEY, digest
from services.access.keys import Opened
from services.access.mode import Mode
from services.access.principal import EVERYBODY, NOBODY, Principal, no_credentials
from services.errors import Forbidden, InvalidInput, Overloaded, SparsewellError, Unauthorized
from services.web.bearer import bad_key, is_one_of, presented_key
from services.web.problems import answer_of

log = logging.getLogger(__name__)

ADMIN: Final = Principal("admin", frozenset({"admin"}), mark="admin")
# Keys that open nothing, from one address: so many at once, then one a second. What is behind it is only counted.
FAILURES_A_SECOND: Final = 1.0
FAILURES_AT_ONCE: Final = 20
_SOURCES: Final = 10_000
_LONGEST_SOURCE: Final = 64
# Parameters by which other services take keys.
_IN_ADDRESS: Final = frozenset({"api_key", "apikey", "access_token", "key", "token", "authorization"})


class Gate:
    """ASGI middleware, outside of all others that look at a request."""

    def __init__(
        self,
        app: ASGIApp,
        mode: Mode,
        ring: KeyRing,
        admin_keys: tuple[str, ...],
        limiter: Limiter,
        issuer: Issuer | None = None,
        *,
        unasked: bool = False,
    ) -> None:
        """`unasked`: where it is open, nobody asked for that by name: it is for this machine alone."""
        self._app = app
        self._mode = mode
        self._ring = ring
        self._admin = tuple(digest(one) for one in admin_keys)
        self._limiter = limiter
        self._issuer = issuer
        self._unasked = unasked
        self._attempts = Attempts(FAILURES_A_SECOND, FAILURES_AT_ONCE, _SOURCES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # there is none, and none is to come by without being looked at
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http" or self._mode == "open":
            if self._unasked and scope["type"] == "http" and named_elsewhere(scope["headers"]):
                await (await answer_of(Request(scope), _host_forbidden()))(scope, receive, send)
                return
            scope[WHO] = EVERYBODY
            await self._app(scope, receive, send)
            return
        try:
            who = scope[WHO] = await self._listened_to(scope)
            # Pages and probes have no limit: one for all of them would let anybody end the service by its own probes.
            standing = None if who is NOBODY else self._limiter.admit(who)
        except SparsewellError as error:
            await (await answer_of(Request(scope), error))(scope, receive, send)
            return
        await self._app(scope, receive, send if standing is None else _saying(standing, send))

    async def _listened_to(self, scope: Scope) -> Principal:
        """Who asks. Raises Overloaded (`too_many_failures`) in place of what `_who` does, for a source of many."""
        try:
            return await self._who(scope)
        except Unauthorized as error:
            if error.code == "no_credentials":
                raise
            if wait := self._attempts.failed(source(scope), time.monotonic()):
                raise Overloaded(
                    "too_many_failures",
                    "Too many keys that open nothing came from this address; a right one is answered at any time.",
                    retry_after=max(1, math.ceil(wait)),
                ) from None
            log.info("%s from %s", error.code, source(scope))
            raise

    async def _who(self, scope: Scope) -> Principal:
        if scope["query_string"]:
            _refuse_in_address(scope["query_string"])
        token = presented_key(scope)
        if token is None:
            # Nothing of a body is read: what is for everybody takes none.
            if scope["path"].startswith("/v1/") or _has_body(scope):
                raise no_credentials()
            return NOBODY
        presented = digest(token)
        if is_one_of(presented, self._admin):  # (asks nobody, so it opens while OpenSearch is away)
            return ADMIN
        if (found := KEY.fullmatch(token)) is not None:
            opened = await self._ring.current(found[1])
            if not _opens(opened, presented):  # perhaps it was made, or rotated, a moment ago
                opened = await self._ring.look_up(found[1])
            if opened is not None and _opens(opened, presented):
                return opened.principal
        elif self._issuer is not None and token.count(".") == 2:
            return self._issuer.known(token) or await self._verified(self._issuer, token, scope)
        raise bad_key()

    async def _verified(self, issuer: Issuer, token: str, scope: Scope) -> Principal:
        """Whose token it is. Verifying costs more than comparing, so a source of many failures has to wait for it."""
        if self._attempts.exhausted(source(scope), time.monotonic()):
            raise bad_key()
        return await issuer.principal(token)


def source(scope: Scope) -> str:
    """Where a request comes from; of IPv6 the network, of which one host has as many addresses as it wants."""
    host = str((scope.get("client") or ("unknown", 0))[0])
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:  # a socket of this machine, or a proxy's own word
        return host[:_LONGEST_SOURCE]
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


def _saying(standing: Standing, send: Send) -> Send:
    """Sends with what is left of the caller's limit."""

    async def said(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *standing.headers()]
        await send(message)

    return said


def _opens(opened: Opened | None, presented: str) -> bool:
    return opened is not None and opened.key.accepts(presented, time.time_ns() // 1_000_000)


def _refuse_in_address(query: bytes) -> None:
    """Raises InvalidInput (`key_in_address`): addresses are logged, kept in histories and sent to others."""
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name.lower() in _IN_ADDRESS:
            raise InvalidInput(
                "key_in_address",
                f"A key does not belong in an address (`{name[:20]}`): send it as `Authorization: Bearer …`, and "
                "rotate it, because addresses are written down in many places.",
            )
