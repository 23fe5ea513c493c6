"""The models of the Python client equal those of docs/api/openapi.json: members, types, defaults, literals."""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from sparsewell_client import curation, documents, indexes, search_answer, search_request
from sparsewell_client.search_request import RequestModel

SCHEMAS: dict[str, Any] = json.loads((Path(__file__).parents[3] / "docs/api/openapi.json").read_text())["components"][
    "schemas"
]
# OpenAPI lists a model twice if its schema differs between requests and answers.
SENT, RECEIVED = "-Input", "-Output"
# The client has no types for filters and ranges: they are JSON objects.
OBJECTS = {"FilterAll", "FilterAny", "FilterNot", "FilterCondition", "Range"}
# Members that describe or limit values. The API checks limits, the client does not.
IGNORED = {
    "title", "description", "examples", "additionalProperties", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "pattern",
}  # fmt: skip
# Models that the client lacks: it makes requests from arguments, has no methods for the administration of keys, and
# has other models for some bodies.
WITHOUT_MODEL = {
    "BatchRequest", "BatchSearch", "CurationRequest", "DryRunRequest", "KeyList", "KeyModel", "KeyRequest", "KeyRights",
    "MultiIndexRequest", "NewKey", "QueriesRequest", "QueryCount", "RetryRequest", "RotateRequest", "SecretModel",
}  # fmt: skip


def models() -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the name of each model in OpenAPI and the client's class."""
    for module in (search_request, search_answer, documents, indexes, curation):
        for name, kind in vars(module).items():
            if inspect.isclass(kind) and issubclass(kind, BaseModel) and kind.__module__ == module.__name__:
                if kind is RequestModel:
                    continue
                if name in SCHEMAS:
                    yield name, kind
                else:
                    yield name + (RECEIVED if module is search_answer else SENT), kind


def simplified(schema: Any, *, members: bool = False) -> Any:
    """Return a schema without descriptions, limits and deprecated members.

    `members`: the schema is a mapping of names to schemas.
    """
    if isinstance(schema, list):
        return [simplified(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2].removesuffix(SENT).removesuffix(RECEIVED)
        return {"type": "object"} if name in OBJECTS else {"model": name}
    if members:
        # The client has no deprecated members.
        return {name: simplified(value) for name, value in schema.items() if not value.get("deprecated")}
    found = {
        name: simplified(value, members=name == "properties") for name, value in schema.items() if name not in IGNORED
    }
    if isinstance(schema.get("additionalProperties"), dict) and "properties" not in schema:
        values = simplified(schema["additionalProperties"])
        found |= {} if values.keys() == {"anyOf"} else {"values": values}
    if "anyOf" in found:
        kinds = sorted({json.dumps(each, sort_keys=True): each for each in found["anyOf"]}.items())
        found["anyOf"] = [each for _, each in kinds]
        if len(kinds) == 1:
            found |= found.pop("anyOf")[0]
    if "enum" in found:
        found["enum"] = sorted(found["enum"])
    if "required" in found:
        found["required"] = sorted(found["required"])
    # The schema has no empty defaults, because a factory makes them for each instance.
    if found.get("default") in (None, [], {}) or isinstance(found.get("default"), dict):
        found.pop("default", None)
    return found


@pytest.mark.parametrize(("name", "kind"), list(models()), ids=lambda value: value if isinstance(value, str) else "")
def test_a_client_model_equals_the_model_of_the_api(name: str, kind: type[BaseModel]) -> None:
    ours = simplified({**kind.model_json_schema(by_alias=True), "$defs": {}})
    ours.pop("$defs")
    assert ours == simplified(SCHEMAS[name])


def test_each_model_of_the_api_has_a_class_or_a_reason() -> None:
    ours = {name.removesuffix(SENT).removesuffix(RECEIVED) for name, _ in models()}
    theirs = {name.removesuffix(SENT).removesuffix(RECEIVED) for name in SCHEMAS}
    assert theirs - ours == OBJECTS | WITHOUT_MODEL
    assert {"Highlight-Input", "Highlight-Output"} <= {name for name, _ in models()}


def test_a_difference_is_found() -> None:
    class Pin(BaseModel):
        id: str
        place: int

    assert simplified(Pin.model_json_schema()) != simplified(SCHEMAS["Pin"])
