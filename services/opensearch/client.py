"""Two thin clients, one for event loops and one for workers, that carry the same `Call` values.

What a broken connection to OpenSearch died of, where that can be said without naming hosts.

Times one request to OpenSearch and counts how it failed, by the API that it used.
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
    ConnectionError,  # noqa: A004
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


def tls_failure_reason(error: Exception) -> str | None:
    """Why there was no secure connection; None when the error is none of TLS."""
    if not isinstance(error, ConnectionError):
        return None
    for one in _iter_causes(error.info, 0):
        # (aiohttp's own error is one of ssl's by its class, without what those say)
        if isinstance(one, ssl.SSLCertVerificationError) and (told := getattr(one, "verify_message", "")):
            # (after the comma: the names of hosts)
            return f"its certificate is not trusted ({told.partition(',')[0].rstrip('.')})"
        if isinstance(one, ssl.SSLError) and (reason := getattr(one, "reason", None)):
            return str(reason).replace("_", " ").lower()
    return None


def _iter_causes(error: Any, depth: int) -> Iterator[BaseException]:
    """An error and those that it was made from: aiohttp and urllib3 keep them in different places."""
    if not isinstance(error, BaseException) or depth > 6:
        return
    yield error
    for inner in (*error.args, error.__cause__, error.__context__):
        yield from _iter_causes(inner, depth + 1)


# (a path has names of indexes and documents; these are all that becomes a label)
_API_NAMES: Final = {
    name: name.removeprefix("_")
    for name in (
        "_search", "_msearch", "_bulk", "_mget", "_doc", "_mapping", "_count", "_refresh", "_aliases", "_update",
        "_create", "_analyze", "_settings", "_stats", "_block", "_delete_by_query", "_cluster", "_cat", "_snapshot",
    )
}  # fmt: skip
_OTHER: Final = "other"


def api_operation(path: str) -> str:
    """The API in a path: `search`, `bulk`; `other` for what is none of those that are used here."""
    for part in path.split("/"):
        if part[:1] == "_" and part in _API_NAMES:
            return _API_NAMES[part]
    return _OTHER


@cache
def _duration(operation: str) -> Histogram:
    return OPENSEARCH_DURATION.labels(operation)


class TimedRequest:
    """A context of one request. Costs about three microseconds."""

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
        """What carries the trace on to OpenSearch."""
        return tracing.trace_headers()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _duration(self._operation).observe(time.perf_counter() - self._began)
        self._span.__exit__(kind, error, trace)

    def failed(self, error: SparsewellError) -> SparsewellError:
        """Gives the failure back to be raised; one that is OpenSearch's own (away, late, overloaded) is counted."""
        if error.retryable:
            OPENSEARCH_ERRORS.labels(self._operation, error.code).inc()
        return error


_OTHER_PATH = re.compile(r"[?#\s\\\x00-\x1f\x7f]|/\.{1,2}(/|$)")
CLOSING_SECONDS = 0.05
# What OpenSearch says of a search for which a shard failed, was away, or had no more time: all of ours forbid it to
# answer without that shard (`allow_partial_search_results`).
_SEARCH_FAILED_ERROR = "search_phase_execution_exception"
INCOMPLETE_SEARCH_DETAIL = "OpenSearch did not search every shard, or not in time; a part of an answer is none."


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request to OpenSearch. `body` is JSON already; `timeout` in seconds, None: the client's own."""

    method: str
    path: str
    body: bytes | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    ndjson: bool = False

    def __post_init__(self) -> None:
        # Whatever a name in it is made of: it stays the path that was meant, and gets no parameters or parts from it.
        if _OTHER_PATH.search(self.path):
            raise ValueError("a path of OpenSearch has no query, no fragment, no blanks and no way up")

    def arguments(self, further: Mapping[str, str]) -> dict[str, Any]:
        """As the library takes them, with `further` headers."""
        params = dict(self.params)
        if self.timeout is not None:
            params["request_timeout"] = self.timeout
        headers = {"content-type": "application/x-ndjson", **further} if self.ndjson else further
        return {"params": params, "body": self.body, "headers": headers or None}


class _Orjson(JSONSerializer):
    """Answers are parsed by orjson: 4 to 10 times faster on a page of hits, and bodies are bytes already."""

    def loads(self, s: str) -> Any:
        try:
            return orjson.loads(s)
        except orjson.JSONDecodeError as error:
            raise SerializationError(s[:200], error) from error

    def dumps(self, data: Any) -> Any:
        return data if isinstance(data, str | bytes) else orjson.dumps(data)


def _client_options(settings: ConnectionSettings) -> dict[str, Any]:
    addresses = split_addresses(settings.opensearch_url)
    return {
        "hosts": addresses,
        "connection_pool_class": NodePool,
        "timeout": settings.opensearch_timeout,
        # The pool of the synchronous client is one connection unless told otherwise.
        "pool_maxsize": settings.opensearch_pool,
        # A retry heals a connection that a restarted node closed, and passes a node that is gone; with as many as
        # there are addresses, the only one that lives is found. Every call here is safe to send twice.
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
        # (of each connection; the context has said it once)
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return ClientContext.of(settings.opensearch_tls)


class AsyncSearchClient:
    """For event loops. Errors of the library come out as ours."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._client = AsyncOpenSearch(connection_class=AsyncNode, **_client_options(settings))

    async def send(self, call: Call) -> Any:
        with TimedRequest(api_operation(call.path)) as timed:
            try:
                return await self._client.transport.perform_request(
                    call.method, call.path, **call.arguments(timed.headers)
                )
            except OpenSearchException as error:
                raise timed.failed(translate_error(error)) from error

    async def close(self) -> None:
        # (the library's own close passes over addresses that are left alone)
        for node, _ in self._client.transport.connection_pool.connection_opts:
            await node.close()
            if node.use_ssl:
                # A TLS connection is gone some turns of the loop after it was told to close; the loop may end here.
                await asyncio.sleep(CLOSING_SECONDS)


class SyncSearchClient:
    """For workers and tools. Errors of the library come out as ours."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._client = OpenSearch(connection_class=SyncNode, **_client_options(settings))

    def send(self, call: Call) -> Any:
        with TimedRequest(api_operation(call.path)) as timed:
            try:
                return self._client.transport.perform_request(call.method, call.path, **call.arguments(timed.headers))
            except OpenSearchException as error:
                raise timed.failed(translate_error(error)) from error

    def close(self) -> None:
        for node, _ in self._client.transport.connection_pool.connection_opts:
            node.close()


def translate_error(error: OpenSearchException) -> SparsewellError:
    """Our error for one of the library's, without the bodies of requests or answers."""
    if isinstance(error, ConnectionTimeout):
        return BackendUnavailable("opensearch_timeout", "OpenSearch did not answer in time.")
    if reason := tls_failure_reason(error):
        return BackendUnavailable("opensearch_tls", f"There is no secure connection to OpenSearch: {reason}.")
    if isinstance(error, ConnectionError):
        return BackendUnavailable("opensearch_unavailable", "OpenSearch cannot be reached.")
    if not isinstance(error, TransportError):
        return BackendUnavailable("opensearch_unavailable", "OpenSearch's answer could not be read.")
    kind = str(error.error)[:200]
    if isinstance(error, NotFoundError):
        code = "index_not_found" if kind == "index_not_found_exception" else "not_found"
        return NotFound(code, "OpenSearch knows no such index, alias or document.")
    if isinstance(error, ConflictError):
        return Conflict("conflict", f"OpenSearch refused a conflicting change ({kind}).")
    if error.status_code == 401:
        return BackendUnavailable(
            "opensearch_unauthorized", "OpenSearch does not take our user, certificate or signature."
        )
    if error.status_code == 403 and kind != "cluster_block_exception":
        return BackendUnavailable("opensearch_forbidden", "OpenSearch does not let our user do that: see its roles.")
    if error.status_code == 429:
        return Overloaded("opensearch_overloaded", "OpenSearch is overloaded; try again in a moment.")
    if kind == "resource_already_exists_exception":
        return Conflict("already_exists", "OpenSearch has an index of that name already.")
    if isinstance(error, RequestError) or _has_too_many_clauses(error):
        return InvalidInput("opensearch_refused", f"OpenSearch refused the request ({kind}).")
    if kind == _SEARCH_FAILED_ERROR:
        return BackendUnavailable("search_incomplete", INCOMPLETE_SEARCH_DETAIL)
    return BackendUnavailable("opensearch_error", f"OpenSearch failed with status {error.status_code} ({kind}).")


def _has_too_many_clauses(error: TransportError) -> bool:
    """Found while the query is rewritten, it comes as a failure of the server's (500), and it will come again."""
    return isinstance(error.info, dict) and is_clause_limit_error(error.info.get("error"))


def is_clause_limit_error(error: Any) -> bool:
    """Whether an error of OpenSearch's is Lucene's limit of clauses."""
    causes = error.get("root_cause", []) if isinstance(error, dict) else []
    return any(cause.get("type") in ("too_many_clauses", "too_many_nested_clauses") for cause in causes)


def is_incomplete_search(error: Any) -> bool:
    """Whether an error of OpenSearch's is that not every shard was searched."""
    return isinstance(error, dict) and error.get("type") == _SEARCH_FAILED_ERROR
