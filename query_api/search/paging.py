"""Pages of a search over a snapshot: a cursor says what was asked, of which snapshot, and how far the pages went.

API processes keep nothing of it, so any of them gives the next page. See docs/decisions/0165.

Lists and documents as they were when a snapshot was taken.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, Self

from query_api.app_state import AppState
from query_api.schemas.search_request import SearchRequest
from query_api.search.executor import Documents, Engine, Key, ListAnswer, Stopwatch, complete_hits
from query_api.search.page_state import PageState, PointInTime, close_point_in_time, open_point_in_time
from services.cursors import seal_cursor, unseal_cursor
from services.errors import InvalidInput, NotFound, SparsewellError
from services.index_spec import Generation
from services.opensearch.analysis import TermsByWord
from services.opensearch.point_in_time import point_in_time_member
from services.opensearch.queries import Clause, SearchPlan, build_search_body


class PointInTimeEngine:
    """An engine over a snapshot of some generations, which is kept longer by each request.

    Raises NotFound (`cursor_expired`) once it is gone: nobody asked for so long, or a generation was dropped.
    """

    def __init__(self, inner: Engine, snapshot: str, physical: Sequence[str], kept: float, timeout: float) -> None:
        """`kept` and `timeout` in seconds: until the snapshot ends when nobody asks, of one request."""
        self.snapshot = snapshot
        self._inner = inner
        self._index = ",".join(physical)
        self._kept = kept
        self._timeout = timeout

    async def lists(self, plans: Sequence[SearchPlan]) -> Sequence[ListAnswer]:
        try:
            answers = await self._inner.lists([self._within(plan) for plan in plans])
        except NotFound:
            raise cursor_expired() from None
        for answer in answers:
            if answer.get("status") == 404:
                raise cursor_expired()
            self.snapshot = answer.get("pit_id", self.snapshot)
        return answers

    async def documents(self, wanted: Sequence[Key], source: Sequence[str], *, realtime: bool = False) -> Documents:
        if realtime:  # there is nothing newer in a snapshot
            return {}
        ids = {"ids": {"values": sorted({one for _, one in wanted})}}
        # (an id may be in each of the indexes)
        search = build_search_body(ids, len(wanted) * (self._index.count(",") + 1), source, self._timeout)
        (answer,) = await self.lists([SearchPlan(self._index, search)])
        return {(hit["_index"], hit["_id"]): hit["_source"] for hit in complete_hits(answer, Stopwatch())}

    async def terms(self, index: str, field: str, words: Sequence[str]) -> TermsByWord:
        return await self._inner.terms(index, field, words)

    def _within(self, plan: SearchPlan) -> SearchPlan:
        search = plan.body | point_in_time_member(self.snapshot, self._kept)
        if plan.index != self._index:
            names = (plan.index or "").split(",")
            search["query"] = _restrict_to(names, search["query"])
            if "rescore" in search:  # (or words would be counted in the other indexes too)
                again = search["rescore"]["query"]
                query = again | {"rescore_query": _restrict_to(names, again["rescore_query"])}
                search["rescore"] = search["rescore"] | {"query": query}
        return replace(plan, index=None, body=search)


def _restrict_to(names: Sequence[str], query: Clause) -> Clause:
    """A query of some of the snapshot's indexes."""
    return {"bool": {"must": [query], "filter": [{"terms": {"_index": names}}]}}


def cursor_expired() -> NotFound:
    """The error for a page that is asked for too late."""
    return NotFound("cursor_expired", "The snapshot behind `cursor` is gone: begin again, with `*`.")


FIRST_PAGE = "*"
# The first member of every cursor; another one in a later release is none of ours.
_CURSOR_FORMAT = 1
# What may differ from page to page: it is of the hits that are shown, not of which they are.
_PAGE_MEMBERS = {"cursor", "size", "passage", "highlight", "explain", "fields", "did_you_mean", "learn"}

Answer = dict[str, Any]
# Searches the given generations on an engine for a page of the ranking (None: its top); returns the state after it.
AnswerPage = Callable[[Sequence[Generation], Engine, PageState | None], Awaitable[tuple[Answer, PageState | None]]]


@dataclass(frozen=True, slots=True)
class CursorPosition:
    """The position that a cursor seals. `asked`: digest of the request; others as in `PointInTime` and `PageState`."""

    asked: str
    physical: list[str]
    snapshot: str
    shards: int
    depth: int
    by_position: bool
    begin: int
    after: list[Any] | None
    skip: int
    rules: dict[str, int]

    def cursor(self, key: bytes) -> str:
        return seal_cursor([_CURSOR_FORMAT, *astuple(self)], key)

    @classmethod
    def read(cls, cursor: str, key: bytes, asked: str) -> Self:
        """Raises InvalidInput (`bad_cursor`, `cursor_mismatch`)."""
        try:
            form, *values = unseal_cursor(cursor, key)
            place = cls(*values) if form == _CURSOR_FORMAT else None
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


def request_digest(request: SearchRequest, indexes: Sequence[str]) -> str:
    """What makes two requests pages of the same search."""
    # (not as JSON: a filter is not read yet, and may hold what has no form in it)
    members = request.model_dump(exclude=_PAGE_MEMBERS)
    text = json.dumps([list(indexes), members], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


async def answer_page(
    app: AppState, generations: Sequence[Generation], request: SearchRequest, engine: Engine, answered: AnswerPage
) -> Answer:
    """Answer the page that a request asks for; `generations` are those that are searched now."""
    if request.cursor is not None:
        return await _answer_cursor(app, generations, request, engine, answered)
    if not request.offset:
        answer, _ = await answered(generations, engine, None)
        return answer
    page = PageState(request.offset, depth=max(request.candidates, request.size))
    answer, after = await answered(generations, engine, page)
    return answer | {"end": None if after is None else after.end}


async def _answer_cursor(
    app: AppState, generations: Sequence[Generation], request: SearchRequest, engine: Engine, answered: AnswerPage
) -> Answer:
    """Answer one page of a point in time.

    Raises InvalidInput (`bad_cursor`, `cursor_mismatch`), NotFound (`cursor_expired`), Overloaded
    (`too_many_snapshots`).
    """
    kept = app.settings.cursor_seconds
    asked = request_digest(request, [one.index for one in generations])
    key = app.cursor_key("search", generations)
    if request.cursor == FIRST_PAGE:
        app.held.admit(app.who.id)
        physical = [one.physical for one in generations]
        snapshot = await open_point_in_time(app.search, physical, kept, near=app.near)
        app.held.keep(snapshot, kept, app.who.id)
        page = PageState(by_position=not request.is_ranked_here, depth=max(request.candidates, request.size))
    else:
        place = CursorPosition.read(request.cursor or "", key, asked)
        physical, snapshot = place.physical, PointInTime(place.snapshot, place.shards)
        generations = await _pinned_generations(app, generations, physical)
        page = PageState(place.begin, place.by_position, place.after, place.skip, place.depth, rules=place.rules)
    within = PointInTimeEngine(engine, snapshot.id, physical, kept, app.settings.search_timeout)
    try:
        answer, after = await answered(generations, within, page)
    except SparsewellError as error:
        if request.cursor == FIRST_PAGE or error.code == "cursor_expired":
            await _close(app, snapshot.id)
        raise
    assert after is not None  # noqa: S101 (a page was asked for)
    if after.end is not None:
        await _close(app, snapshot.id)
        return answer | {"cursor": None, "end": after.end}
    now = PointInTime(within.snapshot, snapshot.shards)
    if now != snapshot:
        app.held.drop(snapshot.id)
    app.held.keep(now, kept, app.who.id)
    place = CursorPosition(
        asked=asked,
        physical=list(physical),
        snapshot=now.id,
        shards=now.shards,
        depth=after.depth,
        by_position=after.by_position,
        begin=after.begin,
        after=after.after,
        skip=after.skip,
        rules=dict(after.rules),
    )
    return answer | {"cursor": place.cursor(key), "end": None}


async def _pinned_generations(app: AppState, active: Sequence[Generation], physical: Sequence[str]) -> list[Generation]:
    """The generations that the first page was of: a swap meanwhile changes nothing for the pages after it."""
    try:
        return [await app.generation_of(now.index, one) for now, one in zip(active, physical, strict=True)]
    except NotFound:
        raise cursor_expired() from None


async def _close(app: AppState, snapshot: str) -> None:
    app.held.drop(snapshot)
    await close_point_in_time(app.search, snapshot)
