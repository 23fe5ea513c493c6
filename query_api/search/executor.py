"""How the stages of a search reach OpenSearch: they say which lists and documents they need, an engine sends for them.

No stage sends anything itself. So the way can change under all of them: a search that is alone has its own requests,
those of a batch share theirs (`batch_engine`), and pages are read from a snapshot (`snapshot_engine`).

Where the time of a search went.
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
from services.telemetry.metrics import SEARCH_INCOMPLETE, SEARCH_STAGE, SEARCHES

# Stages of a search, as its answer and the metrics name them.
STAGES = ("encode", "opensearch", "engine", "fuse", "rerank", "shape", "total")
_STAGE_METRICS = {stage: SEARCH_STAGE.labels(stage) for stage in STAGES}


class Stopwatch:
    """Milliseconds by stage. `engine` is what OpenSearch itself reports, a part of `opensearch`."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.stages = dict.fromkeys(STAGES, 0.0)

    def lap(self, stage: str) -> None:
        """The time since the last lap belongs to `stage`."""
        now = time.perf_counter()
        self.stages[stage] += (now - self._last) * 1000
        if stage != "opensearch" and tracing.is_tracing():  # (its requests have spans of their own)
            tracing.record_past_span(f"search {stage}", self._last, now)
        self._last = now

    @property
    def passed(self) -> float:
        """Seconds until now."""
        return time.perf_counter() - self._start

    def finish(self, mode: str) -> dict[str, float]:
        """The times of an answered search of this mode, which are counted as well: about 15 microseconds."""
        self.stages["total"] = (self._last - self._start) * 1000
        SEARCHES.labels(mode).inc()
        trace = tracing.current_trace_id()
        exemplar = None if trace is None else {"trace_id": trace}
        for stage, value in self.stages.items():
            if value:
                _STAGE_METRICS[stage].observe(value / 1000, exemplar)
        return {stage: round(value, 3) for stage, value in self.stages.items()}


ListAnswer = Mapping[str, Any]
# A document by the generation's own name and its id: an id may be in several indexes.
Key = tuple[str, str]
Documents = dict[Key, dict[str, Any]]


class Engine(Protocol):
    """What a stage may ask for."""

    async def lists(self, plans: Sequence[SearchPlan]) -> Sequence[ListAnswer]:
        """The answers to some lists, in their order; they are searched at the same time."""
        ...

    async def documents(self, wanted: Sequence[Key], source: Sequence[str], *, realtime: bool = False) -> Documents:
        """The named fields of documents; those that are not there are left out.

        As searches see them, or, in real time, as they are.
        """
        ...

    async def terms(self, index: str, field: str, words: Sequence[str]) -> TermsByWord:
        """What the analyser of a field makes of distinct words; of one that it drops, nothing is named."""
        ...


class DirectEngine:
    """Sends at once: a list as one search, several as one msearch."""

    def __init__(self, search: AsyncSearchClient, timeout: float, *, near: bool) -> None:
        """`timeout` of a request in seconds; `near`: as in `services.opensearch.queries.SearchPlan`."""
        self._search = search
        self._timeout = timeout
        self._near = near

    async def lists(self, plans: Sequence[SearchPlan]) -> Sequence[ListAnswer]:
        if len(plans) == 1:
            try:
                return [await self._search.send(search_call(plans[0], self._timeout, near=self._near))]
            except InvalidInput:
                raise too_many_clauses() from None
            except BackendUnavailable as error:
                if error.code == "search_incomplete":
                    SEARCH_INCOMPLETE.inc()
                raise
        call = msearch_call(plans, self._timeout, near=self._near)
        answers: Sequence[ListAnswer] = (await self._search.send(call))["responses"]
        return answers

    async def documents(self, wanted: Sequence[Key], source: Sequence[str], *, realtime: bool = False) -> Documents:
        return await self.sources([(key, source) for key in wanted], realtime=realtime)

    async def sources(self, wanted: Sequence[tuple[Key, Sequence[str]]], *, realtime: bool = False) -> Documents:
        """As `documents`, with fields of each one's own."""
        call = fetch_fields_call(wanted, self._timeout, near=self._near, realtime=realtime)
        answer = await self._search.send(call)
        return {(one["_index"], one["_id"]): one["_source"] for one in answer["docs"] if one.get("found")}

    async def terms(self, index: str, field: str, words: Sequence[str]) -> TermsByWord:
        return read_analysed_terms(
            await self._search.send(analyse_terms_call(index, field, words, self._timeout)), words
        )


def complete_hits(answer: ListAnswer, watch: Stopwatch) -> list[dict[str, Any]]:
    """The hits of one list. A list that is cut short by time or a failed shard is an error, not an answer."""
    if "error" in answer:
        if answer.get("status") == 404:
            raise NotFound("index_not_found", "The generation is gone.")
        if answer.get("status") == 400 or is_clause_limit_error(answer["error"]):
            raise too_many_clauses()
        if answer.get("status") == 429:
            raise Overloaded("opensearch_overloaded", "OpenSearch is overloaded; try again in a moment.")
        if is_incomplete_search(answer["error"]):
            raise _incomplete()
        raise BackendUnavailable("search_failed", "OpenSearch could not complete the search; try again.")
    if answer["timed_out"] or answer["_shards"]["failed"]:
        raise _incomplete()
    # Two lists of one request are searched at the same time.
    watch.stages["engine"] = max(watch.stages["engine"], answer["took"])
    hits: list[dict[str, Any]] = answer["hits"]["hits"]
    return hits


async def send_lists(engine: Engine, plans: Sequence[SearchPlan], watch: Stopwatch) -> list[ListAnswer]:
    """Send lists that are searched at the same time. Raises what `whole` does for a list that is not whole."""
    answers = list(await engine.lists(plans))
    watch.lap("opensearch")
    for answer in answers:
        complete_hits(answer, watch)
    return answers


def _incomplete() -> BackendUnavailable:
    SEARCH_INCOMPLETE.inc()
    return BackendUnavailable("search_incomplete", INCOMPLETE_SEARCH_DETAIL)


def too_many_clauses() -> InvalidInput:
    """Lucene's limit of 1,024 clauses is the one thing that it can refuse in a search of ours.

    A script without spaces has one word a character, which is one unknown piece for the encoder but many for BM25.
    """
    return InvalidInput(
        "query_too_long",
        "The query has more words, or the query and the filter more conditions together, than OpenSearch takes "
        "(1,024): shorten it.",
    )
