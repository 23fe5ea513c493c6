"""Pages of a search over a snapshot: a cursor says what was asked, of which snapshot, and how far the pages went.

API processes keep nothing of it, so any of them gives the next page. See docs/decisions/0165.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Self

from query_api.parts import Parts
from query_api.search.engine import Engine
from query_api.search.part import Part
from query_api.search.request import SearchRequest
from query_api.search.snapshot_engine import InSnapshot, cursor_expired
from query_api.snapshots import Snapshot, let_go, take
from services.cursors import sealed, unsealed
from services.errors import InvalidInput, NotFound, SparsewellError
from services.index_spec import Generation

FIRST = "*"
# The first member of every cursor; another one in a later release is none of ours.
_FORM = 1
# What may differ from page to page: it is of the hits that are shown, not of which they are.
_SHOWN = {"cursor", "size", "passage", "highlight", "explain", "fields", "did_you_mean", "learn"}

Answer = dict[str, Any]
# Searches the generations that it is given, on an engine, for a part of the ranking; None: its top.
Answered = Callable[[Sequence[Generation], Engine, Part | None], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Place:
    """Up to where the pages went. `asked`: digest of the request; the others as in `Snapshot` and `Part`."""

    asked: str
    physical: list[str]
    snapshot: str
    shards: int
    depth: int
    by_place: bool
    begin: int
    after: list[Any] | None
    skip: int
    rules: dict[str, int]

    def cursor(self, key: bytes) -> str:
        return sealed([_FORM, *astuple(self)], key)

    @classmethod
    def read(cls, cursor: str, key: bytes, asked: str) -> Self:
        """Raises InvalidInput (`bad_cursor`, `cursor_mismatch`)."""
        try:
            form, *values = unsealed(cursor, key)
            place = cls(*values) if form == _FORM else None
        except (ValueError, TypeError):
            place = None
        if place is None:
            raise InvalidInput("bad_cursor", "`cursor` is none that this search gave out; `*` asks for the first page.")
        if place.asked != asked:
            raise InvalidInput(
                "cursor_mismatch",
                "`cursor` belongs to another search: all but `size`, `passage`, `highlight`, `explain` and `fields` "
                "must stay as on the page before; `*` begins anew.",
            )
        return place


def digest(request: SearchRequest, indexes: Sequence[str]) -> str:
    """What makes two requests pages of the same search."""
    # (not as JSON: a filter is not read yet, and may hold what has no form in it)
    members = request.model_dump(exclude=_SHOWN)
    text = json.dumps([list(indexes), members], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


async def asked_part(
    parts: Parts, generations: Sequence[Generation], request: SearchRequest, engine: Engine, answered: Answered
) -> Answer:
    """The part of the ranking that a request asks for; `generations` are those that are searched now."""
    if request.cursor is not None:
        return await _page(parts, generations, request, engine, answered)
    if not request.offset:
        return await answered(generations, engine, None)
    part = Part(request.offset, depth=max(request.candidates, request.size))
    answer = await answered(generations, engine, part)
    return answer | {"end": part.end}


async def _page(
    parts: Parts, generations: Sequence[Generation], request: SearchRequest, engine: Engine, answered: Answered
) -> Answer:
    """One page of a snapshot.

    Raises InvalidInput (`bad_cursor`, `cursor_mismatch`), NotFound (`cursor_expired`), Overloaded
    (`too_many_snapshots`).
    """
    kept = parts.settings.cursor_seconds
    asked = digest(request, [one.index for one in generations])
    key = parts.cursor_key("search", generations)
    if request.cursor == FIRST:
        parts.held.admit(parts.who.id)
        physical = [one.physical for one in generations]
        snapshot = await take(parts.search, physical, kept, near=parts.near)
        parts.held.keep(snapshot, kept, parts.who.id)
        depth = max(request.candidates, request.size)
        part = Part(by_place=not request.is_ranked_here, depth=depth)
    else:
        place = Place.read(request.cursor or "", key, asked)
        physical, snapshot = place.physical, Snapshot(place.snapshot, place.shards)
        generations = await _earlier(parts, generations, physical)
        part = Part(place.begin, place.by_place, place.after, place.skip, place.depth, rules=place.rules)
    within = InSnapshot(engine, snapshot.id, physical, kept, parts.settings.search_timeout)
    try:
        answer = await answered(generations, within, part)
    except SparsewellError as error:
        if request.cursor == FIRST or error.code == "cursor_expired":
            await _end(parts, snapshot.id)
        raise
    if part.end is not None:
        await _end(parts, snapshot.id)
        return answer | {"cursor": None, "end": part.end}
    now = Snapshot(within.snapshot, snapshot.shards)
    if now != snapshot:
        parts.held.drop(snapshot.id)
    parts.held.keep(now, kept, parts.who.id)
    place = Place(
        asked,
        list(physical),
        now.id,
        now.shards,
        part.depth,
        part.by_place,
        part.begin,
        part.after,
        part.skip,
        part.rules,
    )
    return answer | {"cursor": place.cursor(key), "end": None}


async def _earlier(parts: Parts, active: Sequence[Generation], physical: Sequence[str]) -> list[Generation]:
    """The generations that the first page was of: a swap meanwhile changes nothing for the pages after it."""
    try:
        return [await parts.generation_of(now.index, one) for now, one in zip(active, physical, strict=True)]
    except NotFound:
        raise cursor_expired() from None


async def _end(parts: Parts, snapshot: str) -> None:
    parts.held.drop(snapshot)
    await let_go(parts.search, snapshot)
