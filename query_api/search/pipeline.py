"""Entry points of a search, of one index or of several.

`search` and `search_across` validate the request, look the generations up, find the page and run the stages within the
deadline. A search sends at most two requests to OpenSearch, unless it asks for feedback or for a model.
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
from query_api.search.multi_index import check_across, common_score_by
from query_api.search.page_state import PageState
from query_api.search.paging import answer_page
from query_api.search.stages import Response, respond, run_stages, with_query
from query_api.search.validation import check_request, parse_selection
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

    `engine`: shared with other searches of a batch; None: the process's own. `proposed`: curation rules to try in place
    of the rules stored with the index. Raises InvalidInput (codes of `check_request` and `parse_selection`),
    BackendUnavailable (`opensearch_timeout`) and NotFound (`index_not_found`).
    """
    check_request(request, app.settings)
    if request.like and not request.query.strip():
        # Examples alone give the lexical list no words: the search is sparse, and the response names that mode.
        request = request.model_copy(update={"mode": "sparse"})

    async def run(prefer_local: bool) -> Response:
        generation = await app.generation(index, prefer_local=prefer_local)
        response = await _answer(app, [generation], request, engine, proposed)
        # Searches of a batch and trials of rules are not typed by a user.
        if request.learn and response["hits"] and request.is_first and engine is None and proposed is None:
            app.query_log.note(generation, request.query, principal=app.principal)
        return response

    return await in_time(app, [index], run)


async def search_across(app: AppState, request: AcrossRequest, engine: Engine | None = None) -> Response:
    """Answer a search of several indexes as one index with all their documents would answer it.

    An index that cannot be searched is an error that names the index; no index is left out silently. Raises
    InvalidInput (`too_many_indexes`, `repeated_index`, `not_across_indexes`), the errors of a search of one index, and
    `bad_sort` and `bad_facet` for a field that the indexes declare as different types.
    """
    check_across(request, app.settings)

    async def run(prefer_local: bool) -> Response:
        lookups = (app.generation(index, prefer_local=prefer_local) for index in request.indexes)
        generations = []
        for generation in await asyncio.gather(*lookups, return_exceptions=True):
            if isinstance(generation, BaseException):
                raise generation
            generations.append(generation)
        return await _answer(app, generations, request, engine)

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
    engine: Engine | None,
    proposed: CompiledRules | None = None,
) -> Response:
    """Find the page that the request asks for, run the stages for it and shape the response."""

    async def answer_one_page(
        generations: Sequence[Generation], engine: Engine, page: PageState | None
    ) -> tuple[Response, PageState | None]:
        stopwatch = Stopwatch()
        score_by = common_score_by(request, [generation.spec for generation in generations])
        contexts = [
            await _build_context(app, generation, request, score_by, engine, stopwatch, page, proposed)
            for generation in generations
        ]
        stopwatch.lap("encode")
        outcome = await run_stages(contexts)
        next_page = outcome.retrieved.page
        if next_page is not None and request.curation:
            next_page = replace(
                next_page, rules={context.generation.index: _rules_version(context) for context in contexts}
            )
        return await respond(outcome), next_page

    return await answer_page(app, generations, request, engine or app.engine, answer_one_page)


async def _build_context(
    app: AppState,
    generation: Generation,
    request: SearchRequest,
    score_by: ScoreBy,
    engine: Engine,
    stopwatch: Stopwatch,
    page: PageState | None,
    proposed: CompiledRules | None,
) -> SearchContext:
    """Validate the request against one generation's declaration; an error of several indexes names the index."""
    table = app.tables.of(generation)
    try:
        chosen = parse_selection(request, generation.spec, app.settings)
        rules = await rules_of(app.curations, generation, request, page, proposed)
        context = SearchContext(
            generation, table, request, app.settings, engine, stopwatch, chosen, score_by,
            page=page, principal=app.principal, model=app.model,
            targets=(generation.physical,) if isinstance(request, AcrossRequest) else (),
        )  # fmt: skip
        return with_query(context, rules)
    except InvalidInput as error:
        if not isinstance(request, AcrossRequest):
            raise
        raise InvalidInput(error.code, f"Index {generation.index!r}: {error.detail}", **error.extra) from None


def _rules_version(context: SearchContext) -> int:
    """Return the version of the curation rules that the search applied; 0: the index has none."""
    return 0 if context.curated is None else context.curated.matched.version
