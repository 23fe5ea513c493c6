"""The short path of POST searches is a route: the same authorisation, template and refusals as any other."""

from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY

from query_api.app import create_app
from services.errors import Forbidden
from services.settings import Settings

PATH = "/v1/indexes/docs/search"


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    async def found(*given: Any) -> dict[str, Any]:
        return {"query": given[-1].query}

    monkeypatch.setattr("query_api.routes.search.search", found)
    app = create_app(Settings(encoder="standin", access="open"))
    app.state.app_state = SimpleNamespace(for_principal=lambda principal: None)
    return app


async def post(app: FastAPI, body: str, content_type: str = "application/json") -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        return await client.post(PATH, content=body, headers={"content-type": content_type})


def counted() -> float:
    labels = {"method": "POST", "route": "/v1/indexes/{index}/search", "status": "200"}
    return REGISTRY.get_sample_value("sparsewell_http_requests_total", labels) or 0.0


async def test_it_answers_and_counts_under_its_template(app: FastAPI) -> None:
    before = counted()
    answer = await post(app, '{"query": "x"}')
    assert (answer.status_code, answer.json()) == (200, {"query": "x"})
    assert counted() == before + 1


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
@pytest.mark.parametrize("body", ["{", '{"query": 1}', '{"more": 1}'])
async def test_a_refusal_has_one_wording(app: FastAPI, body: str, content_type: str) -> None:
    answer, other = await post(app, body, content_type), await post(app, body, "application/vnd.x+json")
    assert answer.status_code == 422
    assert answer.json() == other.json()


async def test_nobody_searches_unauthorised(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(request: object) -> None:
        raise Forbidden("index_forbidden", "This key may not read the index.")

    monkeypatch.setattr("query_api.routes.json_route.authorise_request", refuse)
    answer = await post(app, '{"query": "x"}')
    assert (answer.status_code, answer.json()["code"]) == (403, "index_forbidden")
