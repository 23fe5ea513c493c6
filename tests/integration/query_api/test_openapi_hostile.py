"""Generate valid and invalid requests for every operation of the OpenAPI document.

The server has no faults, and every response matches the document.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation.hypothesis.builder import HypothesisTestConfig, HypothesisTestMode, create_test
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from indexer.encode_task import run_encode
from indexer.runtime import Runtime, WorkerSettings
from query_api.ingest.job_progress import DEFAULT_WAIT_SECONDS
from services.queue.messages import EncodeMessage
from services.settings import Settings

DOCUMENT = json.loads((Path(__file__).parents[3] / "docs" / "api" / "openapi.json").read_text())
GROUPS = ("FilterAll-Input", "FilterAny-Input", "FilterNot-Input")


def with_shallow_filters(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with filters whose nested filters hold conditions only, instead of endless nesting.

    Three of four generated requests differed only in the third and fourth level of a filter.
    tests/congruence/test_filters.py and tests/unit/services/filters/test_parsing.py test deep filters. Responses use
    other schemas.
    """
    schemas = document["components"]["schemas"]
    condition = {"$ref": "#/components/schemas/FilterCondition"}
    inner = {}
    for name in GROUPS:
        outer = json.dumps(schemas[name])
        inner[f"{name}-Inner"] = one = json.loads(outer)
        (part,) = one["properties"].values()
        part.get("items", part)["anyOf"] = [condition]
        schemas[name] = json.loads(outer.replace('-Input"}', '-Input-Inner"}'))
    return {**document, "components": {**document["components"], "schemas": schemas | inner}}


@schemathesis.serializer("application/x-ndjson")
def ndjson(_context: schemathesis.SerializationContext, value: object) -> object:
    """Return generated lines as they are, and other values as one line of JSON."""
    return value if isinstance(value, str | bytes) else json.dumps(value)


def without_groups(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with filters of one condition.

    One operation gets requests with groups of conditions. The others share its model of a filter, and half of their
    requests differed only in the groups.
    """
    text = json.dumps(document)
    for name in GROUPS:
        text = text.replace(f'"#/components/schemas/{name}"', '"#/components/schemas/FilterCondition"')
    found: dict[str, Any] = json.loads(text)
    return found


WITH_GROUPS = "POST /v1/indexes/{index}/search"
SCHEMA = schemathesis.openapi.from_dict(with_shallow_filters(DOCUMENT))
PLAIN_SCHEMA = schemathesis.openapi.from_dict(without_groups(DOCUMENT))
OPERATIONS = [found.ok().label for found in SCHEMA.get_all_operations()]
SETTINGS = hypothesis_settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
BOOKS = [
    {
        "id": f"b{n}",
        "title": f"Book {n}",
        "text": f"A captain, a whale and {n} ships.",
        "metadata": {"year": n, "lang": "en"},
    }
    for n in range(20)
]


@pytest.fixture(scope="module")
def address(new_service: Callable[..., AbstractContextManager[tuple[httpx.Client, Settings]]]) -> Iterator[str]:
    """Yield the address of an API with an index of encoded documents."""
    with new_service() as (client, settings):
        fields = {"year": "number", "lang": "keyword", "day": "date", "note": "text", "good": "boolean"}
        client.put("/v1/indexes/books", json={"fields": fields}).raise_for_status()
        client.post("/v1/indexes/books/documents", json=BOOKS).raise_for_status()
        runtime = Runtime(settings, WorkerSettings())
        done = run_encode(
            runtime,
            EncodeMessage(index="books", generation=1, ids=tuple(one["id"] for one in BOOKS)),
            redelivered=False,
        )
        assert done["encoded"] == len(BOOKS)
        runtime.search.close()
        yield f"http://{settings.api_host}:{settings.api_port}"


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """Yield a connection for thousands of requests."""
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.mark.parametrize("label", OPERATIONS)
def test_no_request_finds_a_fault(label: str, address: str, session: requests.Session) -> None:
    """Most requests go to an existing index, because a request to a missing index reaches little code.

    The requests are made up here. `schema.parametrize()` would make up the requests of all operations when a process
    collects the tests, which takes 10 s of processor time in each process.
    """

    def answers_as_documented(case: schemathesis.Case) -> None:
        if "index" in case.path_parameters and case.operation.definition.raw["operationId"] not in DESTRUCTIVE:
            case.path_parameters["index"] = "books"
        # No worker runs, so a write that waits would take all of its time.
        seconds = str(case.query.get("wait_seconds", DEFAULT_WAIT_SECONDS))
        if "wait" in case.query and re.fullmatch(r"\d+(\.\d+)?", seconds):
            case.query["wait_seconds"] = 1
        case.call_and_validate(base_url=address, session=session, checks=CHECKS)

    schema = SCHEMA if label == WITH_GROUPS else PLAIN_SCHEMA
    (operation,) = schema.include(name=label).get_all_operations()
    config = HypothesisTestConfig(schema.config, list(HypothesisTestMode), explicit_settings=SETTINGS)
    create_test(operation=operation.ok(), test_func=answers_as_documented, config=config)()


DESTRUCTIVE = {"create_index", "delete_index"}
