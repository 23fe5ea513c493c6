"""Bulk writes with external versions: requests sized by bytes, each item judged on its own, retries that can succeed.

The state machine does no I/O: `BulkRun` hands out requests and is told the answers, two loops of a few lines carry
them.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
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
    """Put `source` under `id` when the stored external version is lower than `version`.

    It goes through an alias that must exist: the index's own for what a client sent, so that it reaches the generation
    that is searched, a generation's write alias for what belongs to that generation.
    """

    alias: str
    id: str
    version: int
    source: dict[str, Any]

    def lines(self) -> bytes:
        action = {
            "_index": self.alias,
            "require_alias": True,
            "_id": self.id,
            "version": self.version,
            "version_type": "external",
        }
        return orjson.dumps({"index": action}) + b"\n" + orjson.dumps(self.source) + b"\n"


class WriteOutcome(Enum):
    """What became of one write."""

    STORED = "stored"
    SUPERSEDED = "superseded"  # a newer version is stored already: for an encoding that is success
    REFUSED = "refused"  # OpenSearch will never take this document
    NOT_STORED = "not_stored"  # it was not reached, or not in time


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of one write; `reason` is OpenSearch's error type and never holds the document.

    `physical`: of a stored one OpenSearch's name of the generation that the alias led it to.
    """

    outcome: WriteOutcome
    reason: str = ""
    physical: str = ""


def judge_item(status: int, error: Any) -> Verdict | None:
    """The verdict on one item of a bulk answer; None means: send it again. Raises NotFound (`index_not_found`)."""
    if status == 404:
        raise NotFound("index_not_found", "The index was deleted meanwhile.")
    if 200 <= status < 300:
        return Verdict(WriteOutcome.STORED)
    if status == 409:
        return Verdict(WriteOutcome.SUPERSEDED)
    kind = error_type(error)
    # A block says nothing of the document: a disk at flood stage, or a generation that is about to be replaced. Nor
    # does what a role lacks.
    if status in (429, 500, 502, 503, 504) or kind in (BLOCKED_ERROR, FORBIDDEN_ERROR):
        return None
    return Verdict(WriteOutcome.REFUSED, kind)


def error_type(error: Any) -> str:
    """OpenSearch's type of an error, which never holds the document."""
    return str(error.get("type", "unknown"))[:200] if isinstance(error, dict) else "unknown"


@dataclass
class BulkRun:
    """Writes on their way. `verdicts[i]` belongs to the i-th write once `done`."""

    writes: Sequence[Write]
    max_bytes: int
    verdicts: list[Verdict | None] = field(init=False)
    _waiting: deque[tuple[int, bytes]] = field(init=False)
    _flying: list[tuple[int, bytes]] = field(init=False, default_factory=list)
    _failures: int = 0
    _reason: str = ""

    def __post_init__(self) -> None:
        self.verdicts = [None] * len(self.writes)
        self._waiting = deque((i, write.lines()) for i, write in enumerate(self.writes))

    @property
    def done(self) -> bool:
        return not self._waiting and not self._flying

    def next_call(self) -> Call:
        """The next request: at least one write, at most `max_bytes` unless a single one is larger."""
        size = 0
        while self._waiting and (not self._flying or size + len(self._waiting[0][1]) <= self.max_bytes):
            self._flying.append(self._waiting.popleft())
            size += len(self._flying[-1][1])
        body = b"".join(lines for _, lines in self._flying)
        return Call("POST", "/_bulk", body, {"filter_path": _RESPONSE_FILTER_PATH}, ndjson=True)

    def answered(self, answer: Any) -> float:
        """Takes the answer to the last request; returns seconds to wait before the next."""
        again = []
        for (i, lines), item in zip(self._flying, answer["items"], strict=True):
            result = next(iter(item.values()))
            verdict = judge_item(result["status"], result.get("error"))
            if verdict is None:
                again.append((i, lines))
                self._reason = OVERLOADED_CODE if result["status"] == 429 else error_type(result.get("error"))
            elif verdict.outcome is WriteOutcome.STORED:
                verdict = Verdict(WriteOutcome.STORED, physical=result["_index"])
            self.verdicts[i] = verdict
        self._flying.clear()
        self._waiting.extendleft(reversed(again))
        BULK_ITEMS.labels("repeated").inc(len(again))
        return self._delay() if again else self._fresh()

    def failed(self, reason: str) -> float:
        """The whole request failed in a way that may pass; returns seconds to wait before sending it again."""
        self._reason = reason
        BULK_ITEMS.labels("repeated").inc(len(self._flying))
        self._waiting.extendleft(reversed(self._flying))
        self._flying.clear()
        return self._delay()

    def give_up(self) -> list[Verdict]:
        """The verdicts at the deadline: what is still on its way counts as not stored, for the last reason seen."""
        return [verdict or Verdict(WriteOutcome.NOT_STORED, self._reason) for verdict in self.verdicts]

    def _fresh(self) -> float:
        self._failures = 0
        return 0.0

    def _delay(self) -> float:
        self._failures += 1
        return backoff_seconds(self._failures)


def limit_call_timeout(call: Call, end: float) -> Call:
    """The call with what is left until `end` (of time.monotonic) as its time limit, a second at least."""
    return replace(call, timeout=min(MAX_REQUEST_SECONDS, max(1.0, end - time.monotonic())))


def _count_outcomes(verdicts: list[Verdict]) -> list[Verdict]:
    for outcome, count in Counter(verdict.outcome for verdict in verdicts).items():
        BULK_ITEMS.labels(outcome.value).inc(count)
    return verdicts


def write_bulk(client: SyncSearchClient, writes: Iterable[Write], max_bytes: int, seconds: float) -> list[Verdict]:
    """Carries writes until each has a verdict or `seconds` have passed; order of verdicts is order of writes.

    Raises only for errors that cannot pass (a missing index).
    """
    run = BulkRun(list(writes), max_bytes)
    end = time.monotonic() + seconds
    while not run.done:
        try:
            delay = run.answered(client.send(limit_call_timeout(run.next_call(), end)))
        except TRANSIENT_ERRORS as error:
            delay = run.failed(error.code)
        if delay and time.monotonic() + delay > end:
            break
        time.sleep(delay)
    return _count_outcomes(run.give_up())


async def write_bulk_async(
    client: AsyncSearchClient, writes: Iterable[Write], max_bytes: int, seconds: float
) -> list[Verdict]:
    """As `write`, for event loops."""
    run = BulkRun(list(writes), max_bytes)
    end = time.monotonic() + seconds
    while not run.done:
        try:
            delay = run.answered(await client.send(limit_call_timeout(run.next_call(), end)))
        except TRANSIENT_ERRORS as error:
            delay = run.failed(error.code)
        if delay and time.monotonic() + delay > end:
            break
        if delay:
            await asyncio.sleep(delay)
    return _count_outcomes(run.give_up())
