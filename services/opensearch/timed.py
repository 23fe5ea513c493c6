"""Times one request to OpenSearch and counts how it failed, by the API that it used."""

import time
from functools import cache
from types import TracebackType
from typing import Final, Self

from prometheus_client import Histogram

from services.errors import SparsewellError
from services.telemetry import tracing
from services.telemetry.metrics import OPENSEARCH_DURATION, OPENSEARCH_ERRORS

# (a path has names of indexes and documents; these are all that becomes a label)
_KNOWN: Final = {
    name: name.removeprefix("_")
    for name in (
        "_search", "_msearch", "_bulk", "_mget", "_doc", "_mapping", "_count", "_refresh", "_aliases", "_update",
        "_create", "_analyze", "_settings", "_stats", "_block", "_delete_by_query", "_cluster", "_cat", "_snapshot",
    )
}  # fmt: skip
_OTHER: Final = "other"


def operation(path: str) -> str:
    """The API in a path: `search`, `bulk`; `other` for what is none of those that are used here."""
    for part in path.split("/"):
        if part[:1] == "_" and part in _KNOWN:
            return _KNOWN[part]
    return _OTHER


@cache
def _duration(operation: str) -> Histogram:
    return OPENSEARCH_DURATION.labels(operation)


class Timed:
    """A context of one request. Costs about three microseconds."""

    __slots__ = ("_began", "_operation", "_span")

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self._span = tracing.span(
            f"opensearch {operation}", "client", {"db.system.name": "opensearch", "db.operation.name": operation}
        )

    def __enter__(self) -> Self:
        self._span.__enter__()
        self._began = time.perf_counter()
        return self

    @property
    def headers(self) -> dict[str, str]:
        """What carries the trace on to OpenSearch."""
        return tracing.headers()

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
