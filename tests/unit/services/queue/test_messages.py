"""Tests of queue messages: docs/contracts publishes their schemas."""

import json
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError

from services.queue.messages import CONTRACTS, ENCODE_TASK, INGEST_TASK, EncodeMessage, IngestMessage, message_schemas

PUBLISHED = Path(__file__).resolve().parents[4] / "docs" / "contracts"


def published(name: str) -> dict[str, object]:
    schema: dict[str, object] = json.loads((PUBLISHED / f"{name}.schema.json").read_bytes())
    return schema


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_published_schema_equals_the_models(name: str) -> None:
    # python -m services.queue.messages docs/contracts writes the schemas. A change of meaning needs a new version.
    assert published(name) == message_schemas()[name]


def test_no_other_schema_is_published() -> None:
    assert {path.name for path in PUBLISHED.iterdir()} == {f"{name}.schema.json" for name in CONTRACTS}


@pytest.mark.parametrize(
    "message",
    [
        EncodeMessage(index="a", ids=("1", "2")),
        EncodeMessage(index="a", ids=("1",), generation=2),
        IngestMessage(index="a", documents=({"id": "1", "text": "x"},)),
        IngestMessage(index="a", job="nightly-1", sent_at=1, offset=500, documents=({"id": "1", "text": "x"},)),
    ],
)
def test_sent_messages_match_the_published_schema(message: EncodeMessage | IngestMessage) -> None:
    body = message.model_dump(mode="json")
    jsonschema.validate(body, published(message.contract))
    assert type(message).model_validate(json.loads(json.dumps(body))) == message


@pytest.mark.parametrize(
    ("name", "body"),
    [
        (ENCODE_TASK, {"index": "a", "ids": []}),
        (ENCODE_TASK, {"index": "a", "ids": ["1"], "extra": 1}),
        (ENCODE_TASK, {"contract": "sparsewell.encode.v2", "index": "a", "ids": ["1"]}),
        (INGEST_TASK, {"index": "a", "documents": [1]}),
        (INGEST_TASK, {"index": "a", "documents": [{}] * 1001}),
        (INGEST_TASK, {"index": "a", "job": "no spaces", "documents": [{}]}),
        (INGEST_TASK, {"documents": [{}]}),
    ],
)
def test_schema_and_models_refuse_the_same_messages(name: str, body: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, published(name))
    with pytest.raises(ValidationError):
        CONTRACTS[name].model_validate(body)
