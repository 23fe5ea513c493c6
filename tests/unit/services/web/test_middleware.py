"""Metrics, request ids and access logs of the middleware, by route template."""

import json
import logging
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI, Request
from prometheus_client import REGISTRY

from services.errors import Overloaded
from services.telemetry.logs import JsonFormatter, accept_request_id, current_log_context
from services.web.middleware import ObservabilityMiddleware
from services.web.problems import add_handlers


@pytest.fixture
def client() -> Iterator[httpx.AsyncClient]:
    app = FastAPI()
    add_handlers(app)

    @app.get("/v1/indexes/{index}/things/{thing}")
    async def thing(index: str, thing: str, request: Request) -> dict[str, str]:
        if thing == "broken":
            raise RuntimeError("secret")
        if thing == "full":
            raise Overloaded("queue_full", "Too much.")
        return dict(current_log_context())

    app.add_middleware(ObservabilityMiddleware, log_requests=True)
    yield httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://test")


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


ROUTE = "/v1/indexes/{index}/things/{thing}"


async def test_requests_are_counted_by_template_and_status(client: httpx.AsyncClient) -> None:
    def seen(status: str, route: str = ROUTE, method: str = "GET") -> float:
        return value("sparsewell_http_requests_total", method=method, route=route, status=status)

    before = seen("200"), seen("500"), seen("429"), seen("404", "unmatched"), seen("405", ROUTE, "other")
    for path in ("a/things/1", "b/things/2", "a/things/broken", "a/things/full", "x/nothing/here"):
        await client.get(f"/v1/indexes/{path}")
    await client.request("BREW", "/v1/indexes/a/things/1")
    after = seen("200"), seen("500"), seen("429"), seen("404", "unmatched"), seen("405", ROUTE, "other")
    assert [now - then for now, then in zip(after, before, strict=True)] == [2, 1, 1, 1, 1]
    assert value("sparsewell_http_requests_in_progress") == 0
    labels = {label for family in REGISTRY.collect() for sample in family.samples for label in sample.labels.values()}
    assert not labels & {"/v1/indexes/a/things/1", "x/nothing/here", "BREW"}


async def test_errors_are_counted_by_code(client: httpx.AsyncClient) -> None:
    before = value("sparsewell_problems_total", code="queue_full")
    await client.get("/v1/indexes/a/things/full")
    assert value("sparsewell_problems_total", code="queue_full") == before + 1


@pytest.mark.parametrize("given", ["abc-1.2_3", "A" * 128])
async def test_a_well_formed_request_id_is_accepted_and_returned(client: httpx.AsyncClient, given: str) -> None:
    answer = await client.get("/v1/indexes/a/things/1", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] == given
    assert answer.json() == {"request_id": given, "index": "a"}


@pytest.mark.parametrize("given", ["", "a b", "a\tb", "é", "A" * 129, '{"a":1}', "a;b"])
async def test_any_other_request_id_is_replaced(client: httpx.AsyncClient, given: str) -> None:
    answer = await client.get("/v1/indexes/a/things/1", headers={"x-request-id": given.encode("latin-1")})
    made = answer.headers["x-request-id"]
    assert made != given
    assert accept_request_id(made) == made


async def test_an_unexpected_error_has_a_request_id_and_no_details(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/indexes/a/things/broken", headers={"x-request-id": "mine"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine")
    assert "secret" not in answer.text


async def test_the_access_log_names_the_route_instead_of_the_path(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    lines: list[str] = []
    # Format each record when it is logged, because its context is known only then.
    monkeypatch.setattr(caplog.handler, "emit", lambda record: lines.append(JsonFormatter("api").format(record)))
    await client.get("/v1/indexes/Not%20One/things/hidden?q=query+text", headers={"x-request-id": "mine"})
    (line,) = [json.loads(line) for line in lines if "sparsewell.access" in line]
    assert line["request_id"] == "mine"
    assert (line["method"], line["route"], line["status"]) == ("GET", ROUTE, 200)
    assert line["ms"] > 0
    assert "index" not in line, "a name that no index can have is not repeated"
    ours = [line for line in lines if '"httpx"' not in line]  # httpx is the client of this test
    assert not any(word in str(ours) for word in ("hidden", "query", "Not One"))
