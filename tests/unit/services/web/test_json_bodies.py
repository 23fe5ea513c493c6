"""JSON bodies: wrong encodings are named, errors are listed if they are few, and no error stays in memory."""

import codecs
import gc
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import Headers

from query_api.schemas.admin import DryRunRequest, KeyRequest, QueriesRequest
from query_api.schemas.resources import RetryRequest
from query_api.schemas.search_request import SearchRequest
from services.errors import InvalidInput, SparsewellError, UnsupportedMediaType
from services.index_spec import IndexSpec
from services.web.json_bodies import MAX_LISTED_ERRORS, JsonBody, read_json_text

JSON = Headers({"content-type": "application/json"})
SEARCH = JsonBody(SearchRequest)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Leave only reference counts to free memory."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def held_errors() -> int:
    # The type is compared, not `__class__`: reading that of an object of torch warns, and warnings are errors.
    kinds = (ValidationError, RequestValidationError, SparsewellError)
    return sum(1 for each in gc.get_objects() if issubclass(type(each), kinds))


BODIES = {
    "many errors": orjson.dumps({"query": "x"} | {f"m{number}": 0 for number in range(MAX_LISTED_ERRORS + 1)}),
    "a list": orjson.dumps({"query": "x", "like": [0] * 100}),
    "one error": b'{"query":"x","more":0}',
    "half of a pair": b'{"query":"\\ud800","more":0}',
    "no JSON": b'{"query":',
}


@pytest.mark.parametrize("text", BODIES.values(), ids=BODIES)
async def test_an_error_is_freed_with_its_answer(text: bytes, no_collector: None) -> None:
    """An error in a cycle with its frame would keep up to 10 MB of a body's errors until the collector comes by."""
    before = held_errors()
    for _ in range(3):
        try:
            await SEARCH.validate(text)
        except (RequestValidationError, InvalidInput):
            continue
        pytest.fail("the body is valid")
    assert held_errors() == before


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("utf-32", "UTF-32"), ("latin-1", "Latin-1"),
     ("cp1252", "Windows-1252")],
)  # fmt: skip
async def test_another_encoding_is_named(encoding: str, name: str) -> None:
    text = ('{"query":"caf\u00e9 \u201eeau\u201c"}' if encoding == "cp1252" else '{"query":"caf\u00e9"}').encode(
        encoding
    )
    with pytest.raises(InvalidInput) as error:
        await SEARCH.validate(read_json_text(JSON, text))
    assert error.value.code == "invalid_json"
    assert name in error.value.detail


@pytest.mark.parametrize("magic", [b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"])
def test_compression_that_is_not_declared_is_named(magic: bytes) -> None:
    with pytest.raises(UnsupportedMediaType) as error:
        read_json_text(JSON, magic + b"more")
    assert error.value.code == "unsupported_encoding"


async def test_a_byte_order_mark_is_read() -> None:
    assert (await SEARCH.validate(read_json_text(JSON, codecs.BOM_UTF8 + b'{"query":"x"}'))).query == "x"


MANY_ERRORS: list[tuple[type[Any], Any]] = [
    (QueriesRequest, {"queries": [{"query": 0}] * 30_000}),
    (RetryRequest, {"ids": [0] * 30_000}),
    (KeyRequest, {"name": "x", "scopes": ["search"], "indexes": [0] * 30_000}),
    (IndexSpec, {"fields": {f"field{number}": "x" for number in range(30_000)}}),
    (DryRunRequest, {"rules": {"synonyms": [{"a": 0}] * 30_000}, "queries": [0] * 30_000}),
    (SearchRequest, {"like": [0] * 30_000, "context": {"turns": [0] * 30_000}, "fields": [0] * 30_000}),
]


@pytest.mark.parametrize(("model", "body"), MANY_ERRORS, ids=[model.__name__ for model, _ in MANY_ERRORS])
def test_a_list_of_wrong_values_makes_few_errors(model: type[Any], body: Any) -> None:
    """Each error takes 370 bytes and 1 to 3 microseconds."""
    with pytest.raises(ValidationError) as error:
        model.model_validate_json(orjson.dumps(body))
    assert error.value.error_count() < 10
