"""Points in time of OpenSearch: opened, read and closed, with a limit of those that one process holds open.

A search by cursor and an export read all their pages from one point in time, so that writes do not change them.
`PointInTimeExecutor` reads lists and documents as they were when the point in time was opened.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic

from query_api.search.executor import Documents, Executor, Key, ListAnswer, Stopwatch, complete_hits
from services.access.principals import EVERYBODY
from services.errors import NotFound, Overloaded, SparsewellError
from services.opensearch.analysis import TermsByWord
from services.opensearch.client import AsyncSearchClient
from services.opensearch.paging import (
    close_point_in_time_call,
    open_point_in_time_call,
    point_in_time_member,
)
from services.opensearch.queries import Clause, SearchPlan, build_search_body


@dataclass(frozen=True, slots=True)
class PointInTime:
    """The id of a point in time and its number of shards: OpenSearch holds one search context for each shard."""

    id: str
    shards: int


async def open_point_in_time(
    search: AsyncSearchClient, physical: Sequence[str], seconds: float, *, prefer_local: bool = False
) -> PointInTime:
    """Open a point in time of some generations.

    Raises Overloaded (`too_many_snapshots`) and NotFound (`index_not_found`).
    """
    try:
        answer = await search.send(open_point_in_time_call(physical, seconds, prefer_local=prefer_local))
    except Overloaded:
        raise Overloaded(
            "too_many_snapshots",
            "OpenSearch is overloaded, or holds as many points in time for pages and exports as it may "
            "(search.max_open_pit_context): wait until other searches reach their last page or expire.",
            retry_after=5,
        ) from None
    return PointInTime(answer["pit_id"], answer["_shards"]["total"])


async def close_point_in_time(search: AsyncSearchClient, point_in_time: str) -> None:
    """Close a point in time. A failure is not an error: the point in time also expires by itself."""
    with suppress(SparsewellError):
        await search.send(close_point_in_time_call(point_in_time))


class PointInTimeRegistry:
    """The points in time that searches and exports of this process hold open.

    The limit keeps abandoned pages from taking all of OpenSearch's contexts; one caller (an API key) may hold half of
    them. Another process may answer later pages unseen, so the number bounds the points in time that this process
    opened.
    """

    def __init__(self, limit: int) -> None:
        """`limit`: contexts at once."""
        self._limit = limit
        self._until: dict[str, tuple[float, int, str]] = {}

    def check_room(self, caller: str) -> None:
        """Return if there is room for another point in time. Raises Overloaded (`too_many_snapshots`)."""
        now = monotonic()
        self._until = {name: entry for name, entry in self._until.items() if entry[0] > now}
        callers_shards = sum(shards for _, shards, holder in self._until.values() if holder == caller)
        over_share = caller != EVERYBODY.id and callers_shards >= max(1, self._limit // 2)
        if over_share or sum(shards for _, shards, _ in self._until.values()) >= self._limit:
            first_expiry = min(until for until, _, _ in self._until.values())
            raise Overloaded(
                "too_many_snapshots",
                f"{len(self._until):,} searches and exports wait for their next page, and the limit is reached: let "
                "some reach their last page, or use `offset`.",
                limit=self._limit,
                retry_after=max(1, math.ceil(first_expiry - now)),
            )

    def record(self, point_in_time: PointInTime, seconds: float, caller: str) -> None:
        """Record that a page was answered and that the point in time stays open for `seconds`."""
        self._until[point_in_time.id] = (monotonic() + seconds, point_in_time.shards, caller)

    def remove(self, point_in_time: str) -> None:
        """Forget a point in time that was closed or expired."""
        self._until.pop(point_in_time, None)


class PointInTimeExecutor:
    """An executor over a point in time of some generations; each request extends its life.

    Raises NotFound (`cursor_expired`) once the point in time is gone: it expired, or a generation was removed.
    """

    def __init__(
        self, inner: Executor, point_in_time: str, physical: Sequence[str], keep_alive: float, timeout: float
    ) -> None:
        """`keep_alive`: seconds until an unused point in time ends. `timeout`: seconds of one request."""
        self.point_in_time = point_in_time
        self._inner = inner
        self._index = ",".join(physical)
        self._keep_alive = keep_alive
        self._timeout = timeout

    async def lists(self, plans: Sequence[SearchPlan]) -> Sequence[ListAnswer]:
        try:
            answers = await self._inner.lists([self._within(plan) for plan in plans])
        except NotFound:
            raise cursor_expired() from None
        for answer in answers:
            if answer.get("status") == 404:
                raise cursor_expired()
            self.point_in_time = answer.get("pit_id", self.point_in_time)
        return answers

    async def documents(self, wanted: Sequence[Key], source: Sequence[str], *, realtime: bool = False) -> Documents:
        if realtime:  # A point in time holds nothing newer.
            return {}
        ids = {"ids": {"values": sorted({document for _, document in wanted})}}
        # Every index may have each id.
        search = build_search_body(ids, len(wanted) * (self._index.count(",") + 1), source, self._timeout)
        (answer,) = await self.lists([SearchPlan(self._index, search)])
        return {(hit["_index"], hit["_id"]): hit["_source"] for hit in complete_hits(answer, Stopwatch())}

    async def terms(self, index: str, field: str, words: Sequence[str]) -> TermsByWord:
        return await self._inner.terms(index, field, words)

    def _within(self, plan: SearchPlan) -> SearchPlan:
        search = plan.body | point_in_time_member(self.point_in_time, self._keep_alive)
        if plan.index != self._index:
            names = (plan.index or "").split(",")
            search["query"] = _restrict_to(names, search["query"])
            if "rescore" in search:  # Otherwise the rescore query would count words in the other indexes too.
                rescore = search["rescore"]["query"]
                query = rescore | {"rescore_query": _restrict_to(names, rescore["rescore_query"])}
                search["rescore"] = search["rescore"] | {"query": query}
        return replace(plan, index=None, body=search)


def _restrict_to(names: Sequence[str], query: Clause) -> Clause:
    """Restrict a query to some of the indexes of the point in time."""
    return {"bool": {"must": [query], "filter": [{"terms": {"_index": names}}]}}


def cursor_expired() -> NotFound:
    """Return the error for a page requested too late."""
    return NotFound("cursor_expired", "The point in time behind `cursor` is gone: begin again, with `*`.")
