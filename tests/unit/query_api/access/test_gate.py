"""The required scopes of every operation."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.testclient import TestClient

from query_api.access.gate import OPERATION_SCOPES, PUBLIC_OPERATION, authorise_request
from query_api.app import create_app
from services.access.api_keys import generate_key
from services.settings import Settings

KEY = generate_key("a" * 16)
VALUES = {"index": "i", "document_id": "d", "key_id": "k", "job_id": "j", "name": "app.js", "version": 1}


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    file = tmp_path / "key"
    file.write_text(KEY)
    # No server listens on this address, and the test sends no request there.
    return create_app(Settings(encoder="standin", admin_key_file=str(file), opensearch_url="http://127.0.0.1:9"))


def routes(app: FastAPI) -> Iterator[APIRoute]:
    def walk(some: list[BaseRoute]) -> Iterator[APIRoute]:
        for one in some:
            if isinstance(one, APIRoute):
                yield one
            else:
                # The framework's own route (only the OpenAPI document), or a container of included routes.
                inner = getattr(getattr(one, "original_router", None), "routes", None)
                if inner is None:
                    assert getattr(one, "path", None) == "/openapi.json", one
                else:
                    yield from walk(inner)

    yield from walk(app.routes)


def test_the_scope_table_lists_exactly_the_routes(app: FastAPI) -> None:
    assert {one.operation_id or one.path for one in routes(app)} == set(OPERATION_SCOPES)


def test_without_credentials_only_public_routes_answer(app: FastAPI) -> None:
    public = {name for name, rule in OPERATION_SCOPES.items() if rule is PUBLIC_OPERATION}
    assert public == {"/", "/operate", "/favicon.ico", "/static/{name}", "live", "ready"}
    client = TestClient(app, raise_server_exceptions=False)
    with client:
        for one in list(routes(app)):
            for method in one.methods or ():
                path = one.path.replace(":path", "").format(**VALUES)
                answer = client.request(method, path)
                name = one.operation_id or one.path
                if name not in public:
                    assert (answer.status_code, answer.json()["code"]) == (401, "no_credentials"), name
                    assert answer.headers["www-authenticate"] == 'Bearer realm="sparsewell"'
                else:
                    assert answer.status_code not in (401, 403), name


def test_an_unlisted_route_is_refused(app: FastAPI) -> None:
    @app.get("/v1/forgotten", operation_id="forgotten")
    async def forgotten() -> dict[str, str]:
        return {"secret": "shown"}

    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.get("/v1/forgotten", headers={"authorization": f"Bearer {KEY}"})
        assert answer.status_code == 500 and "shown" not in answer.text
    assert authorise_request in [one.dependency for one in app.router.dependencies]
