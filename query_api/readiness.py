"""The readiness of an API process to answer searches.

A process is ready when OpenSearch answers and the query table of the configured encoder is loaded, which the start of
the process does. No index decides about readiness: while a new encoder is rolled out, the old processes lack its table
and must keep answering all other indexes (docs/decisions/0256). `ReadinessMonitor` also surveys which indexes this
process cannot search, and asks Redis, at most once an interval however many probes arrive.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from query_api.index_cache import QueryTableCache
from services.errors import BackendUnavailable, SparsewellError
from services.index_spec import IndexNames
from services.opensearch.client import AsyncSearchClient, Call
from services.opensearch.generations import active_encoders_call, read_active_encoders
from services.queue.lanes import encode_queues
from services.queue.messages import Publisher
from services.telemetry.metrics import CLOCK_LEAD, READY, UNSERVED_INDEXES

log = logging.getLogger(__name__)
T = TypeVar("T")

CHECK_INTERVAL_SECONDS: Final = 1.0
# A list of 5,000 indexes is 1 MB, which OpenSearch takes .1 s to write. Once in 15 s costs it less than a percent.
SURVEY_INTERVAL_SECONDS: Final = 15.0
# Probes time out after a few seconds, so a check must be faster.
CHECK_TIMEOUT_SECONDS: Final = 3.0
# An answer names this many indexes without a query table, and counts all of them.
MAX_NAMED_INDEXES: Final = 10
# The contacted node answers from its own cluster state, also without a cluster manager: searches need none.
_HEALTH_CALL: Final = Call(
    "GET", "/_cluster/health", params={"local": "true", "filter_path": "status"}, timeout=CHECK_TIMEOUT_SECONDS
)


@dataclass(frozen=True)
class IndexSurvey:
    """The indexes as this process can search them.

    `indexes` is their number. `unserved` has name and fingerprint of the encoder of each index whose query table is
    missing, by index. `code` is `ok`, `encoder_mismatch`, or why the indexes could not be listed.
    """

    at: float
    code: str
    indexes: int = 0
    unserved: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadinessReport:
    """The result of a check. `failure` is why no search can be answered; `messages` is None while Redis is away."""

    at: float
    survey: IndexSurvey
    messages: int | None
    failure: SparsewellError | None

    @property
    def checks(self) -> dict[str, str]:
        """Return `ok` or a code for each part."""
        return {
            "opensearch": "ok" if self.failure is None else self.failure.code,
            "query_tables": self.survey.code,
            "redis": "redis_unavailable" if self.messages is None else "ok",
        }


class ReadinessMonitor:
    """The readiness of one process, checked at most once a second."""

    def __init__(
        self, names: IndexNames, tables: QueryTableCache, search: AsyncSearchClient, publisher: Publisher
    ) -> None:
        self._names = names
        self._tables = tables
        self._search = search
        self._publisher = publisher
        self._draining = False
        self._last: ReadinessReport | None = None
        self._survey: IndexSurvey | None = None
        self._lock = asyncio.Lock()

    @property
    def is_draining(self) -> bool:
        """Whether the process is about to end."""
        return self._draining

    def drain(self) -> None:
        """Mark the process as not ready for good, because it is about to end."""
        self._draining = True
        READY.labels("api").set(0)

    async def report(self) -> dict[str, Any]:
        """Return the answer of a ready process.

        Raises the reason why the process is not ready, with `checks` of every part: BackendUnavailable (`draining` and
        the codes of OpenSearch).
        """
        if self._draining:
            raise BackendUnavailable("draining", "This process is about to end: use another one.", checks={})
        last = await self._last_check()
        if last.failure is not None:
            error = last.failure
            raise type(error)(error.code, error.detail, **error.extra, checks=last.checks)
        default, unserved = self._tables.default, last.survey.unserved
        return {
            "status": "ready",
            "encoder": {"name": default.name, "fingerprint": default.fingerprint},
            "indexes": last.survey.indexes,
            "unserved": {
                "indexes": len(unserved),
                "first": [
                    {"index": index, "encoder": name, "fingerprint": fingerprint}
                    for index, (name, fingerprint) in sorted(unserved.items())[:MAX_NAMED_INDEXES]
                ],
            },
            "queue": {"reachable": last.messages is not None, "messages": last.messages},
            "checks": last.checks,
        }

    async def _last_check(self) -> ReadinessReport:
        async with self._lock:
            if self._last is None or time.monotonic() - self._last.at >= CHECK_INTERVAL_SECONDS:
                self._last = await self._check()
            return self._last

    async def _check(self) -> ReadinessReport:
        failure, survey, messages = await asyncio.gather(
            self.check_opensearch(), self.survey_indexes(), self._count_messages()
        )
        if not self._draining:
            READY.labels("api").set(failure is None)
        return ReadinessReport(time.monotonic(), survey, messages, failure)

    async def check_opensearch(self) -> SparsewellError | None:
        """Return why OpenSearch cannot be asked; None when it answers."""
        try:
            await _with_timeout(self._search.send(_HEALTH_CALL))
        except SparsewellError as error:
            return error
        except TimeoutError:
            return BackendUnavailable("opensearch_timeout", "OpenSearch did not answer in time.")
        return None

    async def survey_indexes(self) -> IndexSurvey:
        """Return the last survey, or a new one after 15 s. A survey that failed is repeated at the next check."""
        last = self._survey
        if last is not None and time.monotonic() - last.at < SURVEY_INTERVAL_SECONDS:
            return last
        try:
            call = replace(active_encoders_call(self._names), timeout=CHECK_TIMEOUT_SECONDS)
            encoders = read_active_encoders(await _with_timeout(self._search.send(call)))
        except SparsewellError as error:
            return IndexSurvey(time.monotonic(), error.code)
        except TimeoutError:
            return IndexSurvey(time.monotonic(), "opensearch_timeout")
        unserved = {
            index: (name, fingerprint)
            for index, (name, fingerprint) in encoders.items()
            if not self._tables.serves(fingerprint)
        }
        survey = IndexSurvey(time.monotonic(), "encoder_mismatch" if unserved else "ok", len(encoders), unserved)
        self._publish(survey, last)
        self._survey = survey
        return survey

    @staticmethod
    def _publish(survey: IndexSurvey, last: IndexSurvey | None) -> None:
        """Export the unserved indexes by encoder, and log each index once."""
        counts = Counter(dict.fromkeys((name for name, _ in last.unserved.values()) if last else (), 0))
        counts.update(name for name, _ in survey.unserved.values())
        for name, indexes in counts.items():
            UNSERVED_INDEXES.labels(name).set(indexes)
        for index in sorted(survey.unserved.keys() - (last.unserved.keys() if last else ()))[:MAX_NAMED_INDEXES]:
            name, fingerprint = survey.unserved[index]
            log.warning(
                "the index %s is refused, because this process lacks the query table of %s (%s): set MORE_ENCODERS",
                index,
                name,
                fingerprint,
            )

    async def _count_messages(self) -> int | None:
        """Count the messages for the configured encoder; None while Redis does not answer. Searches need no Redis."""
        queues = encode_queues(self._tables.default.name)
        try:
            lead, messages = await _with_timeout(asyncio.to_thread(self._ask_redis, queues))
        except (BackendUnavailable, TimeoutError):
            return None
        if lead is not None:
            CLOCK_LEAD.set(lead)
        return messages

    def _ask_redis(self, queues: Sequence[str]) -> tuple[float | None, int]:
        return self._publisher.clock_lead(), self._publisher.depth(*queues)


async def _with_timeout(answer: Awaitable[T]) -> T:
    async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
        return await answer
