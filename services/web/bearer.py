"""Keys as HTTP carries them: `Authorization: Bearer …` (RFC 6750), once."""

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from services.access.key_text import TOKEN, digest, same
from services.access.principal import no_credentials
from services.errors import SparsewellError, Unauthorized
from services.web.problems import answer_of

_SCHEME: Final = b"bearer "


def presented_key(scope: Scope) -> str | None:
    """The key of a request, None without one. Raises Unauthorized (`bad_credentials`)."""
    given: list[bytes] = [value for name, value in scope["headers"] if name == b"authorization"]
    if not given:
        return None
    if len(given) > 1:
        # two readers of one request could each believe another one
        raise Unauthorized("bad_credentials", "The request has several Authorization headers; send one.")
    if given[0][: len(_SCHEME)].lower() == _SCHEME:
        token = given[0][len(_SCHEME) :].strip().decode("latin-1")
        if TOKEN.fullmatch(token):
            return token
    raise Unauthorized("bad_credentials", "The Authorization header is not of the form `Bearer …`, with one key.")


def is_one_of(presented: str, digests: Sequence[str]) -> bool:
    """Whether a digest is one of these; each of them is compared, whichever fits."""
    fits = [same(presented, one) for one in digests]
    return any(fits)


def bad_key() -> Unauthorized:
    """One answer for a key that does not exist, is wrong, has expired or was revoked."""
    return Unauthorized("bad_key", "This key opens nothing: it is unknown, has expired or was revoked.")


class BearerKeys:
    """ASGI middleware: all paths but `public` ones take one of a few keys; without any keys it asks nobody."""

    def __init__(self, app: ASGIApp, keys: Sequence[str], public: Sequence[str] = ("/healthz",)) -> None:
        self._app = app
        self._digests = tuple(digest(one) for one in keys)
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._digests and scope["path"] not in self._public:
            try:
                key = presented_key(scope)
                if key is None:
                    raise no_credentials()
                if not is_one_of(digest(key), self._digests):
                    raise bad_key()
            except SparsewellError as error:
                await (await answer_of(Request(scope), error))(scope, receive, send)
                return
        await self._app(scope, receive, send)
