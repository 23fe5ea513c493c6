"""Bearer authentication over HTTP (RFC 6750), and the check of the Host header.

A service without keys relies on being reachable from few places. A web page can point its own name at the address of
the service (DNS rebinding) and let the browser read the answers, and a local proxy can forward requests from elsewhere.
Both send the public name, which contains dots, as the host. `AllowedHosts` admits the names of the service alone.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from services.access.api_keys import TOKEN_PATTERN, digest_key, is_same_digest
from services.access.principals import missing_credentials
from services.errors import SparsewellError, Unauthorized
from services.web.problems import answer_error

_BEARER_PREFIX: Final = b"bearer "


class BearerKeyMiddleware:
    """ASGI middleware that requires one of a few keys on all paths but the `public` ones.

    Without keys it requires none.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], public: Sequence[str] = ("/healthz",)) -> None:
        self._app = app
        self._digests = tuple(digest_key(key) for key in keys)
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._digests and scope["path"] not in self._public:
            try:
                key = read_bearer_key(scope)
                if key is None:
                    raise missing_credentials()
                if not matches_any_digest(digest_key(key), self._digests):
                    raise bad_credentials()
            except SparsewellError as error:
                await (await answer_error(Request(scope), error))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def read_bearer_key(scope: Scope) -> str | None:
    """Return the key of a request, or None without one. Raises Unauthorized (`bad_credentials`)."""
    values: list[bytes] = [value for name, value in scope["headers"] if name == b"authorization"]
    if not values:
        return None
    if len(values) > 1:
        # A proxy and the service could each use a different one.
        raise Unauthorized("bad_credentials", "The request has several Authorization headers; send one.")
    if values[0][: len(_BEARER_PREFIX)].lower() == _BEARER_PREFIX:
        token = values[0][len(_BEARER_PREFIX) :].strip().decode("latin-1")
        if TOKEN_PATTERN.fullmatch(token):
            return token
    raise Unauthorized("bad_credentials", "The Authorization header is not of the form `Bearer …` with one key.")


def matches_any_digest(presented: str, digests: Sequence[str]) -> bool:
    """Return whether a digest equals one of these. All are compared, so the time reveals nothing."""
    matches = [is_same_digest(presented, digest) for digest in digests]
    return any(matches)


def bad_credentials() -> Unauthorized:
    """Return the one error for a key that is unknown, wrong, expired or revoked."""
    return Unauthorized("bad_key", "This key is not valid: it is unknown, has expired or was revoked.")


class AllowedHosts:
    """The public names that the Host header of a request may hold.

    Addresses and names without dots are always allowed, because no public DNS leads a browser to them under such a
    name. A request without the header is not from a browser.
    """

    def __init__(self, names: str, *, any_by_default: bool) -> None:
        """`names`: host names by commas, `.example.com` for a domain with its subdomains, `*` for any name."""
        self._names = frozenset(name.strip().lower().rstrip(".") for name in names.split(",") if name.strip())
        self._any = "*" in self._names or (not self._names and any_by_default)

    def admit(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Return whether a request with these headers may be answered."""
        return self._any or all(self._is_listed(public_host(value)) for name, value in headers if name == b"host")

    def _is_listed(self, host: str) -> bool:
        if not host or host in self._names:
            return True
        labels = host.split(".")
        return any("." + ".".join(labels[at:]) in self._names for at in range(len(labels)))


@lru_cache(maxsize=64)
def public_host(host: bytes) -> str:
    """Return the public name in a Host header; empty for an address, a name without dots and `*.localhost`."""
    name = host.decode("latin-1").strip().lower()
    if name.startswith("["):  # an IPv6 address
        return ""
    name = name.partition(":")[0].rstrip(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name if "." in name and not name.endswith(".localhost") else ""
    return ""
