"""The state of a page: which part of a ranking a request asks for, and how the next page goes on.

A page is found by number (hits to pass over) or by position (the sort values of the last hit). A position reaches as
deep as the matches do. A ranking that is made here (fused, or rescored to a certain depth) has no position in the
engine's order: its pages are cut out of the whole list, which is made again for each of them.

Snapshots of OpenSearch that pages are read from: taken whole or not at all, counted, let go of.
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
from services.opensearch.point_in_time import close_point_in_time_call, open_point_in_time_call


@dataclass(frozen=True, slots=True)
class PointInTime:
    """A snapshot's id, and how many shards it is of: OpenSearch holds a context for each."""

    id: str
    shards: int


async def open_point_in_time(
    search: AsyncSearchClient, physical: Sequence[str], seconds: float, *, near: bool = False
) -> PointInTime:
    """Takes one of some generations. Raises Overloaded (`too_many_snapshots`) and NotFound (`index_not_found`)."""
    try:
        answer = await search.send(open_point_in_time_call(physical, seconds, near=near))
    except Overloaded:
        raise Overloaded(
            "too_many_snapshots",
            "OpenSearch keeps as many snapshots for pages and exports as it may (search.max_open_pit_context), or is "
            "overloaded: wait until others reach their last page or give up.",
            retry_after=5,
        ) from None
    return PointInTime(answer["pit_id"], answer["_shards"]["total"])


async def close_point_in_time(search: AsyncSearchClient, snapshot: str) -> None:
    """Closes one. That it cannot be reached is no error: it ends by itself as well."""
    with suppress(SparsewellError):
        await search.send(close_point_in_time_call(snapshot))


class HeldPointsInTime:
    """The snapshots that searches and exports of this process hold, so that pages nobody asks for leave room for all
    others; one caller (a key) has half of them at most.

    A page may be given by another process, which this one does not see; so it is a bound on what is taken here.
    """

    def __init__(self, most: int) -> None:
        """`most`: contexts at once."""
        self._most = most
        self._until: dict[str, tuple[float, int, str]] = {}

    def admit(self, caller: str) -> None:
        """Returns while there is room for another. Raises Overloaded (`too_many_snapshots`)."""
        now = monotonic()
        self._until = {one: held for one, held in self._until.items() if held[0] > now}
        own = sum(shards for _, shards, whose in self._until.values() if whose == caller)
        crowded = caller != EVERYBODY.id and own >= max(1, self._most // 2)
        if crowded or sum(shards for _, shards, _ in self._until.values()) >= self._most:
            first = min(until for until, _, _ in self._until.values())
            raise Overloaded(
                "too_many_snapshots",
                f"{len(self._until):,} searches and exports wait for their next page here, and no more may: let some "
                "reach their last page, or ask with `offset`.",
                limit=self._most,
                retry_after=max(1, math.ceil(first - now)),
            )

    def keep(self, snapshot: PointInTime, seconds: float, caller: str) -> None:
        """A page was given of it, and it waits for the next one as long as this."""
        self._until[snapshot.id] = (monotonic() + seconds, snapshot.shards, caller)

    def drop(self, snapshot: str) -> None:
        """It was closed, or is gone."""
        self._until.pop(snapshot, None)


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class PageState:
    """Where a page begins. The state after the page also says why no page follows (`end`) or how to go on.

    `begin`: number of hits before the page. `by_position`: the page begins after the sort values `after` (None: at the
    top) and after `skip` more hits. `depth`: length of the lists that are fused. `rules`: by index, the version of the
    curation rules that made the first page.

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
        """Return the body of a list, limited to the page and one more hit, which shows whether a page follows."""
        search = dict(search)
        if self.last_pin:
            search["track_total_hits"] = self.last_pin
        if not self.by_position:
            search["from"], search["size"] = self.begin - self.pins, size + 1
            return search
        # The engine orders equal scores by its number of the document; sorting by that number costs nothing. Documents
        # of several shards may have the same number: `skip` counts those of them that earlier pages showed.
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
        if self.by_position and (seen := hits[: self.skip + size]):  # a page of pins alone goes on where it began
            after, skip = self._last_position(seen)
        following = replace(
            self,
            begin=self.begin + len(shown),
            after=after,
            skip=skip,
            end="matches" if len(hits) <= self.skip + size else self.end,
            ranked=answer["total"]["value"] if self.last_pin else self.ranked,
        )
        return shown, following

    def _last_position(self, hits: Sequence[dict[str, Any]]) -> tuple[list[Any] | None, int]:
        """Return `after` and `skip` for a page that follows these hits.

        OpenSearch passes over every hit that is sorted as high as `after`. So `after` is the last value before the hits
        that share the last hit's values, and `skip` counts these.
        """
        last = hits[-1]["sort"]
        first = next(at for at, hit in enumerate(hits) if hit["sort"] == last)
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
