"""Tests of documents: error codes and external versions."""

import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.documents import document
from services.documents.document import (
    Document,
    joined_text,
    parse_document,
    parse_document_bytes,
    validate_document_id,
)
from services.errors import InvalidInput, TooLarge
from services.index_spec import DocumentLimits, IndexSpec

SPEC = IndexSpec.model_validate(
    {"fields": {"year": "number", "tag": "keyword", "note": "text", "day": "date", "open": "boolean"}}
)


def refusal(value: object) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse_document(value, SPEC)
    return caught.value


def with_metadata(name: str, value: object) -> dict[str, object]:
    return {"id": "a", "text": "x", "metadata": {name: value}}


def test_a_document_with_all_members_is_accepted_unchanged() -> None:
    value = {
        "id": "a/b c", "title": "T", "text": "x", "version": 7,
        "metadata": {"year": 1999.5, "tag": ["a", "b"], "note": "n", "day": "2024-02-29T10:00:00Z", "open": False},
    }  # fmt: skip
    assert parse_document(value, SPEC) == Document("a/b c", "x", "T", value["metadata"], 7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "not_an_object"),
        ([], "not_an_object"),
        ({"text": "x"}, "missing_id"),
        ({"id": 5, "text": "x"}, "bad_id"),
        ({"id": "", "text": "x"}, "bad_id"),
        ({"id": ".", "text": "x"}, "bad_id"),
        ({"id": "..", "text": "x"}, "bad_id"),
        ({"id": "a\x00", "text": "x"}, "bad_id"),
        ({"id": "é" * 257, "text": "x"}, "bad_id"),
        ({"id": "a"}, "missing_text"),
        ({"id": "a", "text": None}, "missing_text"),
        ({"id": "a", "text": 5}, "bad_text"),
        ({"id": "a", "text": " \n"}, "bad_text"),
        ({"id": "a", "text": "x", "title": 5}, "bad_title"),
        ({"id": "a", "text": "x", "foo": 1}, "unknown_field"),
        ({"id": "a", "text": "x", "version": -1}, "bad_version"),
        ({"id": "a", "text": "x", "version": document.MAX_PRODUCER_VERSION + 1}, "bad_version"),
        ({"id": "a", "text": "x", "version": True}, "bad_version"),
        ({"id": "a", "text": "x", "version": 1.0}, "bad_version"),
        ({"id": "a", "text": "x", "metadata": []}, "bad_metadata"),
        (with_metadata("colour", "red"), "undeclared_metadata"),
        (with_metadata("year", "1999"), "bad_metadata"),
        (with_metadata("year", True), "bad_metadata"),
        (with_metadata("year", math.nan), "bad_metadata"),
        (with_metadata("year", 10**400), "bad_metadata"),
        (with_metadata("year", {"a": 1}), "bad_metadata"),
        (with_metadata("tag", 1), "bad_metadata"),
        (with_metadata("tag", "é" * 4096), "bad_metadata"),
        (with_metadata("tag", ["a"] * 1001), "bad_metadata"),
        (with_metadata("tag", ["a", ["b"]]), "bad_metadata"),
        (with_metadata("note", 1), "bad_metadata"),
        (with_metadata("open", "true"), "bad_metadata"),
        (with_metadata("day", "yesterday"), "bad_metadata"),
        (with_metadata("day", "2023-02-29"), "bad_metadata"),
        (with_metadata("day", "20240101"), "bad_metadata"),
        (with_metadata("day", 1700000000), "bad_metadata"),
    ],
)
def test_refusals(value: object, code: str) -> None:
    assert refusal(value).code == code


def test_a_refusal_contains_the_id_if_it_is_valid() -> None:
    assert refusal({"id": "a"}).extra["id"] == "a"


def test_null_metadata_counts_as_absent() -> None:
    assert parse_document(with_metadata("tag", None), SPEC).metadata == {}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ([None], "null"),
        (True, "true"),
        ({"a": None}, "an object"),
        ([[None]], "an array"),
        ("1999", "'1999'"),
        ("9" * 100, "'" + "9" * 56 + "..."),
        (10**400, "1" + "0" * 56 + "..."),
        (math.nan, "NaN"),
    ],
)
def test_a_refused_value_is_shown_in_the_terms_of_json(value: object, shown: str) -> None:
    assert refusal(with_metadata("year", value)).detail == f"`metadata.year` must be of type number; got {shown}."


@pytest.mark.parametrize("raw", [b"{", b"\xff\xfe", b'{"id":"a","text":"\\ud800"}', b'{"id":"a","text":NaN}', b""])
def test_invalid_json_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_document_bytes(raw, SPEC, DocumentLimits(1000))
    assert caught.value.code == "invalid_json"


def test_a_document_over_the_limit_is_refused_with_the_limit() -> None:
    raw = orjson.dumps({"id": "a", "text": "x" * 100})
    with pytest.raises(TooLarge, match="50 bytes") as caught:
        parse_document_bytes(raw, SPEC, DocumentLimits(50))
    assert caught.value.code == "document_too_large"


MEMBER = st.sampled_from(["id", "text", "title", "metadata", "version", "tag", "x"])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(MEMBER, inner),
)


@given(ANY_JSON)
def test_any_value_is_accepted_or_refused_with_a_code(value: object) -> None:
    try:
        document = parse_document(value, SPEC)
    except InvalidInput as error:
        assert error.code
    else:
        assert document.text.strip()


def test_the_title_is_part_of_the_encoded_text() -> None:
    assert joined_text("T", "x") == "T\nx"
    assert joined_text("", "x") == "x"


def test_an_id_may_contain_characters_that_a_url_escapes() -> None:
    assert validate_document_id("a/b?c#d e%20") == "a/b?c#d e%20"


VERSION = st.integers(0, document.MAX_CLIENT_VERSION)


@given(VERSION)
def test_all_versions_fit_a_lucene_long(version: int) -> None:
    assert document.encoded_version(version) < 2**63


@given(VERSION, VERSION)
def test_a_newer_raw_write_wins_over_an_older_encoding(one: int, other: int) -> None:
    if one > other:
        assert document.raw_version(one) > document.encoded_version(other)


@given(VERSION)
def test_transitions_lie_between_raw_and_encoded(version: int) -> None:
    external = document.raw_version(version)
    for _ in range(1022):
        external = document.next_transition(external)
        assert document.client_version(external) == version
        assert document.raw_version(version) < external < document.encoded_version(version)
    with pytest.raises(ValueError, match="1,022"):
        document.next_transition(external)


def test_the_clock_is_strictly_increasing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = document.VersionClock()
    moments = iter([5_000, 5_000, 4_000, 9_000])
    monkeypatch.setattr(document.time, "time_ns", lambda: next(moments))
    assert [clock.next() for _ in range(4)] == [5, 6, 7, 9]


def test_the_clock_follows_a_stored_version_by_a_minute_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, now, minute = document.VersionClock(), 10**15, 60_000_000
    monkeypatch.setattr(document.time, "time_ns", lambda: now * 1000)
    assert clock.next(above=now + minute - 1) == now + minute
    assert clock.next() == now + minute + 1, "later writes stay above, whatever their documents"
    assert not clock.is_far_behind(now + minute - 1)
    assert clock.is_far_behind(now + minute)
    other = document.VersionClock()
    assert other.next(above=now + 10 * minute) == now + 10 * minute + 1, "the document's own version always rises"
    assert other.next() == now + minute + 1, "and takes the clock along by a minute"
    assert other.next(above=document.MAX_CLIENT_VERSION) == document.MAX_CLIENT_VERSION


def test_the_largest_version_of_a_producer_can_be_changed_and_deleted() -> None:
    largest = document.parse_document({"id": "a", "text": "x", "version": document.MAX_PRODUCER_VERSION}, SPEC).version
    assert largest is not None
    assert document.VersionClock().next(above=largest) == largest + 1
