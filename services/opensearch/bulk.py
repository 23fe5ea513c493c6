"""Bulk writes with external versions: byte-limited requests, one verdict per item, retries of transient failures.

`BulkRun` is a state machine without I/O: it gives out requests and takes their answers. `write_bulk` and
`write_bulk_async` send them until every write has a verdict or the time is over. See docs/decisions/0002.

The loops share their delays with `services.retry.retry`, which repeats one call while it raises. A bulk write must also
repeat the failed items of a successful answer, counts failures from the last progress, and ends with verdicts instead
of an error.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import orjson

from services.errors import NotFound
from services.opensearch.client import AsyncSearchClient, Call, SyncSearchClient
from services.retry import TRANSIENT_ERRORS, backoff_seconds
from services.telemetry.metrics import BULK_ITEMS

BLOCKED_ERROR = "cluster_block_exception"
FORBIDDEN_ERROR = "security_exception"
OVERLOADED_CODE = "opensearch_overloaded"
MAX_REQUEST_SECONDS = 30.0
_RESPONSE_FILTER_PATH = "items.*.status,items.*.error.type,items.*._index"


@dataclass(frozen=True, slots=True)
class Write:
    """Write of `source` under `id`, stored if `version` exceeds the stored external version.

    `alias` must exist. A client's write uses the alias of its index, so that it reaches the searched generation. A
    write that belongs to one generation uses that generation's write alias.

    `search_fields` builds the members that only searches read, when the write is serialised. They take ten times the
    memory of the stored vectors: 1,200 windows of a text of 1 MiB take .6 MB packed and 70 MB as members.
    """

    alias: str
    id: str
    version: int
    source: dict[str, Any]
    search_fields: Callable[[], Mapping[str, Any]] | None = field(default=None, compare=False)

    def document(self) -> dict[str, Any]:
        """Return the whole document as OpenSearch gets it."""
        return self.source if self.search_fields is None else {**self.source, **self.search_fields()}

    def lines(self) -> bytes:
        """Return the action and the document as two lines of a bulk request."""
        action = {
            "_index": self.alias,
            "require_alias": True,
            "_id": self.id,
            "version": self.version,
            "version_type": "external",
        }
        return orjson.dumps({"index": action}) + b"\n" + orjson.dumps(self.document()) + b"\n"


class WriteOutcome(Enum):
    """Outcome of one write."""

    STORED = "stored"
    SUPERSEDED = "superseded"  # a newer version is stored already; success for an encoding
    REFUSED = "refused"  # OpenSearch will never accept this document
    NOT_STORED = "not_stored"  # OpenSearch was unavailable or too late


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of one write. `reason` is OpenSearch's error type and never contains the document.

    `physical`: for a stored write, the physical name of the generation that the alias pointed to.
    """

    outcome: WriteOutcome
    reason: str = ""
    physical: str = ""


def write_bulk(client: SyncSearchClient, writes: Iterable[Write], max_bytes: int, seconds: float) -> list[Verdict]:
    """Send writes until each has a verdict or `seconds` have passed. Verdicts are in the order of the writes.

    Raises NotFound (`index_not_found`) for a missing index, and other errors that a retry cannot cure.
    """
    run = BulkRun(list(writes), max_bytes)
    deadline = time.monotonic() + seconds
    while not run.done:
        try:
            delay = run.answered(client.send(limit_call_timeout(run.next_call(), deadline)))
        except TRANSIENT_ERRORS as error:
            delay = run.failed(error.code)
        if delay and time.monotonic() + delay > deadline:
            break
        time.sleep(delay)
    return _count_outcomes(run.give_up())


async def write_bulk_async(
    client: AsyncSearchClient, writes: Iterable[Write], max_bytes: int, seconds: float
) -> list[Verdict]:
    """Send writes as `write_bulk` does, for event loops.

    A thread builds requests with search fields: those of 1,200 windows take up to 140 ms.
    """
    run = BulkRun(list(writes), max_bytes)
    deadline = time.monotonic() + seconds
    while not run.done:
        try:
            call = await asyncio.to_thread(run.next_call) if run.builds_fields else run.next_call()
            delay = run.answered(await client.send(limit_call_timeout(call, deadline)))
        except TRANSIENT_ERRORS as error:
            delay = run.failed(error.code)
        if delay and time.monotonic() + delay > deadline:
            break
        if delay:
            await asyncio.sleep(delay)
    return _count_outcomes(run.give_up())


@dataclass
class BulkRun:
    """State of a bulk write. `verdicts[i]` belongs to the i-th write once `done`.

    A write is serialised when its request is built, so that only one request is in memory beside the writes.
    """

    writes: Sequence[Write]
    max_bytes: int
    verdicts: list[Verdict | None] = field(init=False)
    _waiting: deque[int] = field(init=False)
    _in_flight: list[int] = field(init=False, default_factory=list)
    _serialised: tuple[int, bytes] | None = field(init=False, default=None)  # did not fit the last request
    _failures: int = 0
    _reason: str = ""

    def __post_init__(self) -> None:
        self.verdicts = [None] * len(self.writes)
        self._waiting = deque(range(len(self.writes)))

    @property
    def done(self) -> bool:
        return not self._waiting and not self._in_flight

    @property
    def builds_fields(self) -> bool:
        """Tell whether a waiting write builds its search fields when it is serialised."""
        return any(self.writes[i].search_fields is not None for i in self._waiting)

    def next_call(self) -> Call:
        """Build the next request: at least one write, and at most `max_bytes` unless one write is larger."""
        body: list[bytes] = []
        size = 0
        while self._waiting:
            i = self._waiting[0]
            lines = self._lines(i)
            if body and size + len(lines) > self.max_bytes:
                self._serialised = i, lines
                break
            self._in_flight.append(self._waiting.popleft())
            body.append(lines)
            size += len(lines)
        return Call("POST", "/_bulk", b"".join(body), {"filter_path": _RESPONSE_FILTER_PATH}, ndjson=True)

    def answered(self, answer: Any) -> float:
        """Take the answer to the last request. Return the seconds to wait before the next one."""
        retried = []
        for i, item in zip(self._in_flight, answer["items"], strict=True):
            result = next(iter(item.values()))
            verdict = judge_item(result["status"], result.get("error"))
            if verdict is None:
                retried.append(i)
                self._reason = OVERLOADED_CODE if result["status"] == 429 else error_type(result.get("error"))
            elif verdict.outcome is WriteOutcome.STORED:
                verdict = Verdict(WriteOutcome.STORED, physical=result["_index"])
            self.verdicts[i] = verdict
        self._in_flight.clear()
        self._waiting.extendleft(reversed(retried))
        BULK_ITEMS.labels("repeated").inc(len(retried))
        if retried:
            return self._next_delay()
        self._failures = 0
        return 0.0

    def failed(self, reason: str) -> float:
        """Take a transient failure of the last request. Return the seconds to wait before the retry."""
        self._reason = reason
        BULK_ITEMS.labels("repeated").inc(len(self._in_flight))
        self._waiting.extendleft(reversed(self._in_flight))
        self._in_flight.clear()
        return self._next_delay()

    def give_up(self) -> list[Verdict]:
        """Return the verdicts at the deadline. Writes without a verdict are not stored, for the last reason."""
        return [verdict or Verdict(WriteOutcome.NOT_STORED, self._reason) for verdict in self.verdicts]

    def _lines(self, i: int) -> bytes:
        kept, self._serialised = self._serialised, None
        return kept[1] if kept is not None and kept[0] == i else self.writes[i].lines()

    def _next_delay(self) -> float:
        self._failures += 1
        return backoff_seconds(self._failures)


def judge_item(status: int, error: Any) -> Verdict | None:
    """Return the verdict on one item of a bulk answer, or None to retry it. Raises NotFound (`index_not_found`)."""
    if status == 404:
        raise NotFound("index_not_found", "The index was deleted during the request.")
    if 200 <= status < 300:
        return Verdict(WriteOutcome.STORED)
    if status == 409:
        return Verdict(WriteOutcome.SUPERSEDED)
    kind = error_type(error)
    # A block does not concern the document: the disk is full, or the generation is being replaced. A missing permission
    # does not either.
    if status in (429, 500, 502, 503, 504) or kind in (BLOCKED_ERROR, FORBIDDEN_ERROR):
        return None
    return Verdict(WriteOutcome.REFUSED, kind)


def error_type(error: Any) -> str:
    """Return OpenSearch's type of an error, which never contains the document."""
    return str(error.get("type", "unknown"))[:200] if isinstance(error, dict) else "unknown"


def limit_call_timeout(call: Call, deadline: float) -> Call:
    """Return the call with the time until `deadline` (of time.monotonic) as its timeout: 1 to `MAX_REQUEST_SECONDS`."""
    return replace(call, timeout=min(MAX_REQUEST_SECONDS, max(1.0, deadline - time.monotonic())))


def _count_outcomes(verdicts: list[Verdict]) -> list[Verdict]:
    for outcome, count in Counter(verdict.outcome for verdict in verdicts).items():
        BULK_ITEMS.labels(outcome.value).inc(count)
    return verdicts
