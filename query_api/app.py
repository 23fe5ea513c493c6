"""The application factory of the query API.

`create_app` builds the FastAPI application: the middleware, the routes, the search page and the OpenAPI document.
The document describes every error as problem+json (RFC 9457), in place of the framework's own schemas.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI

from query_api.access.gate import OPERATION_SCOPES, PUBLIC_OPERATION, AuthenticationMiddleware, authorise_request
from query_api.access.oidc import TokenIssuer
from query_api.app_state import AppState
from query_api.routes.chapters import talk_router
from query_api.routes.curation import curation_router
from query_api.routes.documents import dead_letters_router, documents_router
from query_api.routes.health import health_router, status_router
from query_api.routes.indexes import encoders_router, export_router, indexes_router
from query_api.routes.json_route import check_parameters
from query_api.routes.keys import keys_router
from query_api.routes.page import mount_page
from query_api.routes.search import add_search_routes, queries_router, suggest_router
from query_api.schemas.resources import Problem
from services.access.api_keys import read_key_file, resolve_access_mode
from services.settings import Settings
from services.web.http_auth import AllowedHosts
from services.web.middleware import (
    MAX_JSON_VALUES,
    BodyLimitMiddleware,
    HeadMiddleware,
    ObservabilityMiddleware,
)
from services.web.problems import add_handlers

_PROBLEM_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
# FastAPI documents its own validation errors. `services.web.problems` answers them as problem+json instead.
_FRAMEWORK_SCHEMAS = ("HTTPValidationError", "ValidationError")

_ACCESS_RESPONSES = {"401": "Unauthorized", "403": "Forbidden", "429": "Too Many Requests"}
# Paths whose request bodies have the larger limit.
_DOCUMENTS_PATH = re.compile(r"/v1/indexes/[^/]+/documents(/|$)")


def create_app(settings: Settings) -> FastAPI:
    """Create the REST service with the search page.

    Loads the query table. Opens no connection before the first request. Raises ConfigurationError when files of the
    encoder are missing or changed, and when the service would be open to other machines without the setting for it.
    """
    mode = resolve_access_mode(settings)
    issuer = TokenIssuer(settings) if mode == "keys" and settings.oidc_issuer else None
    admin_keys = read_key_file(settings.admin_key_file, "SPARSEWELL_ADMIN_KEY_FILE")
    state = AppState(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.app_state = state
        yield
        await state.close()
        if issuer is not None:
            await issuer.close()

    app = ApiApplication(
        title="sparsewell",
        version=version("sparsewell"),
        summary="Learned sparse search on OpenSearch with no model on the query side",
        lifespan=lifespan,
        # The framework's documentation pages load scripts from another host. /openapi.json stays.
        docs_url=None,
        redoc_url=None,
        # `ObservabilityMiddleware` counts and traces requests. The framework's own telemetry would do it once more.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        dependencies=[Depends(authorise_request), Depends(check_parameters)],
    )
    app.state.readiness = state.readiness
    # A filter may have more values if the operator allows it, beside the rest of its search.
    values = max(MAX_JSON_VALUES, settings.max_filter_values + 1000)
    app.add_middleware(BodyLimitMiddleware, large=_DOCUMENTS_PATH, values=values)
    app.add_middleware(
        AuthenticationMiddleware,
        mode=mode,
        ring=state.keys,
        admin_keys=admin_keys,
        limiter=state.limiter,
        issuer=issuer,
        # A browser that another page leads here sends no key, so keys protect without a list of names.
        hosts=AllowedHosts(settings.allowed_hosts, any_by_default=mode == "keys"),
    )
    app.add_middleware(HeadMiddleware)
    # The middleware added last is the outermost. It observes the answers of all others.
    app.add_middleware(ObservabilityMiddleware, log_requests=settings.log_requests)
    add_handlers(app)
    add_search_routes(app)
    for router in (
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


class ApiApplication(FastAPI):
    """A FastAPI application with a corrected OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, which is built once.

        A test sends generated requests to every operation and validates the answers against it.
        """
        if self.openapi_schema is None:
            self.openapi_schema = _document_problems(super().openapi())
        return self.openapi_schema


def _document_problems(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document["components"]["schemas"]
    for name in _FRAMEWORK_SCHEMAS:
        schemas.pop(name, None)
    schemas.setdefault("Problem", Problem.model_json_schema())
    document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    for operations in document["paths"].values():
        for operation in operations.values():
            if OPERATION_SCOPES[operation["operationId"]] is not PUBLIC_OPERATION:
                operation["security"] = [{"bearer": []}, {}]  # `{}`: an open service takes no key
                for status, name in _ACCESS_RESPONSES.items():
                    operation["responses"].setdefault(status, {"description": name})
            if "requestBody" in operation:  # a body of another type, or compressed (services.web.json_bodies)
                operation["responses"].setdefault("415", {"description": "Unsupported Media Type"})
            for status, answer in operation["responses"].items():
                if status.startswith(("4", "5")):
                    answer["content"] = _PROBLEM_CONTENT
                    if answer["description"] == "Validation Error":
                        answer["description"] = "Unprocessable Entity"
    return document
