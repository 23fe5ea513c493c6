"""Entry points of a search, of one index or of several.

`search` and `search_multi_index` validate the request, look the generations up, find the page and run the stages within
the deadline. A search sends at most two requests to OpenSearch, unless it asks for feedback or for a model. A search
with a cursor reads its pages from a point in time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from query_api.app_state import AppState
from query_api.points_in_time import (
    PointInTime,
    PointInTimeExecutor,
    close_point_in_time,
    cursor_expired,
    open_point_in_time,
)
from query_api.schemas.search_request import MultiIndexRequest, SearchRequest
from query_api.search.context import SearchContext
from query_api.search.executor import Executor, Stopwatch
from query_api.search.multi_index import check_multi_index, common_score_by
from query_api.search.page_state import FIRST_PAGE, CursorPosition, PageState, request_digest
from query_api.search.stages import Response, build_context, respond, run_stages
from query_api.search.validation import check_request
from services.curation.matching import CompiledRules
from services.encoders.query_table import QueryTable
from services.errors import BackendUnavailable, InvalidInput, NotFound, SparsewellError
from services.index_spec import Generation, ScoreBy

# Answers one page of the ranking (None: its top) from the generations by the executor, and returns the state after it.
AnswerPage = Callable[[Sequence[Generation], Executor, PageState | None], Awaitable[tuple[Response, PageState | None]]]


async def search(
    app: AppState,
    index: str,
    request: SearchRequest,
    executor: Executor | None = None,
    proposed: CompiledRules | None = None,
) -> Response:
    """Answer a search of one index.

    `executor`: shared with other searches of a batch; None: the process's own. `proposed`: curation rules to try in
    place of the rules stored with the index. Raises InvalidInput (codes of `check_request` and `parse_selection`),
    BackendUnavailable (`opensearch_timeout`) and NotFound (`index_not_found`).
    """
    check_request(request, app.settings)
    if request.like and not request.query.strip():
        # Examples alone give the lexical list no words: the search is sparse, and the response names that mode.
        request = request.model_copy(update={"mode": "sparse"})

    async def run(prefer_local: bool) -> Response:
        generation = await app.generation(index, prefer_local=prefer_local)
        response = await _answer(app, [generation], request, executor, proposed)
        # Searches of a batch and trials of rules are not typed by a user.
        if request.learn and response["hits"] and request.is_first and executor is None and proposed is None:
            app.query_log.note(generation, request.query, principal=app.principal)
        return response

    return await in_time(app, [index], run)


async def search_multi_index(app: AppState, request: MultiIndexRequest, executor: Executor | None = None) -> Response:
    """Answer a search of several indexes as one index with all their documents would answer it.

    An index that cannot be searched is an error that names the index; no index is left out silently. Raises
    InvalidInput (`too_many_indexes`, `repeated_index`, `not_across_indexes`), the errors of a search of one index, and
    `bad_sort` and `bad_facet` for a field that the indexes declare as different types.
    """
    check_multi_index(request, app.settings)

    async def run(prefer_local: bool) -> Response:
        lookups = (app.generation(index, prefer_local=prefer_local) for index in request.indexes)
        generations = []
        for generation in await asyncio.gather(*lookups, return_exceptions=True):
            if isinstance(generation, BaseException):
                raise generation
            generations.append(generation)
        return await _answer(app, generations, request, executor)

    return await in_time(app, request.indexes, run)


async def in_time(app: AppState, indexes: Sequence[str], run: Callable[[bool], Awaitable[Response]]) -> Response:
    """Return the response of `run` within the deadline of a search.

    `run` looks the indexes up itself (`prefer_local` as in `AppState.generation`). A remembered generation may have
    been swapped out and removed since: then `run` is called a second time, without the memory. Raises
    BackendUnavailable (`opensearch_timeout`).
    """
    try:
        async with asyncio.timeout(app.settings.search_timeout):
            try:
                return await run(True)
            except NotFound as error:
                if error.code != "index_not_found":
                    raise
                for index in indexes:
                    app.forget(index)
                return await run(False)
    except TimeoutError:
        raise deadline_error() from None


def deadline_error() -> BackendUnavailable:
    """Return the error of a search that reached its deadline."""
    return BackendUnavailable("opensearch_timeout", "OpenSearch did not answer in time.")


async def _answer(
    app: AppState,
    generations: Sequence[Generation],
    request: SearchRequest,
    executor: Executor | None,
    proposed: CompiledRules | None = None,
) -> Response:
    """Answer the page that the request asks for. `generations`: the generations that searches read now."""
    executor = executor or app.executor
    answer_page = partial(_answer_page, app, request, proposed)
    if request.cursor is not None:
        return await _answer_cursor(app, generations, request, executor, answer_page)
    if not request.offset:
        response, _ = await answer_page(generations, executor, None)
        return response
    page = PageState(request.offset, depth=max(request.candidates, request.size))
    response, next_page = await answer_page(generations, executor, page)
    return response | {"end": None if next_page is None else next_page.end}


async def _answer_page(
    app: AppState,
    request: SearchRequest,
    proposed: CompiledRules | None,
    generations: Sequence[Generation],
    executor: Executor,
    page: PageState | None,
) -> tuple[Response, PageState | None]:
    """Run the stages for one page (None: the top of the ranking); also return the state after the page."""
    stopwatch = Stopwatch()
    score_by = common_score_by(request, [generation.spec for generation in generations])
    contexts = [
        await _build_index_context(app, generation, table, request, score_by, executor, stopwatch, page, proposed)
        for generation, table in zip(generations, app.tables.of_all(generations), strict=True)
    ]
    stopwatch.lap("encode")
    result = await run_stages(contexts)
    next_page = result.retrieved.page
    if next_page is not None and request.curation:
        next_page = replace(
            next_page, rules={context.generation.index: _rules_version(context) for context in contexts}
        )
    return await respond(result), next_page


async def _build_index_context(  # noqa: PLR0913, PLR0917 (each is a part of the context)
    app: AppState,
    generation: Generation,
    table: QueryTable,
    request: SearchRequest,
    score_by: ScoreBy,
    executor: Executor,
    stopwatch: Stopwatch,
    page: PageState | None,
    proposed: CompiledRules | None,
) -> SearchContext:
    """Validate the request against one generation's declaration; an error of several indexes names the index."""
    try:
        return await build_context(
            generation, table, request, app.settings, executor, stopwatch, score_by, app.curations,
            page=page, proposed=proposed, principal=app.principal, model=app.model,
            dense=None if request.rerank is None else app.tables.dense(generation),
        )  # fmt: skip
    except InvalidInput as error:
        if not request.is_multi_index:
            raise
        raise InvalidInput(error.code, f"Index {generation.index!r}: {error.detail}", **error.extra) from None


def _rules_version(context: SearchContext) -> int:
    """Return the version of the curation rules that the search applied; 0: the index has none."""
    return 0 if context.curated is None else context.curated.matched.version


async def _answer_cursor(
    app: AppState,
    generations: Sequence[Generation],
    request: SearchRequest,
    executor: Executor,
    answer_page: AnswerPage,
) -> Response:
    """Answer one page of a point in time.

    Raises InvalidInput (`bad_cursor`, `cursor_mismatch`), NotFound (`cursor_expired`), Overloaded
    (`too_many_snapshots`).
    """
    keep_alive = app.settings.cursor_seconds
    digest = request_digest(request, [generation.index for generation in generations])
    key = app.cursor_key("search", generations)
    if request.cursor == FIRST_PAGE:
        app.points_in_time.check_room(app.principal.id)
        physical = [generation.physical for generation in generations]
        opened = await open_point_in_time(app.search, physical, keep_alive, prefer_local=app.prefer_local)
        app.points_in_time.record(opened, keep_alive, app.principal.id)
        page = PageState(by_position=not request.is_ranked_by_api, depth=max(request.candidates, request.size))
    else:
        position = CursorPosition.read(request.cursor or "", key, digest)
        physical, opened = position.physical, PointInTime(position.point_in_time, position.shards)
        generations = await _pinned_generations(app, generations, position)
        page = PageState(
            position.begin, position.by_position, position.after, position.skip, position.depth, rules=position.rules
        )
    pit_executor = PointInTimeExecutor(executor, opened.id, physical, keep_alive, app.settings.search_timeout)
    try:
        response, next_page = await answer_page(generations, pit_executor, page)
    except SparsewellError as error:
        if request.cursor == FIRST_PAGE or error.code == "cursor_expired":
            await _close(app, opened.id)
        raise
    assert next_page is not None  # noqa: S101 (the request asks for a page)
    if next_page.end is not None:
        await _close(app, opened.id)
        return response | {"cursor": None, "end": next_page.end}
    current = PointInTime(pit_executor.point_in_time, opened.shards)
    if current != opened:
        app.points_in_time.remove(opened.id)
    app.points_in_time.record(current, keep_alive, app.principal.id)
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
        frequencies=[generation.frequencies for generation in generations],
    )
    return response | {"cursor": position.cursor(key), "end": None}


async def _pinned_generations(
    app: AppState, active: Sequence[Generation], position: CursorPosition
) -> list[Generation]:
    """Return the generations of the first page, with its piece frequencies.

    A swap or a count since then does not affect the later pages.
    """
    versions = position.frequencies or [0] * len(position.physical)
    try:
        pinned = [
            (await app.generation_of(generation.index, name)).model_copy(update={"frequencies": version})
            for generation, name, version in zip(active, position.physical, versions, strict=True)
        ]
        for generation in pinned:
            await app.tables.prepare(generation, app.unrestricted_search, app.names)
    except NotFound:
        raise cursor_expired() from None
    return pinned


async def _close(app: AppState, point_in_time: str) -> None:
    """Close the point in time after its last page or an error."""
    app.points_in_time.remove(point_in_time)
    await close_point_in_time(app.search, point_in_time)
