"""The application factory."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI

from query_api.access.gate import Gate
from query_api.access.oidc import Issuer
from query_api.access.operations import authorised
from query_api.openapi import Api
from query_api.page.routes import mount_page
from query_api.parts import AppState
from query_api.routes.curation import router as curation_router
from query_api.routes.dead import router as dead_letters_router
from query_api.routes.documents import router as documents_router
from query_api.routes.encoders import router as encoders_router
from query_api.routes.export import router as export_router
from query_api.routes.health import router as health_router
from query_api.routes.indexes import router as indexes_router
from query_api.routes.keys import router as keys_router
from query_api.routes.queries import router as queries_router
from query_api.routes.search import router as search_router
from query_api.routes.status import router as status_router
from query_api.routes.suggest import router as suggest_router
from query_api.routes.talk import router as talk_router
from services.access.mode import access_mode, read_keys
from services.settings import Settings
from services.web.body_limit import MOST_VALUES, BodyLimit
from services.web.observed import Observed
from services.web.problems import add_handlers

_DOCUMENTS = re.compile(r"/v1/indexes/[^/]+/documents(/|$)")


def create_app(settings: Settings) -> FastAPI:
    """The REST service and the search page. Reads the query table; connects to nothing before the first request.

    Raises ConfigurationError when the encoder's files are missing or changed, and when it would be open to others
    although nobody said so.
    """
    mode = access_mode(settings)
    issuer = Issuer(settings) if mode == "keys" and settings.oidc_issuer else None
    admin_keys = read_keys(settings.admin_key_file, "SPARSEWELL_ADMIN_KEY_FILE")
    state = AppState(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.app_state = state
        yield
        await state.close()
        if issuer is not None:
            await issuer.close()

    app = Api(
        title="sparsewell",
        version=version("sparsewell"),
        summary="Learned sparse search on OpenSearch with no model on the query side",
        lifespan=lifespan,
        # their pages load scripts from another host; /openapi.json stays
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(authorised)],
    )
    app.state.readiness = state.readiness
    app.add_middleware(BodyLimit, large=_DOCUMENTS, values=MOST_VALUES)
    app.add_middleware(
        Gate,
        mode=mode,
        ring=state.keys,
        admin_keys=admin_keys,
        limiter=state.limiter,
        issuer=issuer,
        unasked=settings.access == "auto",
    )
    # the last one is the outermost: it sees what all others answer
    app.add_middleware(Observed, log_requests=settings.log_requests)
    add_handlers(app)
    for router in (
        search_router,
        suggest_router,
        queries_router,
        documents_router,
        talk_router,
        dead_letters_router,
        curation_router,
        export_router,
        indexes_router,
        keys_router,
        encoders_router,
        health_router,
        status_router,
    ):
        app.include_router(router)
    mount_page(app)
    return app
