"""Pages of a ranking, and the points in time from which pages are read.

`PageState` is the place of a page in a ranking. A page is found by number (hits to pass over) or by position (the sort
values of the last hit). A position reaches as deep as the matches do. A ranking made in the API (fused, or rescored to
a certain depth) has no position in OpenSearch's order: its pages are cut out of the whole ranking, which is made again
for each page. `PointInTimeRegistry` limits the points in time that one process holds open.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, TypeVar

from query_api.schemas.search_response import End
from services.access.principals import EVERYBODY
from services.errors import Overloaded, SparsewellError
from services.opensearch.client import AsyncSearchClient
from services.opensearch.paging import (
    close_point_in_time_call,
    open_point_in_time_call,
)

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class PageState:
    """The place of a page in a ranking.

    The state after a page says why no page follows (`end`) or where the next page begins.

    `begin`: number of hits before the page. `by_position`: the page begins after the sort values `after` (None: at the
    top) and after `skip` more hits. `depth`: length of the lists that are fused. `rules`: by index, the version of the
    curation rules on the first page.

    Pinned documents are not part of the ranking. `pins`: number of pins placed before the page. `last_pin`: the last
    place of any pin (0: there are none). `ranked`: number of other hits in the whole ranking, counted up to that place.
    """

    begin: int = 0
    by_position: bool = False
    after: list[Any] | None = None
    skip: int = 0
    depth: int = 0
    end: End | None = None
    pins: int = 0
    last_pin: int = 0
    ranked: int = 0
    rules: Mapping[str, int] = field(default_factory=dict)

    def narrow(self, search: dict[str, Any], size: int) -> dict[str, Any]:
        """Return the body of a list, limited to the page and one more hit, which shows whether another page follows."""
        search = dict(search)
        if self.last_pin:
            search["track_total_hits"] = self.last_pin
        if not self.by_position:
            search["from"], search["size"] = self.begin - self.pins, size + 1
            return search
        # OpenSearch orders equal scores by Lucene's document number, so sorting by that number is free. Documents of
        # different shards may have the same number: `skip` counts those that earlier pages showed.
        search["sort"] = [*search.get("sort", [{"_score": "desc"}]), {"_doc": "asc"}]
        search["size"] = self.skip + size + 1
        if self.after is not None:
            search["search_after"] = self.after
        return search

    def of_list(self, answer: Mapping[str, Any], size: int) -> tuple[Sequence[dict[str, Any]], "PageState"]:
        """Cut the page out of the `hits` member of an answer to a `narrow`ed body; return it with the next state."""
        hits: Sequence[dict[str, Any]] = answer["hits"]
        shown = hits[self.skip : self.skip + size]
        after, skip = self.after, self.skip
        # A page of pins alone has no hits: the next page continues at the same position.
        if self.by_position and (seen := hits[: self.skip + size]):
            after, skip = self._last_position(seen)
        next_state = replace(
            self,
            begin=self.begin + len(shown),
            after=after,
            skip=skip,
            end="matches" if len(hits) <= self.skip + size else self.end,
            ranked=answer["total"]["value"] if self.last_pin else self.ranked,
        )
        return shown, next_state

    def _last_position(self, hits: Sequence[dict[str, Any]]) -> tuple[list[Any] | None, int]:
        """Return `after` and `skip` for the page that follows these hits.

        OpenSearch passes over every hit with the same sort values as `after`. So `after` is the last value before the
        hits that share the last hit's values, and `skip` counts the hits that share them.
        """
        last = hits[-1]["sort"]
        first = next(n for n, hit in enumerate(hits) if hit["sort"] == last)
        return (hits[first - 1]["sort"], len(hits) - first) if first else (self.after, len(hits))

    def of_ranking(self, ranking: Sequence[Item], size: int, *, full: bool) -> tuple[Sequence[Item], "PageState"]:
        """Cut the page out of a whole ranking; return it with the next state.

        `full`: a list behind the ranking was cut at its depth, so a deeper list may hold more.
        """
        begin = self.begin - self.pins
        shown = ranking[begin : begin + size]
        end = self.end
        if len(ranking) <= begin + size:
            end = "candidates" if full else "matches"
        return shown, replace(self, begin=self.begin + len(shown), end=end, ranked=len(ranking))


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
    """Close a point in time. A failure is no error: the point in time also expires by itself."""
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
