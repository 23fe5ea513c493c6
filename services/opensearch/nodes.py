"""Several addresses of one cluster: each is asked in turn, and one that does not serve is left alone for a while.

The library does the turns and the retries. What it lacks is added here: a deadline for connecting, so that a machine
that is gone (whose packets are answered by nobody) costs a moment and not a request's whole time; and a node that
accepts requests and never answers is left alone like one that refuses them.
"""

import asyncio
import time
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
import urllib3
from aiohttp.connector import NEEDS_CLEANUP_CLOSED
from opensearchpy import AIOHttpConnection, Connection, ConnectionPool, Urllib3HttpConnection
from opensearchpy._async.http_aiohttp import OpenSearchClientResponse
from opensearchpy.exceptions import ConnectionError, ConnectionTimeout  # noqa: A004 (the library's name)

from services.opensearch.access import Access

# Linux sends a lost SYN again after a second: there is time for one.
CONNECT_SECONDS = 1.5
# A node is left alone for 5, 10, 20, then 40 s. (The library's 60 s, doubled five times, keeps a node that came back
# out for half an hour.)
LEFT_ALONE_SECONDS, DOUBLED = 5.0, 3
# A request that was given up sooner says nothing of the node: its sender had little time left.
HUNG_SECONDS = 1.0


class _QuickConnector(aiohttp.TCPConnector):
    async def connect(self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> Any:  # noqa: ASYNC109
        limits = aiohttp.ClientTimeout(total=timeout.total, sock_connect=CONNECT_SECONDS)
        return await super().connect(req, traces, limits)


class AsyncNode(AIOHttpConnection):
    """One address, for event loops. `hung`: its last request got no answer in time."""

    hung = False

    def __init__(self, *, access: Access | None = None, **options: Any) -> None:
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
            given = method, _sent(self, url, params), body
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
            self.hung = time.monotonic() - began > HUNG_SECONDS
            raise


class SyncNode(Urllib3HttpConnection):
    """One address, for workers. `hung`: its last request got no answer in time."""

    hung = False

    def __init__(self, *, access: Access | None = None, **options: Any) -> None:
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
            headers = {**(headers or {}), **self._access.headers(method, _sent(self, url, params), body)}
        limits = urllib3.Timeout(connect=CONNECT_SECONDS, read=timeout or self.timeout)
        try:
            # (the library passes on to urllib3 what it is given)
            return super().perform_request(method, url, params, body, limits, ignore, headers)  # type: ignore[arg-type]
        except ConnectionTimeout:
            self.hung = True
            raise


def _sent(node: Connection, path: str, params: Mapping[str, Any] | None) -> str:
    """The address as the library sends it: a signature covers it to the letter."""
    query = f"?{urlencode(params)}" if params else ""
    return f"{node.host}{node.url_prefix}{path}{query}"


class Nodes(ConnectionPool):
    """The addresses that are asked in turn, without those that are left alone; if all are, one is asked anyway."""

    def __init__(self, connections: Any, **options: Any) -> None:
        super().__init__(connections, dead_timeout=LEFT_ALONE_SECONDS, timeout_cutoff=DOUBLED, **options)

    def get_connection(self) -> Any:
        for node in [node for node in self.connections if node.hung]:
            node.hung = False
            self.mark_dead(node)
        return super().get_connection()
