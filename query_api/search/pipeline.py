"""Answer a search of one index or of several: look the generations up, find the page, run the stages in time.

At most two requests are sent to OpenSearch, unless feedback or a model is asked for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from query_api.app_state import AppState
from query_api.schemas.search_request import SearchRequest
from query_api.schemas.search_response import AcrossRequest
from query_api.search.context import SearchContext
from query_api.search.curation import rules_of
from query_api.search.executor import Engine, Stopwatch
from query_api.search.multi_index import checked_across, common_score_by
from query_api.search.page_state import PageState
from query_api.search.paging import paged
from query_api.search.stages import Response, respond, run_stages, with_query
from query_api.search.validation import checked, selection
from services.curation.matching import CompiledRules
from services.errors import BackendUnavailable, InvalidInput, NotFound
from services.index_spec import Generation, ScoreBy


async def search(
    app: AppState,
    index: str,
    request: SearchRequest,
    engine: Engine | None = None,
    proposed: CompiledRules | None = None,
) -> Response:
    """Answer a search of one index.

    `engine`: shared with other searches; None: the process's own. `proposed`: curation rules in place of those stored
    with the index.
    """
    checked(request, app.settings)
    if request.like and not request.query.strip():
        # Without words there is no lexical list to ask for, and the response says so.
        request = request.model_copy(update={"mode": "sparse"})

    async def of(near: bool) -> Response:
        generation = await app.generation(index, near=near)
        response = await _answered(app, [generation], request, engine, proposed)
        # (a batch, and rules that are tried, are not a user's own search)
        if request.learn and response["hits"] and request.is_first and engine is None and proposed is None:
            app.learning.note(generation, request.query, who=app.who)
        return response

    return await in_time(app, [index], of)


async def search_across(app: AppState, request: AcrossRequest, engine: Engine | None = None) -> Response:
    """Answer a search of several indexes as one index with all their documents would answer it.

    An index that cannot be searched is an error that names it; it is never left out. Raises InvalidInput
    (`too_many_indexes`, `repeated_index`, `not_across_indexes`), the errors of each index alone, and `bad_sort` and
    `bad_facet` for a field that the indexes declare as different types.
    """
    checked_across(request, app.settings)

    async def of(near: bool) -> Response:
        looking = (app.generation(index, near=near) for index in request.indexes)
        generations = []
        for found in await asyncio.gather(*looking, return_exceptions=True):
            if isinstance(found, BaseException):
                raise found
            generations.append(found)
        return await _answered(app, generations, request, engine)

    return await in_time(app, request.indexes, of)


async def in_time(app: AppState, indexes: Sequence[str], of: Callable[[bool], Awaitable[Response]]) -> Response:
    """Return the response of `of` within the deadline of a search.

    `of` looks the indexes up itself (`near` as in `AppState.generation`). It runs once more when a remembered
    generation was swapped and removed meanwhile. Raises BackendUnavailable (`opensearch_timeout`).
    """
    try:
        async with asyncio.timeout(app.settings.search_timeout):
            try:
                return await of(True)
            except NotFound as error:
                if error.code != "index_not_found":
                    raise
                for index in indexes:
                    app.forget(index)
                return await of(False)
    except TimeoutError:
        raise late() from None


def late() -> BackendUnavailable:
    """Return the error for a search that reached its deadline."""
    return BackendUnavailable("opensearch_timeout", "OpenSearch did not answer in time.")


async def _answered(
    app: AppState,
    generations: Sequence[Generation],
    request: SearchRequest,
    engine: Engine | None,
    proposed: CompiledRules | None = None,
) -> Response:
    async def of_page(
        generations: Sequence[Generation], engine: Engine, page: PageState | None
    ) -> tuple[Response, PageState | None]:
        watch = Stopwatch()
        score_by = common_score_by(request, [one.spec for one in generations])
        contexts = [await _context(app, one, request, score_by, engine, watch, page, proposed) for one in generations]
        watch.lap("encode")
        outcome = await run_stages(contexts)
        after = outcome.retrieved.page
        if after is not None and request.curation:
            after = replace(after, rules={one.generation.index: _version(one) for one in contexts})
        return await respond(outcome), after

    return await paged(app, generations, request, engine or app.engine, of_page)


async def _context(
    app: AppState,
    generation: Generation,
    request: SearchRequest,
    score_by: ScoreBy,
    engine: Engine,
    watch: Stopwatch,
    page: PageState | None,
    proposed: CompiledRules | None,
) -> SearchContext:
    table = app.tables.of(generation)
    try:
        chosen = selection(request, generation.spec, app.settings)
        rules = await rules_of(app.curations, generation, request, page, proposed)
        context = SearchContext(
            generation, table, request, app.settings, engine, watch, chosen, score_by,
            page=page, who=app.who, model=app.model,
            targets=(generation.physical,) if isinstance(request, AcrossRequest) else (),
        )  # fmt: skip
        return with_query(context, rules)
    except InvalidInput as error:
        if not isinstance(request, AcrossRequest):
            raise
        raise InvalidInput(error.code, f"Of the index {generation.index!r}: {error.detail}", **error.extra) from None


def _version(context: SearchContext) -> int:
    """Return the version of the curation rules that held for the search; 0: the index has none."""
    return 0 if context.curated is None else context.curated.matched.version
