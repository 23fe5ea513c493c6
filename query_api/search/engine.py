"""How the stages of a search reach OpenSearch: they say which lists and documents they need, an engine sends for them.

No stage sends anything itself. So the way can change under all of them: a search that is alone has its own requests,
those of a batch share theirs (`batch_engine`), and pages are read from a snapshot (`snapshot_engine`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from query_api.search.stopwatch import Stopwatch
from services.errors import BackendUnavailable, InvalidInput, NotFound, Overloaded
from services.opensearch.analysis import Terms, read_terms, terms_call
from services.opensearch.client import INCOMPLETE, AsyncSearch, has_too_many_clauses, is_incomplete
from services.opensearch.queries import Plan, fetch_call, msearch_call, search_call
from services.telemetry.metrics import SEARCH_INCOMPLETE

Answer = Mapping[str, Any]
# A document by the generation's own name and its id: an id may be in several indexes.
Key = tuple[str, str]
Documents = dict[Key, dict[str, Any]]


class Engine(Protocol):
    """What a stage may ask for."""

    async def lists(self, plans: Sequence[Plan]) -> Sequence[Answer]:
        """The answers to some lists, in their order; they are searched at the same time."""
        ...

    async def documents(self, wanted: Sequence[Key], source: Sequence[str], *, realtime: bool = False) -> Documents:
        """The named fields of documents; those that are not there are left out.

        As searches see them, or, in real time, as they are.
        """
        ...

    async def terms(self, index: str, field: str, words: Sequence[str]) -> Terms:
        """What the analyser of a field makes of distinct words; of one that it drops, nothing is named."""
        ...


class Direct:
    """Sends at once: a list as one search, several as one msearch."""

    def __init__(self, search: AsyncSearch, timeout: float, *, near: bool) -> None:
        """`timeout` of a request in seconds; `near`: as in `services.opensearch.queries.Plan`."""
        self._search = search
        self._timeout = timeout
        self._near = near

    async def lists(self, plans: Sequence[Plan]) -> Sequence[Answer]:
        if len(plans) == 1:
            try:
                return [await self._search.send(search_call(plans[0], self._timeout, near=self._near))]
            except InvalidInput:
                raise too_many_words() from None
            except BackendUnavailable as error:
                if error.code == "search_incomplete":
                    SEARCH_INCOMPLETE.inc()
                raise
        call = msearch_call(plans, self._timeout, near=self._near)
        answers: Sequence[Answer] = (await self._search.send(call))["responses"]
        return answers

    async def documents(self, wanted: Sequence[Key], source: Sequence[str], *, realtime: bool = False) -> Documents:
        return await self.sources([(key, source) for key in wanted], realtime=realtime)

    async def sources(self, wanted: Sequence[tuple[Key, Sequence[str]]], *, realtime: bool = False) -> Documents:
        """As `documents`, with fields of each one's own."""
        call = fetch_call(wanted, self._timeout, near=self._near, realtime=realtime)
        answer = await self._search.send(call)
        return {(one["_index"], one["_id"]): one["_source"] for one in answer["docs"] if one.get("found")}

    async def terms(self, index: str, field: str, words: Sequence[str]) -> Terms:
        return read_terms(await self._search.send(terms_call(index, field, words, self._timeout)), words)


def whole(answer: Answer, watch: Stopwatch) -> list[dict[str, Any]]:
    """The hits of one list. A list that is cut short by time or a failed shard is an error, not an answer."""
    if "error" in answer:
        if answer.get("status") == 404:
            raise NotFound("index_not_found", "The generation is gone.")
        if answer.get("status") == 400 or has_too_many_clauses(answer["error"]):
            raise too_many_words()
        if answer.get("status") == 429:
            raise Overloaded("opensearch_overloaded", "OpenSearch is overloaded; try again in a moment.")
        if is_incomplete(answer["error"]):
            raise _incomplete()
        raise BackendUnavailable("search_failed", "OpenSearch could not complete the search; try again.")
    if answer["timed_out"] or answer["_shards"]["failed"]:
        raise _incomplete()
    # Two lists of one request are searched at the same time.
    watch.stages["engine"] = max(watch.stages["engine"], answer["took"])
    hits: list[dict[str, Any]] = answer["hits"]["hits"]
    return hits


async def answers_of(engine: Engine, plans: Sequence[Plan], watch: Stopwatch) -> list[Answer]:
    """Send lists that are searched at the same time. Raises what `whole` does for a list that is not whole."""
    answers = list(await engine.lists(plans))
    watch.lap("opensearch")
    for answer in answers:
        whole(answer, watch)
    return answers


def _incomplete() -> BackendUnavailable:
    SEARCH_INCOMPLETE.inc()
    return BackendUnavailable("search_incomplete", INCOMPLETE)


def too_many_words() -> InvalidInput:
    """Lucene's limit of 1,024 clauses is the one thing that it can refuse in a search of ours.

    A script without spaces has one word a character, which is one unknown piece for the encoder but many for BM25.
    """
    return InvalidInput(
        "query_too_long",
        "The query has more words, or the query and the filter more conditions together, than OpenSearch takes "
        "(1,024): shorten it.",
    )
