"""Keys as HTTP carries them: `Authorization: Bearer …` (RFC 6750), once.

The key that a client of the API sends.

By which names a service may be asked that is open because only this machine reaches it.

A page of another site can have its own name point to 127.0.0.1 (DNS rebinding), and then the browser lets it read what
answers there; a proxy on this machine lets the world in. Both say a name of the public DNS as the host, which has dots.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from pydantic import Field, SecretStr
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from services.access.api_keys import TOKEN_PATTERN, digest_key, is_same_digest
from services.access.principals import missing_credentials
from services.errors import SparsewellError, Unauthorized
from services.settings import EnvironmentSettings
from services.web.problems import answer_error


class ClientSettings(EnvironmentSettings):
    """What commands and the Python client read, and services do not."""

    api_key: SecretStr = Field(SecretStr(""), description="sent to the API")


def bearer_headers(key: str) -> dict[str, str]:
    """The headers that carry a key; none for none."""
    return {"authorization": f"Bearer {key}"} if key else {}


def own_bearer_headers() -> dict[str, str]:
    """Those with SPARSEWELL_API_KEY."""
    return bearer_headers(ClientSettings.read().api_key.get_secret_value())


def has_public_host(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request says such a name; one that says no host is by no browser."""
    return any(_is_public(value) for name, value in headers if name == b"host")


@lru_cache(maxsize=64)
def _is_public(host: bytes) -> bool:
    name = host.decode("latin-1").strip().lower()
    if name.startswith("["):  # an IPv6 address
        return False
    name = name.partition(":")[0].rstrip(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." in name and not name.endswith(".localhost")
    return False


_BEARER_PREFIX: Final = b"bearer "


def read_bearer_key(scope: Scope) -> str | None:
    """The key of a request, None without one. Raises Unauthorized (`bad_credentials`)."""
    given: list[bytes] = [value for name, value in scope["headers"] if name == b"authorization"]
    if not given:
        return None
    if len(given) > 1:
        # two readers of one request could each believe another one
        raise Unauthorized("bad_credentials", "The request has several Authorization headers; send one.")
    if given[0][: len(_BEARER_PREFIX)].lower() == _BEARER_PREFIX:
        token = given[0][len(_BEARER_PREFIX) :].strip().decode("latin-1")
        if TOKEN_PATTERN.fullmatch(token):
            return token
    raise Unauthorized("bad_credentials", "The Authorization header is not of the form `Bearer …`, with one key.")


def matches_any_digest(presented: str, digests: Sequence[str]) -> bool:
    """Whether a digest is one of these; each of them is compared, whichever fits."""
    fits = [is_same_digest(presented, one) for one in digests]
    return any(fits)


def bad_credentials() -> Unauthorized:
    """One answer for a key that does not exist, is wrong, has expired or was revoked."""
    return Unauthorized("bad_key", "This key opens nothing: it is unknown, has expired or was revoked.")


class BearerKeyMiddleware:
    """ASGI middleware: all paths but `public` ones take one of a few keys; without any keys it asks nobody."""

    def __init__(self, app: ASGIApp, keys: Sequence[str], public: Sequence[str] = ("/healthz",)) -> None:
        self._app = app
        self._digests = tuple(digest_key(one) for one in keys)
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
