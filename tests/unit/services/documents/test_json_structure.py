"""An array is split into the texts of its items as a JSON parser splits it, without building values."""

import tracemalloc

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.documents import json_structure
from services.documents.document import parse_document_bytes
from services.documents.json_structure import ArraySplitter, check_values, count_values
from services.errors import InvalidInput
from services.index_spec import DocumentLimits, IndexSpec

TEXTS = st.text(st.sampled_from('ab\\"[]{},: \n\u00e9'), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)
SPACES = st.text(st.sampled_from(" \t\r\n"), max_size=3).map(str.encode)


def split(body: bytes) -> list[bytes]:
    return [item for block in ArraySplitter(body).blocks() for _, item in block]


def memory(value: object) -> int:
    """Return the estimate for a value: 240 bytes an object, 112 an array, 80 a further member."""
    if isinstance(value, list | dict):
        members = value if isinstance(value, list) else list(value.values())
        own = 112 if isinstance(value, list) else 240
        return own + 80 * max(0, len(members) - 1) + sum(map(memory, members))
    return 0


@settings(max_examples=300)
@given(st.lists(VALUES, max_size=8), SPACES, st.integers(1, 40))
def test_the_items_are_those_of_the_array(values: list[object], space: bytes, block: int) -> None:
    parts = (space + b"," + space).join(orjson.dumps(value) for value in values)
    body = space + b"[" + space + parts + space + b"]" + space
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_structure, "BLOCK_BYTES", block)
        assert [orjson.loads(item) for item in split(body)] == values
        assert count_values(orjson.dumps(values)).memory == memory(values)


@settings(max_examples=300)
@given(st.text(st.sampled_from('[]{},"\\1 a:'), max_size=14).map(str.encode))
def test_an_array_is_accepted_only_if_a_parser_accepts_it(body: bytes) -> None:
    try:
        expected = orjson.loads(body)
    except orjson.JSONDecodeError:
        expected = None
    try:
        found = [orjson.loads(item) for item in split(body)]
    except (InvalidInput, orjson.JSONDecodeError):
        found = None
    assert found == (expected if isinstance(expected, list) else None)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "not_an_array"), (b"{}", "not_an_array"), (b"[1", "invalid_json"), (b"[1]]", "invalid_json"),
        (b"[1] x", "invalid_json"), (b"[1}", "invalid_json"), (b'["a]', "invalid_json"),
        (b" " * 100_000, "not_an_array"),
    ],
)  # fmt: skip
def test_other_bodies_are_named(body: bytes, code: str) -> None:
    with pytest.raises(InvalidInput) as error:
        split(body)
    assert error.value.code == code


@pytest.mark.parametrize("item", [b"0,", b"[],", b'{"a":0},', b'"a",', b'"\\\\\\"",'])
def test_splitting_takes_little_memory_beside_the_body(item: bytes) -> None:
    body = b"[" + item * (1_000_000 // len(item)) + b"0]"
    tracemalloc.start()
    for block in ArraySplitter(body).blocks():
        del block
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000


SPEC = IndexSpec.model_validate({"talk": {}})


@pytest.mark.parametrize("value", [b"[]", b"{}", b'{"a":0}', b'"a"', b"[0]", b"0", b"[[[]]]", b'{"a":0,"b":"c"}'])
def test_the_estimate_is_an_upper_bound(value: bytes) -> None:
    text = b"[" + b",".join([value] * 50_000) + b"]"
    tracemalloc.start()
    values = orjson.loads(text)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(values) == 50_000
    assert held <= count_values(text).memory


@pytest.mark.parametrize("members", [6, 11, 50_000])
def test_the_estimate_is_an_upper_bound_for_members_with_different_names(members: int) -> None:
    """450,000 unknown members of one document of 4 MiB took 79 MiB."""
    objects = [{f"{number}.{member}": member for member in range(members)} for number in range(50_000 // members)]
    text = orjson.dumps(objects)
    del objects
    tracemalloc.start()
    values = orjson.loads(text)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(values) == 50_000 // members
    assert held <= count_values(text).memory


def test_a_document_of_many_short_members_is_refused_before_they_are_built() -> None:
    raw = b'{"id":"a","text":"b",' + b",".join(b'"%x":0' % number for number in range(300_000)) + b"}"
    with pytest.raises(InvalidInput) as error:
        check_values(raw)
    assert error.value.code == "too_many_values"


def test_a_document_of_too_many_values_is_refused_before_they_are_built() -> None:
    raw = b'{"id":"a","text":[' + b"[]," * 300_000 + b"0]}"
    tracemalloc.start()
    with pytest.raises(InvalidInput) as error:
        parse_document_bytes(raw, SPEC, DocumentLimits(len(raw), len(raw)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.value.code == "too_many_values"
    assert peak < 3_000_000, "the empty arrays would take 25 MB"


def test_commas_and_brackets_of_a_text_are_no_values() -> None:
    text = ",[{" * 300_000
    assert parse_document_bytes(orjson.dumps({"id": "a", "text": text}), SPEC).text == text


def test_the_largest_documents_are_no_case_of_too_many_values() -> None:
    many = {f"f{number}": ["abc"] * 1000 for number in range(100)}
    check_values(orjson.dumps({"id": "a", "title": "t", "text": "x", "version": 1, "metadata": many}))
    segments = [{"start": 123.45, "end": 123.99, "text": "word"}] * 100_000
    chapters = [{"title": "a", "startTime": 0, "endTime": 1}] * 1000
    check_values(orjson.dumps({"id": "a", "kind": "talk", "segments": segments, "chapters": chapters}))


def test_more_objects_than_the_decoder_takes_at_once_are_refused() -> None:
    segments = b'{"text":"aaa bbb ccc ddd eee"}'
    raw = b'{"id":"a","kind":"talk","segments":[' + b",".join([segments] * 150_000) + b"]}"
    with pytest.raises(InvalidInput) as error:
        check_values(raw)
    assert error.value.code == "too_many_values"
    assert "150,001 objects" in error.value.detail
    check_values(orjson.dumps({"id": "a", "text": "{" * 200_000}))


def test_more_members_than_the_decoder_takes_at_once_are_refused() -> None:
    """Names that occur once are the slowest values to decode: 900,000 members took .13 to .18 s."""
    raw = b'{"id":"a","text":"b",' + b",".join(b'"%x" :0' % number for number in range(600_000)) + b"}"
    with pytest.raises(InvalidInput) as error:
        check_values(raw)
    assert error.value.code == "too_many_values"
    assert "600,002 members" in error.value.detail
    check_values(orjson.dumps({"id": "a", "text": ":" * 600_000}))
    segments = [{"start": 1, "end": 2, "speaker": "a", "text": "word"}] * 100_000
    check_values(orjson.dumps({"id": "a", "kind": "talk", "segments": segments}))
