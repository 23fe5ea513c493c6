"""The executor of a search: the interface through which stages reach OpenSearch.

Stages plan lists and documents; an `Executor` sends the requests. So a search alone has its own requests
(`DirectExecutor`), the searches of a batch share theirs (`batch.BatchExecutor`), and pages are read from a point in
time (`points_in_time.PointInTimeExecutor`). `Stopwatch` measures the stages. A list that is cut short by time or by a
failed shard is an error, never a partial answer.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from services.errors import BackendUnavailable, InvalidInput, NotFound, Overloaded
from services.opensearch.analysis import TermsByWord, analyse_terms_call, read_analysed_terms
from services.opensearch.client import (
    INCOMPLETE_SEARCH_DETAIL,
    AsyncSearchClient,
    is_clause_limit_error,
    is_incomplete_search,
)
from services.opensearch.queries import SearchPlan, fetch_fields_call, msearch_call, search_call
from services.telemetry import tracing
from services.telemetry.metrics import SEARCH_INCOMPLETE, SEARCH_OVERLOADED, SEARCH_STAGE, SEARCHES

# The stages of a search, as named in `timings_ms` and in the metrics.
STAGES = ("encode", "opensearch", "engine", "fuse", "rerank", "shape", "total")
_STAGE_METRICS = {stage: SEARCH_STAGE.labels(stage) for stage in STAGES}
# The answer of OpenSearch to one list.
ListAnswer = Mapping[str, Any]
# A document by the generation's index name and its id: several indexes may have the same id.
Key = tuple[str, str]
Documents = dict[Key, dict[str, Any]]


class Executor(Protocol):
    """The requests that a stage may send."""

    async def lists(self, plans: Sequence[SearchPlan]) -> Sequence[ListAnswer]:
        """Search lists at the same time; return their answers in order."""
        ...

    async def documents(self, wanted: Sequence[Key], source: Sequence[str], *, realtime: bool = False) -> Documents:
        """Read the named fields of documents, without those that do not exist.

        The documents are as searches see them, or as they are now if `realtime`.
        """
        ...

    async def terms(self, index: str, field: str, words: Sequence[str]) -> TermsByWord:
        """Analyse distinct words by the analyser of a field. The result lacks words that the analyser drops."""
        ...


class DirectExecutor:
    """An executor that sends each request at once: one list as a search, several as one msearch."""

    def __init__(self, search: AsyncSearchClient, timeout: float, *, prefer_local: bool) -> None:
        """`timeout`: of a request, in seconds. `prefer_local`: as in `services.opensearch.queries.SearchPlan`."""
        self._search = search
        self._timeout = timeout
        self._prefer_local = prefer_local

    async def lists(self, plans: Sequence[SearchPlan]) -> Sequence[ListAnswer]:
        if len(plans) == 1:
            try:
                return [await self._search.send(search_call(plans[0], self._timeout, prefer_local=self._prefer_local))]
            except InvalidInput:
                raise too_many_clauses() from None
            except BackendUnavailable as error:
                if error.code == "search_incomplete":
                    SEARCH_INCOMPLETE.inc()
                raise
            except Overloaded:
                SEARCH_OVERLOADED.inc()
                raise
        call = msearch_call(plans, self._timeout, prefer_local=self._prefer_local)
        try:
            answers: Sequence[ListAnswer] = (await self._search.send(call))["responses"]
        except Overloaded:
            SEARCH_OVERLOADED.inc()
            raise
        return answers

    async def documents(self, wanted: Sequence[Key], source: Sequence[str], *, realtime: bool = False) -> Documents:
        return await self.sources([(key, source) for key in wanted], realtime=realtime)

    async def sources(self, wanted: Sequence[tuple[Key, Sequence[str]]], *, realtime: bool = False) -> Documents:
        """Read documents as `documents` does, each with its own fields."""
        call = fetch_fields_call(wanted, self._timeout, prefer_local=self._prefer_local, realtime=realtime)
        answer = await self._search.send(call)
        return {(doc["_index"], doc["_id"]): doc["_source"] for doc in answer["docs"] if doc.get("found")}

    async def terms(self, index: str, field: str, words: Sequence[str]) -> TermsByWord:
        return read_analysed_terms(
            await self._search.send(analyse_terms_call(index, field, words, self._timeout)), words
        )


class Stopwatch:
    """Milliseconds by stage. `engine` is the time that OpenSearch reports, a part of `opensearch`."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.stages = dict.fromkeys(STAGES, 0.0)

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to a stage."""
        now = time.perf_counter()
        self.stages[stage] += (now - self._last) * 1000
        # Requests to OpenSearch have their own spans.
        if stage != "opensearch" and tracing.is_tracing():
            tracing.record_past_span(f"search {stage}", self._last, now)
        self._last = now

    @property
    def passed(self) -> float:
        """The seconds since the start."""
        return time.perf_counter() - self._start

    def finish(self, mode: str) -> dict[str, float]:
        """Return the stages of an answered search and count them in the metrics, which takes about 15 microseconds."""
        self.stages["total"] = (self._last - self._start) * 1000
        SEARCHES.labels(mode).inc()
        trace = tracing.current_trace_id()
        exemplar = None if trace is None else {"trace_id": trace}
        for stage, value in self.stages.items():
            if value:
                _STAGE_METRICS[stage].observe(value / 1000, exemplar)
        return {stage: round(value, 3) for stage, value in self.stages.items()}


async def send_lists(executor: Executor, plans: Sequence[SearchPlan], stopwatch: Stopwatch) -> list[ListAnswer]:
    """Send lists that are searched at the same time. Raises the errors of `complete_hits`."""
    answers = list(await executor.lists(plans))
    stopwatch.lap("opensearch")
    for answer in answers:
        complete_hits(answer, stopwatch)
    return answers


def complete_hits(answer: ListAnswer, stopwatch: Stopwatch) -> list[dict[str, Any]]:
    """Return the hits of one list. A list that is cut short by time or by a failed shard is an error.

    Raises NotFound (`index_not_found`), InvalidInput (`query_too_long`), Overloaded (`opensearch_overloaded`) and
    BackendUnavailable (`search_incomplete`, `search_failed`).
    """
    if "error" in answer:
        if answer.get("status") == 404:
            raise NotFound("index_not_found", "The generation is gone.")
        if answer.get("status") == 400 or is_clause_limit_error(answer["error"]):
            raise too_many_clauses()
        if answer.get("status") == 429:
            SEARCH_OVERLOADED.inc()
            raise Overloaded("opensearch_overloaded", "OpenSearch is overloaded; try again in a moment.")
        if is_incomplete_search(answer["error"]):
            raise _incomplete()
        raise BackendUnavailable("search_failed", "OpenSearch could not complete the search; try again.")
    if answer["timed_out"] or answer["_shards"]["failed"]:
        raise _incomplete()
    # OpenSearch searches the lists of one request at the same time, so the longest counts.
    stopwatch.stages["engine"] = max(stopwatch.stages["engine"], answer["took"])
    hits: list[dict[str, Any]] = answer["hits"]["hits"]
    return hits


def _incomplete() -> BackendUnavailable:
    SEARCH_INCOMPLETE.inc()
    return BackendUnavailable("search_incomplete", INCOMPLETE_SEARCH_DETAIL)


def too_many_clauses() -> InvalidInput:
    """Return the error for a query of more than 1,024 clauses, the one reason for Lucene to refuse our searches.

    Text without spaces has one word per character: one unknown piece for the encoder, but many words for BM25.
    """
    return InvalidInput(
        "query_too_long",
        "The query has more words, or the query and the filter together more conditions, than OpenSearch accepts "
        "(1,024): shorten the query.",
    )
