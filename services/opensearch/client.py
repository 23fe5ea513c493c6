"""OpenSearch clients: one for event loops and one for workers, both sending `Call` values.

A `Call` is one HTTP request as a value, so the modules of this package build requests without I/O. Each request is
timed, traced and counted by the API that it uses (`search`, `bulk`). `translate_error` turns opensearch-py's
exceptions into this project's errors, without hosts and without the bodies of requests or answers.
orjson parses the answers, 4 to 10 times faster than json on a page of hits.
"""

import asyncio
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any, Final, Self

import orjson
import urllib3
from opensearchpy import AsyncOpenSearch, JSONSerializer, OpenSearch
from opensearchpy.exceptions import (
    ConflictError,
    ConnectionError,  # noqa: A004 (the library's name)
    ConnectionTimeout,
    NotFoundError,
    OpenSearchException,
    RequestError,
    SerializationError,
    TransportError,
)
from prometheus_client import Histogram

from services.errors import BackendUnavailable, Conflict, InvalidInput, NotFound, Overloaded, SparsewellError
from services.opensearch.transport import AsyncNode, NodePool, SyncNode, build_request_auth
from services.settings import ConnectionSettings, split_addresses
from services.telemetry import tracing
from services.telemetry.metrics import OPENSEARCH_DURATION, OPENSEARCH_ERRORS
from services.tls import ClientContext

CLOSING_SECONDS = 0.05
_UNSAFE_PATH = re.compile(r"[?#\s\\\x00-\x1f\x7f]|/\.{1,2}(/|$)")


@dataclass(frozen=True, slots=True)
class Call:
    """An HTTP request to OpenSearch.

    `body` is JSON text; with `ndjson`, lines of it. `timeout` is in seconds; None takes the client's default.
    Raises ValueError for a path with a query, a fragment, white space or `..`.
    """

    method: str
    path: str
    body: bytes | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    ndjson: bool = False

    def __post_init__(self) -> None:
        # A name inside the path must not add parameters or lead to another path.
        if _UNSAFE_PATH.search(self.path):
            raise ValueError("an OpenSearch path must not contain a query, a fragment, white space or `..`")

    def arguments(self, extra_headers: Mapping[str, str]) -> dict[str, Any]:
        """Return the arguments of opensearch-py's `perform_request`, with the headers `extra_headers`."""
        params = dict(self.params)
        if self.timeout is not None:
            params["request_timeout"] = self.timeout
        headers = {"content-type": "application/x-ndjson", **extra_headers} if self.ndjson else extra_headers
        return {"params": params, "body": self.body, "headers": headers or None}


class AsyncSearchClient:
    """OpenSearch client for event loops."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._client = AsyncOpenSearch(connection_class=AsyncNode, **_client_options(settings))

    async def send(self, call: Call) -> Any:
        """Send a call and return the decoded answer. Raises SparsewellError (see `translate_error`)."""
        with TimedRequest(api_operation(call.path)) as timed:
            try:
                return await self._client.transport.perform_request(
                    call.method, call.path, **call.arguments(timed.headers)
                )
            except OpenSearchException as error:
                raise timed.failed(translate_error(error)) from error

    async def close(self) -> None:
        """Close all connections."""
        # the library's close() skips addresses that are marked dead
        for node, _ in self._client.transport.connection_pool.connection_opts:
            await node.close()
            if node.use_ssl:
                # asyncio closes a TLS connection some iterations later, and the loop may end after this call.
                await asyncio.sleep(CLOSING_SECONDS)


class SyncSearchClient:
    """OpenSearch client for workers and command-line tools."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._client = OpenSearch(connection_class=SyncNode, **_client_options(settings))

    def send(self, call: Call) -> Any:
        """Send a call and return the decoded answer. Raises SparsewellError (see `translate_error`)."""
        with TimedRequest(api_operation(call.path)) as timed:
            try:
                return self._client.transport.perform_request(call.method, call.path, **call.arguments(timed.headers))
            except OpenSearchException as error:
                raise timed.failed(translate_error(error)) from error

    def close(self) -> None:
        """Close all connections."""
        for node, _ in self._client.transport.connection_pool.connection_opts:
            node.close()


def _client_options(settings: ConnectionSettings) -> dict[str, Any]:
    addresses = split_addresses(settings.opensearch_url)
    return {
        "hosts": addresses,
        "connection_pool_class": NodePool,
        "timeout": settings.opensearch_timeout,
        # The synchronous client's default pool has one connection.
        "pool_maxsize": settings.opensearch_pool,
        # A retry replaces a connection that a restarted node closed, and skips an unreachable node. One retry for each
        # address finds the only live node. Every call here is safe to send twice.
        "max_retries": len(addresses),
        "retry_on_timeout": False,
        "serializer": _Orjson(),
        "http_compress": False,
        "access": build_request_auth(settings),
        "ssl_context": _context(settings, addresses),
    }


def _context(settings: ConnectionSettings, addresses: list[str]) -> ClientContext | None:
    if not any(address.startswith("https:") for address in addresses):
        return None
    if not settings.opensearch_verify:
        # urllib3 warns about every connection; ClientContext has warned once already
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return ClientContext.of(settings.opensearch_tls)


class _Orjson(JSONSerializer):
    """JSON serializer with orjson. Request bodies are bytes already."""

    def loads(self, s: str) -> Any:
        try:
            return orjson.loads(s)
        except orjson.JSONDecodeError as error:
            raise SerializationError(s[:200], error) from error

    def dumps(self, data: Any) -> Any:
        return data if isinstance(data, str | bytes) else orjson.dumps(data)


# The allowed values of the metric label: a path also holds names of indexes and documents.
_API_NAMES: Final = {
    name: name.removeprefix("_")
    for name in (
        "_search", "_msearch", "_bulk", "_mget", "_doc", "_mapping", "_count", "_refresh", "_aliases", "_update",
        "_create", "_analyze", "_settings", "_stats", "_block", "_delete_by_query", "_cluster", "_cat", "_snapshot",
    )
}  # fmt: skip
_OTHER: Final = "other"


def api_operation(path: str) -> str:
    """Return the API that a path uses, for example `search`; `other` for APIs that this project does not use."""
    for segment in path.split("/"):
        if segment[:1] == "_" and segment in _API_NAMES:
            return _API_NAMES[segment]
    return _OTHER


class TimedRequest:
    """Context manager that times and traces one request. It costs about three microseconds."""

    __slots__ = ("_began", "_operation", "_span")

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self._span = tracing.open_span(
            f"opensearch {operation}", "client", {"db.system.name": "opensearch", "db.operation.name": operation}
        )

    def __enter__(self) -> Self:
        self._span.__enter__()
        self._began = time.perf_counter()
        return self

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that pass the trace on to OpenSearch."""
        return tracing.trace_headers()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _duration(self._operation).observe(time.perf_counter() - self._began)
        self._span.__exit__(kind, error, trace)

    def failed(self, error: SparsewellError) -> SparsewellError:
        """Return the error for raising. Count it if it is retryable (OpenSearch unavailable, late or overloaded)."""
        if error.retryable:
            OPENSEARCH_ERRORS.labels(self._operation, error.code).inc()
        return error


@cache
def _duration(operation: str) -> Histogram:
    return OPENSEARCH_DURATION.labels(operation)


# OpenSearch's error for a search with a shard that failed, was unavailable or timed out. All our searches set
# `allow_partial_search_results` to false.
_SEARCH_FAILED_ERROR = "search_phase_execution_exception"
INCOMPLETE_SEARCH_DETAIL = "OpenSearch did not search every shard in time; partial results are not returned."


def translate_error(error: OpenSearchException) -> SparsewellError:
    """Translate an exception of opensearch-py into an error of this project, without request or answer bodies."""
    if isinstance(error, ConnectionTimeout):
        return BackendUnavailable("opensearch_timeout", "OpenSearch did not answer in time.")
    if reason := tls_failure_reason(error):
        return BackendUnavailable("opensearch_tls", f"The TLS connection to OpenSearch failed: {reason}.")
    if isinstance(error, ConnectionError):
        return BackendUnavailable("opensearch_unavailable", "OpenSearch cannot be reached.")
    if not isinstance(error, TransportError):
        return BackendUnavailable("opensearch_unavailable", "The answer of OpenSearch cannot be parsed.")
    kind = str(error.error)[:200]
    if isinstance(error, NotFoundError):
        code = "index_not_found" if kind == "index_not_found_exception" else "not_found"
        return NotFound(code, "OpenSearch has no such index, alias or document.")
    if isinstance(error, ConflictError):
        return Conflict("conflict", f"OpenSearch refused a conflicting change ({kind}).")
    if error.status_code == 401:
        return BackendUnavailable(
            "opensearch_unauthorized", "OpenSearch rejected the service's user, certificate or signature."
        )
    if error.status_code == 403 and kind != "cluster_block_exception":
        return BackendUnavailable(
            "opensearch_forbidden", "The service's OpenSearch user lacks a permission: see its roles."
        )
    if error.status_code == 429:
        return Overloaded("opensearch_overloaded", "OpenSearch is overloaded; try again in a moment.")
    if kind == "resource_already_exists_exception":
        return Conflict("already_exists", "OpenSearch already has an index with this name.")
    if isinstance(error, RequestError) or _has_too_many_clauses(error):
        return InvalidInput("opensearch_refused", f"OpenSearch refused the request ({kind}).")
    if kind == _SEARCH_FAILED_ERROR:
        return BackendUnavailable("search_incomplete", INCOMPLETE_SEARCH_DETAIL)
    return BackendUnavailable("opensearch_error", f"OpenSearch failed with status {error.status_code} ({kind}).")


def tls_failure_reason(error: Exception) -> str | None:
    """Return why a TLS connection failed; None if the error is not a TLS error."""
    if not isinstance(error, ConnectionError):
        return None
    for cause in _iter_causes(error.info, 0):
        # aiohttp's error inherits from ssl's class but lacks its attributes
        if isinstance(cause, ssl.SSLCertVerificationError) and (message := getattr(cause, "verify_message", "")):
            # host names follow the comma
            return f"its certificate is not trusted ({message.partition(',')[0].rstrip('.')})"
        if isinstance(cause, ssl.SSLError) and (reason := getattr(cause, "reason", None)):
            return str(reason).replace("_", " ").lower()
    return None


def _iter_causes(error: Any, depth: int) -> Iterator[BaseException]:
    """Yield an error and its causes: aiohttp and urllib3 keep them in different places."""
    if not isinstance(error, BaseException) or depth > 6:
        return
    yield error
    for inner in (*error.args, error.__cause__, error.__context__):
        yield from _iter_causes(inner, depth + 1)


def _has_too_many_clauses(error: TransportError) -> bool:
    """Tell whether the query exceeds Lucene's clause limit.

    OpenSearch detects this while it rewrites the query and answers with status 500, but a retry would fail again.
    """
    return isinstance(error.info, dict) and is_clause_limit_error(error.info.get("error"))


def is_clause_limit_error(error: Any) -> bool:
    """Tell whether an OpenSearch error reports Lucene's clause limit."""
    causes = error.get("root_cause", []) if isinstance(error, dict) else []
    return any(cause.get("type") in ("too_many_clauses", "too_many_nested_clauses") for cause in causes)


def is_incomplete_search(error: Any) -> bool:
    """Tell whether an OpenSearch error reports a search that did not reach every shard."""
    return isinstance(error, dict) and error.get("type") == _SEARCH_FAILED_ERROR
