"""Transport to OpenSearch: node connections, node pool and request authentication.

opensearch-py rotates over the addresses of one cluster and retries. This module adds a connect timeout, so that an
unreachable machine costs 1.5 s and not the whole time of a request; and it marks a node dead that accepts requests
without answering, like a node that refuses them. Authentication is HTTP Basic (RFC 7617), with a password file that
may change, or AWS signature version 4. See docs/decisions/0094 (two nodes), 0205 (connections).
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
from opensearchpy.exceptions import ConnectionError, ConnectionTimeout  # noqa: A004 (the library's name)

from services.errors import BackendUnavailable, ConfigurationError, require_extra
from services.settings import ConnectionSettings
from services.tls import SecretFile

# Linux retransmits a lost SYN after 1 s: the timeout allows one retransmission.
CONNECT_SECONDS = 1.5
# A dead node is skipped for 5, 10, 20, then 40 s. The library's default (60 s, doubled five times) skips a recovered
# node for half an hour.
DEAD_NODE_SECONDS, MAX_TIMEOUT_DOUBLINGS = 5.0, 3
# A request that was cancelled sooner does not mark its node as hung: the sender had little time left.
HUNG_NODE_SECONDS = 1.0
# AWS credentials last for hours; botocore refreshes them from 15 minutes before they expire.
CREDENTIAL_RENEWAL_SECONDS = 15 * 60


class RequestAuth(Protocol):
    """Authentication headers for requests to OpenSearch."""

    def headers(self, method: str, url: str, body: bytes | None) -> Mapping[str, str]:
        """Return the headers for one request. `url` is the URL as it is sent, with its query."""

    def needs_network(self) -> bool:
        """Tell whether `headers` would wait for the network, so that an event loop calls it in a thread."""


class NodePool(ConnectionPool):
    """Pool that rotates over the live addresses. If all nodes are dead, it tries one anyway."""

    def __init__(self, connections: Any, **options: Any) -> None:
        super().__init__(connections, dead_timeout=DEAD_NODE_SECONDS, timeout_cutoff=MAX_TIMEOUT_DOUBLINGS, **options)

    def get_connection(self) -> Any:
        for node in [node for node in self.connections if node.hung]:
            node.hung = False
            self.mark_dead(node)
        return super().get_connection()


class AsyncNode(AIOHttpConnection):
    """Connection to one address, for event loops. `hung`: its last request timed out."""

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
                    # OpenSearch does not answer a TLS shutdown: an idle connection would stay half closed.
                    enable_cleanup_closed=NEEDS_CLEANUP_CLOSED,
                ),
            )
        if self._access is not None:
            request = method, _request_path(self, url, params), body
            needs_network = self._access.needs_network()
            auth_headers = (
                await asyncio.to_thread(self._access.headers, *request)
                if needs_network
                else self._access.headers(*request)
            )
            headers = {**(headers or {}), **auth_headers}
        began = time.monotonic()
        try:
            return await super().perform_request(method, url, params, body, timeout, ignore, headers)
        except ConnectionTimeout as error:
            if isinstance(error.info, aiohttp.ConnectionTimeoutError):
                # Nothing was sent: the library may try the next address, as after a refused connection.
                raise ConnectionError("N/A", "connect timeout", error.info) from error
            self.hung = True
            raise
        except asyncio.CancelledError:
            self.hung = time.monotonic() - began > HUNG_NODE_SECONDS
            raise


class _QuickConnector(aiohttp.TCPConnector):
    """aiohttp connector with `CONNECT_SECONDS` as the timeout for connecting."""

    async def connect(self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> Any:  # noqa: ASYNC109 (the library's name)
        limits = aiohttp.ClientTimeout(total=timeout.total, sock_connect=CONNECT_SECONDS)
        return await super().connect(req, traces, limits)


class SyncNode(Urllib3HttpConnection):
    """Connection to one address, for workers. `hung`: its last request timed out."""

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
            # the library passes the timeout on to urllib3
            return super().perform_request(method, url, params, body, limits, ignore, headers)  # type: ignore[arg-type]  # urllib3 takes both limits
        except ConnectionTimeout:
            self.hung = True
            raise


def _request_path(node: Connection, path: str, params: Mapping[str, Any] | None) -> str:
    """Return the URL as the library sends it: a signature covers it to the letter."""
    query = f"?{urlencode(params)}" if params else ""
    return f"{node.host}{node.url_prefix}{path}{query}"


def build_request_auth(settings: ConnectionSettings) -> RequestAuth | None:
    """Return the authentication that the settings ask for.

    None: no authentication, or user and password in the URL, which opensearch-py sends itself.
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
    """HTTP Basic authentication. A password file may change while the process runs."""

    def __init__(self, user: str, password: str | SecretFile) -> None:
        self._user, self._password = user, password
        self._cached: tuple[str, Mapping[str, str]] | None = None
        self.headers("GET", "", None)

    def headers(self, method: str, url: str, body: bytes | None) -> Mapping[str, str]:
        """Return the `authorization` header, cached until the password changes."""
        password = self._password if isinstance(self._password, str) else self._password.text()
        if self._cached is None or self._cached[0] != password:
            token = b64encode(f"{self._user}:{password}".encode()).decode()
            self._cached = password, {"authorization": f"Basic {token}"}
        return self._cached[1]

    def needs_network(self) -> bool:
        """Return False: the password is in memory or in a local file."""
        return False


class AwsSignatureAuth:
    """AWS signature version 4, made by opensearch-py's signer with credentials that botocore refreshes."""

    def __init__(self, credentials: Any, region: str) -> None:
        from opensearchpy.helpers.signer import AWSV4Signer

        self._credentials = credentials
        self._signer = AWSV4Signer(credentials, region)

    def headers(self, method: str, url: str, body: bytes | None) -> Mapping[str, str]:
        """Sign a request. Raises BackendUnavailable (`opensearch_unauthorized`)."""
        from botocore.exceptions import BotoCoreError

        try:
            return self._signer.sign(method, url, body)
        except BotoCoreError as error:
            raise BackendUnavailable(
                "opensearch_unauthorized", f"The AWS credentials could not be refreshed ({type(error).__name__})."
            ) from error

    def needs_network(self) -> bool:
        """Tell whether the credentials expire soon and need a refresh."""
        refresh_needed = getattr(self._credentials, "refresh_needed", None)
        return refresh_needed is not None and bool(refresh_needed(CREDENTIAL_RENEWAL_SECONDS))


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


def _missing_aws_credentials(reason: str) -> ConfigurationError:
    return ConfigurationError(
        "no_aws_credentials",
        f"SPARSEWELL_OPENSEARCH_AWS_REGION is set, but no AWS credentials are available ({reason}). "
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, write an AWS credentials file, or give the pod, task or "
        "machine a role.",
    )
