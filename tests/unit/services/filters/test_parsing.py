"""Tests of filters: parsing, and the errors of invalid ones."""

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidInput
from services.filters.parsing import FilterLimits, parse_filter
from services.filters.tree import AllOf, AnyOf, Exists, InRange, MatchesWords, Not, OneOf, StartsWith, remove_field
from services.index_spec import FieldType
from services.opensearch.queries import build_filter_clauses

FIELDS: dict[str, FieldType] = {
    "year": "number", "genre": "keyword", "blurb": "text", "printed": "date", "lent": "boolean", "is": "keyword",
}  # fmt: skip
LIMITS = FilterLimits(depth=5, conditions=10, values=20)
DAY = 86_400_000


def read(value: Any) -> Any:
    return parse_filter(value, FIELDS, LIMITS)


def refusal(value: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        read(value)
    return caught.value


def one(field: str, **operator: Any) -> dict[str, Any]:
    return {"field": field} | {name.rstrip("_"): value for name, value in operator.items()}


def test_every_kind_of_filter_is_parsed() -> None:
    written = {
        "all": [
            one("year", range={"gte": 1990, "lt": 2000}),
            {"not": one("genre", is_="poem")},
            {"any": [one("genre", any_of=["novel", "play", "novel"]), one("genre", prefix="sea/")]},
            one("blurb", match="white whale"),
            one("lent", exists=False),
            one("lent", is_=True),
            one("_id", any_of=["b1", "b2"]),
            one("_state", is_="encoded"),
        ]
    }
    assert read(written) == AllOf(
        (
            InRange("year", 1990.0, math.nextafter(2000.0, 0)),
            Not(OneOf("genre", ("poem",))),
            AnyOf((OneOf("genre", ("novel", "play")), StartsWith("genre", "sea/"))),
            MatchesWords("blurb", "white whale"),
            Not(Exists("lent")),
            OneOf("lent", (True,)),
            OneOf("_id", ("b1", "b2")),
            OneOf("_state", ("encoded",)),
        )
    )


def test_dates_are_ranges_and_adjacent_ranges_are_joined() -> None:
    assert read(one("printed", is_="1970-01-02")) == InRange("printed", DAY, 2 * DAY - 1, date=True)
    assert read(one("printed", range={"gt": "1970-01-01", "lte": "1970-01-02"})) == InRange(
        "printed", DAY, 2 * DAY - 1, date=True
    )
    listed = one("printed", any_of=["1970-01-02", "1970-01-05", "1970-01-01"])
    assert read(listed) == AnyOf(
        (InRange("printed", 0, 2 * DAY - 1, date=True), InRange("printed", 4 * DAY, 5 * DAY - 1, date=True))
    )


def test_a_field_may_have_the_name_of_an_operator() -> None:
    assert read(one("is", is_="x")) == OneOf("is", ("x",))


@pytest.mark.parametrize(
    ("value", "code", "where"),
    [
        (None, "bad_filter", "filter"),
        ("year > 1990", "bad_filter", "filter"),
        ([one("genre", is_="x")], "bad_filter", "filter"),
        ({}, "bad_filter", "filter"),
        ({"query_string": {"query": "*"}}, "bad_filter", "filter"),
        ({"all": [one("genre", is_="x")], "any": [one("genre", is_="x")]}, "bad_filter", "filter"),
        ({"all": []}, "bad_filter", "filter.all"),
        ({"any": one("genre", is_="x")}, "bad_filter", "filter.any"),
        ({"all": [one("genre", is_="x"), {"not": {}}]}, "bad_filter", "filter.all[1].not"),
        ({"not": [one("genre", is_="x")]}, "bad_filter", "filter.not"),
        (one("genre"), "bad_filter", "filter"),
        (one("genre", is_="x", prefix="y"), "bad_filter", "filter"),
        (one("genre", regexp="(a+)+$"), "bad_filter", "filter"),
        (one("genre", is_="x", boost=2), "bad_filter", "filter"),
        ({"field": 5, "is": 5}, "bad_filter", "filter"),
        ({"field": ["genre"], "is": "x"}, "bad_filter", "filter"),
        (one("colour", is_="red"), "undeclared_metadata", "filter"),
        (one("metadata.genre", is_="red"), "undeclared_metadata", "filter"),
        (one("text", match="red"), "undeclared_metadata", "filter"),
        (one("state", is_="encoded"), "undeclared_metadata", "filter"),
        (one("genre", range={"gte": "a"}), "bad_filter", "filter"),
        (one("genre", match="a"), "bad_filter", "filter"),
        (one("blurb", is_="a"), "bad_filter", "filter"),
        (one("year", prefix="19"), "bad_filter", "filter"),
        (one("_id", prefix="a"), "bad_filter", "filter"),
        (one("_id", exists=True), "bad_filter", "filter"),
        (one("_state", is_="deleted"), "bad_filter", "filter.is"),
        (one("_state", is_=["encoded"]), "bad_filter", "filter.is"),
        (one("_id", is_=5), "bad_filter", "filter.is"),
        (one("_id", is_="x" * 513), "bad_filter", "filter.is"),
        (one("genre", is_=5), "bad_filter", "filter.is"),
        (one("genre", is_=None), "bad_filter", "filter.is"),
        (one("genre", is_=["x"]), "bad_filter", "filter.is"),
        (one("genre", is_="\ud800"), "bad_filter", "filter.is"),
        (one("genre", is_="x" * 8192), "bad_filter", "filter.is"),
        (one("genre", any_of="x"), "bad_filter", "filter.any_of"),
        (one("genre", any_of=[]), "bad_filter", "filter.any_of"),
        (one("genre", any_of=["x", 5]), "bad_filter", "filter.any_of[1]"),
        (one("genre", any_of=["x"] * 21), "filter_too_large", "filter.any_of"),
        (one("genre", prefix=""), "bad_filter", "filter.prefix"),
        (one("genre", prefix="\udfff"), "bad_filter", "filter.prefix"),
        (one("genre", exists=1), "bad_filter", "filter.exists"),
        (one("blurb", match=" "), "bad_filter", "filter.match"),
        (one("blurb", match="x" * 201), "bad_filter", "filter.match"),
        (one("blurb", match="\ud800"), "bad_filter", "filter.match"),
        (one("lent", is_="true"), "bad_filter", "filter.is"),
        (one("lent", is_=1), "bad_filter", "filter.is"),
        (one("year", is_="1990"), "bad_filter", "filter.is"),
        (one("year", is_=True), "bad_filter", "filter.is"),
        (one("year", is_=math.nan), "bad_filter", "filter.is"),
        (one("year", any_of=[math.inf]), "bad_filter", "filter.any_of[0]"),
        (one("year", is_=10**400), "bad_filter", "filter.is"),
        (one("year", is_=10**9999), "bad_filter", "filter.is"),
        (one("year", range={}), "bad_filter", "filter.range"),
        (one("year", range=[1, 2]), "bad_filter", "filter.range"),
        (one("year", range={"from": 1}), "bad_filter", "filter.range"),
        (one("year", range={"gt": 1, "gte": 1}), "bad_filter", "filter.range"),
        (one("year", range={"lte": None}), "bad_filter", "filter.range.lte"),
        (one("year", range={"gte": 2, "lte": 1}), "contradictory_range", "filter.range"),
        (one("year", range={"gt": 1, "lt": 1}), "contradictory_range", "filter.range"),
        (one("year", range={"gt": 1, "lt": math.nextafter(1, 2)}), "contradictory_range", "filter.range"),
        (one("year", range={"gt": 1.7976931348623157e308}), "contradictory_range", "filter.range"),
        (one("year", range={"lt": -1.7976931348623157e308}), "contradictory_range", "filter.range"),
        (one("printed", is_=5), "bad_filter", "filter.is"),
        (one("printed", is_="now-1d"), "bad_filter", "filter.is"),
        (one("printed", is_="2024-02-30"), "bad_filter", "filter.is"),
        (one("printed", is_="2024||/M"), "bad_filter", "filter.is"),
        (one("printed", range={"gte": "2024-03-01", "lte": "2024-02-29"}), "contradictory_range", "filter.range"),
        (one("printed", range={"gt": "2024-03-01", "lt": "2024-03-02"}), "contradictory_range", "filter.range"),
        ({"not": {"not": {"not": {"not": {"not": one("genre", is_="x")}}}}}, "filter_too_large", "filter" + ".not" * 5),
        ({"any": [one("genre", is_="x")] * 11}, "filter_too_large", "filter.any[10]"),
        (one("printed", any_of=[f"20{n:02}-01-01" for n in range(11)]), "filter_too_large", "filter.any_of[0]"),
    ],
)
def test_an_invalid_filter_is_refused_with_its_place(value: Any, code: str, where: str) -> None:
    error = refusal(value)
    assert (error.code, error.extra["where"]) == (code, where)
    assert error.detail.startswith(f"{where}: ")
    assert len(error.detail) < 400
    orjson.dumps(error.detail)  # the detail can be written as JSON


def test_refusals_list_the_declared_fields() -> None:
    assert "(declared: blurb, genre, is, lent, printed, year)" in refusal(one("colour", is_="x")).detail
    assert "write 'genre', without `metadata.`" in refusal(one("metadata.genre", is_="x")).detail
    assert "takes `is`, `any_of`, `prefix`, `exists`, not `range`" in refusal(one("genre", range={"gt": 1})).detail
    assert "SPARSEWELL_MAX_FILTER_VALUES" in refusal(one("genre", any_of=["x"] * 10_000)).detail
    assert "10,000 of them" in refusal(one("genre", any_of=["x"] * 10_000)).detail


def test_the_limit_counts_the_values_of_all_lists() -> None:
    lists = [one("genre", any_of=[f"{n}-{m}" for m in range(7)]) for n in range(3)]
    assert read({"any": lists[:2]})
    assert refusal({"any": lists}).code == "filter_too_large"


_JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(exclude_categories=())),
        st.sampled_from([*FIELDS, "_id", "2024-02-29", "encoded", "\ud800"]),
    ),
    lambda part: st.one_of(
        st.lists(part, max_size=4),
        st.dictionaries(
            st.sampled_from(
                ["field", "is", "any_of", "range", "prefix", "match", "exists", "all", "any", "not", "gte", "lt", "x"]
            ),
            part,
            max_size=3,
        ),
    ),
    max_leaves=12,
)


@given(_JSON)
def test_any_json_is_refused_or_becomes_valid_clauses(value: Any) -> None:
    try:
        clauses = build_filter_clauses(read(value))
    except InvalidInput as error:
        assert error.code in ("bad_filter", "undeclared_metadata", "contradictory_range", "filter_too_large")
        orjson.dumps(error.detail)
        return
    sent = orjson.dumps(clauses)
    assert b"null" not in sent  # orjson writes NaN and infinity as null
    assert json.loads(sent) == clauses


def test_removing_a_field_from_a_filter() -> None:
    genre, year = OneOf("genre", ("poem",)), InRange("year", 1.0, None)
    either = AnyOf((genre, year))
    assert remove_field(None, "genre") is None
    assert remove_field(genre, "genre") is None
    assert remove_field(Not(genre), "genre") is None
    assert remove_field(genre, "year") == genre
    assert remove_field(AllOf((genre, year)), "genre") == year
    assert remove_field(AllOf((genre, year, either)), "genre") == AllOf((year, either))
    assert remove_field(either, "genre") == either
