"""Pages of a search over a point in time.

A cursor seals a digest of the request, the point in time and the position that the pages reached. API processes keep no
state of it, so any process can answer the next page (docs/decisions/0165). `PointInTimeEngine` reads lists and
documents as they were when the point in time was opened.
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
from services.errors import InvalidInput, NotFound, SparsewellError
from services.index_spec import Generation
from services.opensearch.analysis import TermsByWord
from services.opensearch.paging import (
    point_in_time_member,
    seal_cursor,
    unseal_cursor,
)
from services.opensearch.queries import Clause, SearchPlan, build_search_body

FIRST_PAGE = "*"
# The first member of every cursor. A later format will have another number, and is refused.
_CURSOR_FORMAT = 1
# Members that may differ from page to page: they change how hits are shown, not which hits they are.
_PAGE_MEMBERS = {"cursor", "size", "passage", "highlight", "explain", "fields", "did_you_mean", "learn"}
Answer = dict[str, Any]
# Answers one page of the ranking (None: its top) from the generations, by the engine; returns also the state after it.
AnswerPage = Callable[[Sequence[Generation], Engine, PageState | None], Awaitable[tuple[Answer, PageState | None]]]


async def answer_page(
    app: AppState, generations: Sequence[Generation], request: SearchRequest, engine: Engine, answer_one: AnswerPage
) -> Answer:
    """Answer the page that a request asks for. `generations`: the generations that searches read now."""
    if request.cursor is not None:
        return await _answer_cursor(app, generations, request, engine, answer_one)
    if not request.offset:
        answer, _ = await answer_one(generations, engine, None)
        return answer
    page = PageState(request.offset, depth=max(request.candidates, request.size))
    answer, next_page = await answer_one(generations, engine, page)
    return answer | {"end": None if next_page is None else next_page.end}


async def _answer_cursor(
    app: AppState, generations: Sequence[Generation], request: SearchRequest, engine: Engine, answer_one: AnswerPage
) -> Answer:
    """Answer one page of a point in time.

    Raises InvalidInput (`bad_cursor`, `cursor_mismatch`), NotFound (`cursor_expired`), Overloaded
    (`too_many_snapshots`).
    """
    kept = app.settings.cursor_seconds
    digest = request_digest(request, [generation.index for generation in generations])
    key = app.cursor_key("search", generations)
    if request.cursor == FIRST_PAGE:
        app.points_in_time.check_room(app.principal.id)
        physical = [generation.physical for generation in generations]
        opened = await open_point_in_time(app.search, physical, kept, prefer_local=app.prefer_local)
        app.points_in_time.record(opened, kept, app.principal.id)
        page = PageState(by_position=not request.is_ranked_by_api, depth=max(request.candidates, request.size))
    else:
        position = CursorPosition.read(request.cursor or "", key, digest)
        physical, opened = position.physical, PointInTime(position.point_in_time, position.shards)
        generations = await _pinned_generations(app, generations, physical)
        page = PageState(
            position.begin, position.by_position, position.after, position.skip, position.depth, rules=position.rules
        )
    pit_engine = PointInTimeEngine(engine, opened.id, physical, kept, app.settings.search_timeout)
    try:
        answer, next_page = await answer_one(generations, pit_engine, page)
    except SparsewellError as error:
        if request.cursor == FIRST_PAGE or error.code == "cursor_expired":
            await _close(app, opened.id)
        raise
    assert next_page is not None  # noqa: S101 (the request asks for a page)
    if next_page.end is not None:
        await _close(app, opened.id)
        return answer | {"cursor": None, "end": next_page.end}
    current = PointInTime(pit_engine.point_in_time, opened.shards)
    if current != opened:
        app.points_in_time.remove(opened.id)
    app.points_in_time.record(current, kept, app.principal.id)
    position = CursorPosition(
        digest=digest,
        physical=list(physical),
        point_in_time=current.id,
        shards=current.shards,
        depth=next_page.depth,
        by_position=next_page.by_position,
        begin=next_page.begin,
        after=next_page.after,
        skip=next_page.skip,
        rules=dict(next_page.rules),
    )
    return answer | {"cursor": position.cursor(key), "end": None}


async def _pinned_generations(app: AppState, active: Sequence[Generation], physical: Sequence[str]) -> list[Generation]:
    """Return the generations of the first page: a swap since then does not affect the later pages."""
    try:
        return [
            await app.generation_of(generation.index, name) for generation, name in zip(active, physical, strict=True)
        ]
    except NotFound:
        raise cursor_expired() from None


async def _close(app: AppState, point_in_time: str) -> None:
    """Close the point in time after its last page or an error."""
    app.points_in_time.remove(point_in_time)
    await close_point_in_time(app.search, point_in_time)


@dataclass(frozen=True, slots=True)
class CursorPosition:
    """The position that a cursor seals. `digest`: of the request; the rest as in `PointInTime` and `PageState`."""

    digest: str
    physical: list[str]
    point_in_time: str
    shards: int
    depth: int
    by_position: bool
    begin: int
    after: list[Any] | None
    skip: int
    rules: dict[str, int]

    def cursor(self, key: bytes) -> str:
        """Return the sealed cursor."""
        return seal_cursor([_CURSOR_FORMAT, *astuple(self)], key)

    @classmethod
    def read(cls, cursor: str, key: bytes, digest: str) -> Self:
        """Read a sealed cursor. Raises InvalidInput (`bad_cursor`, `cursor_mismatch`)."""
        try:
            cursor_format, *values = unseal_cursor(cursor, key)
            position = cls(*values) if cursor_format == _CURSOR_FORMAT else None
        except (ValueError, TypeError):
            position = None
        if position is None:
            raise InvalidInput("bad_cursor", "`cursor` was not issued by this search; `*` requests the first page.")
        if position.digest != digest:
            raise InvalidInput(
                "cursor_mismatch",
                "`cursor` belongs to another search: all but `size`, `passage`, `highlight`, `explain` and `fields` "
                "must stay as on the previous page; `*` begins again.",
            )
        return position


def request_digest(request: SearchRequest, indexes: Sequence[str]) -> str:
    """Return the digest of the members that must stay the same on all pages of a search."""
    # Pydantic's JSON would not do: the filter is not validated yet, and may contain values that it refuses.
    members = request.model_dump(exclude=_PAGE_MEMBERS)
    text = json.dumps([list(indexes), members], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


class PointInTimeEngine:
    """An engine over a point in time of some generations; each request extends its life.

    Raises NotFound (`cursor_expired`) once the point in time is gone: it expired, or a generation was removed.
    """

    def __init__(self, inner: Engine, point_in_time: str, physical: Sequence[str], kept: float, timeout: float) -> None:
        """`kept`: seconds until an unused point in time ends. `timeout`: seconds of one request."""
        self.point_in_time = point_in_time
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
        search = plan.body | point_in_time_member(self.point_in_time, self._kept)
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
