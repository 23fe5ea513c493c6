"""Several addresses of one cluster: each is asked in turn, and one that does not serve is left alone for a while.

The library does the turns and the retries. What it lacks is added here: a deadline for connecting, so that a machine
that is gone (whose packets are answered by nobody) costs a moment and not a request's whole time; and a node that
accepts requests and never answers is left alone like one that refuses them.

Who we are towards OpenSearch: headers that a request carries besides its own.
"""

import asyncio
import time
from base64 import b64encode
from collections.abc import Collection, Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

import aiohttp
import urllib3
from aiohttp.connector import NEEDS_CLEANUP_CLOSED
from opensearchpy import AIOHttpConnection, Connection, ConnectionPool, Urllib3HttpConnection
from opensearchpy._async.http_aiohttp import OpenSearchClientResponse
from opensearchpy.exceptions import ConnectionError, ConnectionTimeout  # noqa: A004

from services.errors import BackendUnavailable, ConfigurationError, require_extra
from services.settings import ConnectionSettings
from services.tls import SecretFile

# Amazon's credentials last for hours; botocore begins to fetch new ones a quarter of an hour before their end.
CREDENTIAL_RENEWAL_SECONDS = 15 * 60


class RequestAuth(Protocol):
    """What a request is sent with. `headers` is asked for each one."""

    def headers(self, method: str, url: str, body: bytes | None) -> Mapping[str, str]:
        """The headers; `url` as it is sent, with its query."""

    def waits(self) -> bool:
        """Whether `headers` would ask the network first, so that an event loop lets a thread do it."""


def build_request_auth(settings: ConnectionSettings) -> RequestAuth | None:
    """None: nothing, or what the address says (user and password within), which the library sends itself.

    Raises ConfigurationError (`bad_secret_file`, `missing_library`, `no_aws_credentials`).
    """
    if settings.opensearch_aws_region:
        return AwsSignatureAuth(_aws_credentials(), settings.opensearch_aws_region)
    if not settings.opensearch_user:
        return None
    if settings.opensearch_password_file:
        return BasicAuth(
            settings.opensearch_user, SecretFile("OPENSEARCH_PASSWORD_FILE", settings.opensearch_password_file)
        )
    return BasicAuth(settings.opensearch_user, settings.opensearch_password or "")


class BasicAuth:
    """User and password; a password in a file may change while we run."""

    def __init__(self, user: str, password: str | SecretFile) -> None:
        self._user, self._password = user, password
        self._made: tuple[str, Mapping[str, str]] | None = None
        self.headers("GET", "", None)

    def headers(self, method: str, url: str, body: bytes | None) -> Mapping[str, str]:
        """The same for each request, until the password changes."""
        password = self._password if isinstance(self._password, str) else self._password.text()
        if self._made is None or self._made[0] != password:
            token = b64encode(f"{self._user}:{password}".encode()).decode()
            self._made = password, {"authorization": f"Basic {token}"}
        return self._made[1]

    def waits(self) -> bool:
        """Never: a file is read."""
        return False


class AwsSignatureAuth:
    """Signature version 4 by opensearch-py's signer; credentials are botocore's, which renews those that expire."""

    def __init__(self, credentials: Any, region: str) -> None:
        from opensearchpy.helpers.signer import AWSV4Signer

        self._credentials = credentials
        self._signer = AWSV4Signer(credentials, region)

    def headers(self, method: str, url: str, body: bytes | None) -> Mapping[str, str]:
        """The signature of this request. Raises BackendUnavailable (`opensearch_unauthorized`)."""
        from botocore.exceptions import BotoCoreError

        try:
            return self._signer.sign(method, url, body)
        except BotoCoreError as error:
            raise BackendUnavailable(
                "opensearch_unauthorized", f"Amazon's credentials could not be renewed ({type(error).__name__})."
            ) from error

    def waits(self) -> bool:
        """Whether credentials that expire are about to."""
        about_to = getattr(self._credentials, "refresh_needed", None)
        return about_to is not None and bool(about_to(CREDENTIAL_RENEWAL_SECONDS))


def _aws_credentials() -> Any:
    with require_extra("botocore", "sign requests for Amazon", "aws"):
        import botocore.session
    from botocore.exceptions import BotoCoreError

    try:
        credentials = botocore.session.get_session().get_credentials()
    except BotoCoreError as error:
        raise _missing_aws_credentials(type(error).__name__) from error
    if credentials is None:
        raise _missing_aws_credentials("none were found")
    return credentials


def _missing_aws_credentials(why: str) -> ConfigurationError:
    return ConfigurationError(
        "no_aws_credentials",
        f"SPARSEWELL_OPENSEARCH_AWS_REGION is set, and Amazon's credentials are not to be had ({why}). They are looked "
        "for in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, Amazon's files, a role for the pod or task, the machine.",
    )


# Linux sends a lost SYN again after a second: there is time for one.
CONNECT_SECONDS = 1.5
# A node is left alone for 5, 10, 20, then 40 s. (The library's 60 s, doubled five times, keeps a node that came back
# out for half an hour.)
DEAD_NODE_SECONDS, MAX_TIMEOUT_DOUBLINGS = 5.0, 3
# A request that was given up sooner says nothing of the node: its sender had little time left.
HUNG_NODE_SECONDS = 1.0


class _QuickConnector(aiohttp.TCPConnector):
    async def connect(self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> Any:  # noqa: ASYNC109
        limits = aiohttp.ClientTimeout(total=timeout.total, sock_connect=CONNECT_SECONDS)
        return await super().connect(req, traces, limits)


class AsyncNode(AIOHttpConnection):
    """One address, for event loops. `hung`: its last request got no answer in time."""

    hung = False

    def __init__(self, *, access: RequestAuth | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._access = access

    async def perform_request(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 (the library's name)
        ignore: Collection[int] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        if self.session is None:
            self.session = aiohttp.ClientSession(
                headers=self.headers,
                skip_auto_headers=("accept", "accept-encoding"),
                cookie_jar=aiohttp.DummyCookieJar(),
                response_class=OpenSearchClientResponse,
                connector=_QuickConnector(
                    limit=self._limit or 0,
                    ssl=self._ssl_context or True,
                    # OpenSearch does not answer the end of a TLS connection: one that was idle would stay half closed.
                    enable_cleanup_closed=NEEDS_CLEANUP_CLOSED,
                ),
            )
        if self._access is not None:
            given = method, _request_path(self, url, params), body
            waits = self._access.waits()
            ours = await asyncio.to_thread(self._access.headers, *given) if waits else self._access.headers(*given)
            headers = {**(headers or {}), **ours}
        began = time.monotonic()
        try:
            return await super().perform_request(method, url, params, body, timeout, ignore, headers)
        except ConnectionTimeout as error:
            if isinstance(error.info, aiohttp.ConnectionTimeoutError):
                # Nothing was sent: the next address may be asked, as when the connection is refused.
                raise ConnectionError("N/A", "no connection in time", error.info) from error
            self.hung = True
            raise
        except asyncio.CancelledError:
            self.hung = time.monotonic() - began > HUNG_NODE_SECONDS
            raise


class SyncNode(Urllib3HttpConnection):
    """One address, for workers. `hung`: its last request got no answer in time."""

    hung = False

    def __init__(self, *, access: RequestAuth | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._access = access

    def perform_request(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        timeout: Any = None,
        ignore: Collection[int] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        if self._access is not None:
            headers = {**(headers or {}), **self._access.headers(method, _request_path(self, url, params), body)}
        limits = urllib3.Timeout(connect=CONNECT_SECONDS, read=timeout or self.timeout)
        try:
            # (the library passes on to urllib3 what it is given)
            return super().perform_request(method, url, params, body, limits, ignore, headers)  # type: ignore[arg-type]
        except ConnectionTimeout:
            self.hung = True
            raise


def _request_path(node: Connection, path: str, params: Mapping[str, Any] | None) -> str:
    """The address as the library sends it: a signature covers it to the letter."""
    query = f"?{urlencode(params)}" if params else ""
    return f"{node.host}{node.url_prefix}{path}{query}"


class NodePool(ConnectionPool):
    """The addresses that are asked in turn, without those that are left alone; if all are, one is asked anyway."""

    def __init__(self, connections: Any, **options: Any) -> None:
        super().__init__(connections, dead_timeout=DEAD_NODE_SECONDS, timeout_cutoff=MAX_TIMEOUT_DOUBLINGS, **options)

    def get_connection(self) -> Any:
        for node in [node for node in self.connections if node.hung]:
            node.hung = False
            self.mark_dead(node)
        return super().get_connection()
