"""Snapshots of OpenSearch that pages are read from: taken whole or not at all, counted, let go of."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from services.access.principal import EVERYBODY
from services.errors import Overloaded, SparsewellError
from services.opensearch.client import AsyncSearch
from services.opensearch.snapshots import close_call, open_call


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot's id, and how many shards it is of: OpenSearch holds a context for each."""

    id: str
    shards: int


async def take(search: AsyncSearch, physical: Sequence[str], seconds: float, *, near: bool = False) -> Snapshot:
    """Takes one of some generations. Raises Overloaded (`too_many_snapshots`) and NotFound (`index_not_found`)."""
    try:
        answer = await search.send(open_call(physical, seconds, near=near))
    except Overloaded:
        raise Overloaded(
            "too_many_snapshots",
            "OpenSearch keeps as many snapshots for pages and exports as it may (search.max_open_pit_context), or is "
            "overloaded: wait until others reach their last page or give up.",
            retry_after=5,
        ) from None
    return Snapshot(answer["pit_id"], answer["_shards"]["total"])


async def let_go(search: AsyncSearch, snapshot: str) -> None:
    """Closes one. That it cannot be reached is no error: it ends by itself as well."""
    with suppress(SparsewellError):
        await search.send(close_call(snapshot))


class Held:
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

    def keep(self, snapshot: Snapshot, seconds: float, caller: str) -> None:
        """A page was given of it, and it waits for the next one as long as this."""
        self._until[snapshot.id] = (monotonic() + seconds, snapshot.shards, caller)

    def drop(self, snapshot: str) -> None:
        """It was closed, or is gone."""
        self._until.pop(snapshot, None)
