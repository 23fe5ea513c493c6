"""Curation rules: validation, checks against an index, and matching to a query."""

from typing import Any

import pytest
from pydantic import ValidationError

from services.curation.effects import check_rules
from services.curation.matching import MAX_ADDED_TEXTS, MAX_PINS, CompiledRules, MatchedRules
from services.curation.rules import MAX_HIDDEN_DOCUMENTS, MAX_RULES_BYTES, Rules
from services.encoders.manifest import WindowSettings, resolve_model_directory
from services.encoders.query_table import QueryTable
from services.errors import InvalidInput, TooLarge
from services.filters.parsing import FilterLimits
from services.index_spec import EncoderIdentity, Generation, IndexSpec


@pytest.fixture(scope="module")
def table() -> QueryTable:
    return QueryTable.load(resolve_model_directory("standin"))


def rules(**kinds: Any) -> Rules:
    return Rules.model_validate(kinds)


def matched(query: str, max_words: int = 1000, **kinds: Any) -> MatchedRules:
    return CompiledRules(rules(**kinds), 7).matched(query, max_words)


BAD: list[dict[str, Any]] = [
    {"synonyms": [{"words": ["one"]}]},
    {"synonyms": [{"words": ["same", "Same"]}]},
    {"synonyms": [{"words": ["a", "b"], "to": ["c"]}]},
    {"synonyms": [{"from": ["a"]}]},
    {"synonyms": [{"from": ["a"], "to": ["?!"]}]},
    {"synonyms": [{"from": ["a"], "to": [" ".join("abcdefghi")]}]},
    {"synonyms": [{"words": ["a", "b"], "weight": weight} for weight in (0,)]},
    {"synonyms": [{"words": ["a", "b"], "weight": "1"}]},
    {"results": [{"query": "a", "pin": [{"id": "x", "position": "1"}]}]},
    {"terms": [{"term": "a b", "phrase": "no", "factor": 2}]},
    {"terms": [{"term": "a", "factor": "2"}]},
    {"terms": [{"term": "a", "weight": True}]},
    {"synonyms": [{"words": ["a", "b"], "weight": float("nan")}]},
    {"synonyms": [{"words": ["a", "b"], "weight": float("inf")}]},
    {"synonyms": [{"words": ["a", "b"], "weight": -1}]},
    {"synonyms": [{"words": ["a", "b" * 201]}]},
    {"synonyms": [{"words": ["a", "\ud800b"]}]},
    {"synonyms": [{"words": ["a", "b"], "more": 1}]},
    {"synonyms": [{"words": ["a", 5]}]},
    {"results": [{"query": "a"}]},
    {"results": [{"query": "", "hide": ["x"]}]},
    {"results": [{"query": "a", "match": "every", "hide": ["x"]}]},
    {"results": [{"query": "a", "match": "regex", "hide": ["x"]}]},
    {"results": [{"query": "a", "pin": [{"id": "x", "position": 0}]}]},
    {"results": [{"query": "a", "pin": [{"id": "x", "position": 1}, {"id": "x", "position": 2}]}]},
    {"results": [{"query": "a", "pin": [{"id": "x", "position": 1}, {"id": "y", "position": 1}]}]},
    {"results": [{"query": "a", "pin": [{"id": "x", "position": 1}], "hide": ["x"]}]},
    {"results": [{"query": "a", "hide": [""]}]},
    {"results": [{"query": "a", "hide": ["x" * 513]}]},
    {
        "results": [
            {"query": "a", "hide": [f"{n}.{i}" for i in range(500)]} for n in range(MAX_HIDDEN_DOCUMENTS // 500 + 1)
        ]
    },
    {"terms": [{"term": "a"}]},
    {"terms": [{"term": "a", "weight": 1, "factor": 2}]},
    {"terms": [{"term": "a", "phrase": True}]},
    {"terms": [{"term": "a", "factor": -1}]},
    {"terms": [{"term": "a", "weight": float("inf")}]},
    {"terms": [{"term": "The Term", "factor": 2}, {"term": "the term", "factor": 3}]},
    {"boosts": [{"filter": {"field": "kind", "is": "a"}, "factor": 1}]},
    {"boosts": [{"filter": {"field": "kind", "is": "a"}, "factor": 11}]},
    {"boosts": [{"filter": {"field": "kind", "is": "a"}, "factor": 0}]},
    {"boosts": [{"filter": {"field": "kind", "is": "a"}}]},
    {"boosts": [{"factor": 2}]},
    {"boosts": [{"filter": {"field": "kind", "is": "a"}, "factor": 2}] * 21},
    {"fields": {"title": 0.5}},
    {"fields": {"title": float("nan")}},
    {"fields": {"text": 2}},
    {"unknown": []},
]


@pytest.mark.parametrize("kinds", BAD, ids=str)
def test_contradictory_rules_are_refused(kinds: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Rules.model_validate(kinds)


GENERATION = Generation(
    index="docs", number=1, physical="sparsewell-docs.g000001",
    spec=IndexSpec(fields={"kind": "keyword", "year": "number"}),
    encoder=EncoderIdentity(name="standin", fingerprint="0" * 16), window=WindowSettings(pieces=64, overlap=8),
    created_at="2026-01-01T00:00:00+00:00", titles=True,
)  # fmt: skip


def check(given: Rules, table: QueryTable, **changes: Any) -> None:
    check_rules(given, GENERATION.model_copy(update=changes), table, FilterLimits(8, 100, 1000))


def test_rules_that_the_encoder_cannot_use_are_refused_with_their_place(table: QueryTable) -> None:
    with pytest.raises(InvalidInput) as pieces:
        check(rules(synonyms=[{"words": ["a", "b"]}, {"from": ["a"], "to": [" ".join(["zq" * 11] * 8)]}]), table)
    assert (pieces.value.code, pieces.value.extra["where"]) == ("bad_curation", "synonyms.1")
    with pytest.raises(InvalidInput) as nothing:
        check(rules(terms=[{"term": "ꙮ", "weight": 3}]), table)
    assert (nothing.value.code, nothing.value.extra["where"]) == ("bad_curation", "terms.0")
    many = rules(synonyms=[{"words": [f"{n} {'long' * 20}", f"{n}"]} for n in range(2000)])
    assert len(many.model_dump_json()) > MAX_RULES_BYTES / 2
    larger = rules(synonyms=[{"words": [f"{n} {'long' * 40}", f"{n}"]} for n in range(2000)])
    with pytest.raises(TooLarge):
        check(larger, table)


def test_defaults_are_not_stored_and_rules_survive_a_round_trip() -> None:
    one = rules(synonyms=[{"from": ["mi"], "to": ["heart attack"]}], terms=[{"term": "new york", "phrase": True}])
    assert one.stored() == {
        "synonyms": [{"from": ["mi"], "to": ["heart attack"]}],
        "terms": [{"term": "new york", "phrase": True}],
    }
    assert Rules.model_validate(one.stored()) == one
    assert rules(fields={"title": 1}, boosts=[]).stored() == {}
    boosts = {"boosts": [{"filter": {"field": "kind", "is": "a"}, "factor": 2.0}], "fields": {"title": 3.0}}
    assert rules(**boosts).stored() == boosts


@pytest.mark.parametrize(
    ("written", "code", "where"),
    [
        ({"field": "colour", "is": "a"}, "undeclared_metadata", "boosts.0.filter"),
        ({"field": "kind", "range": {"lt": 5}}, "bad_filter", "boosts.0.filter"),
        ({"not": {"field": "year", "range": {"lt": 5, "gt": 6}}}, "contradictory_range", "boosts.0.filter.not.range"),
        ({"field": "kind", "any_of": ["a"] * 1001}, "filter_too_large", "boosts.0.filter.any_of"),
        ({"field": "kind", "is": "\ud800"}, "bad_filter", "boosts.0.filter.is"),
        ({"field": "year", "is": 10**30}, "bad_curation", "boosts"),
        ("kind is a", "bad_filter", "boosts.0.filter"),
        (None, "bad_filter", "boosts.0.filter"),
    ],
)  # fmt: skip
def test_a_boost_is_checked_against_the_index(written: Any, code: str, where: str, table: QueryTable) -> None:
    with pytest.raises(InvalidInput) as refused:
        check(rules(boosts=[{"filter": written, "factor": 2}]), table)
    assert (refused.value.code, refused.value.extra["where"]) == (code, where)


def test_title_weights_need_title_words_and_boosts_are_limited(table: QueryTable) -> None:
    check(rules(fields={"title": 2}), table)
    with pytest.raises(InvalidInput) as refused:
        check(rules(fields={"title": 2}), table, titles=False)
    assert (refused.value.code, refused.value.extra["where"]) == ("bad_curation", "fields.title")
    sixty = {"filter": {"any": [{"field": "kind", "is": str(n)} for n in range(60)]}, "factor": 2}
    check(rules(boosts=[sixty]), table)
    with pytest.raises(InvalidInput) as many:
        check(rules(boosts=[sixty, sixty]), table)
    assert (many.value.code, many.value.extra["where"]) == ("bad_curation", "boosts")


def test_only_two_way_synonyms_are_symmetric() -> None:
    both = {"words": ["heart attack", "myocardial infarction", "MI"], "weight": 0.5}
    (span,) = matched("treatment of MYOCARDIAL infarction", synonyms=[both]).spans
    assert (span.text, [tuple(one) for one in span.added]) == (
        "MYOCARDIAL infarction",
        [("heart attack", 0.5, 0), ("MI", 0.5, 0)],
    )
    one_way = {"from": ["laptop"], "to": ["notebook"]}
    assert matched("a laptop", synonyms=[one_way]).spans[0].added[0].text == "notebook"
    assert matched("a notebook", synonyms=[one_way]).spans == []


def test_added_texts_are_not_expanded_again() -> None:
    circle = [{"from": ["a"], "to": ["b"]}, {"from": ["b"], "to": ["c", "a"]}]
    found = matched("a b", synonyms=circle)
    assert [[one.text for one in span.added] for span in found.spans] == [["b"], ["c", "a"]]
    assert [one["rule"] for one in found.applied] == [0, 1]


def test_the_longest_of_overlapping_rules_wins() -> None:
    found = matched(
        "the new york times",
        synonyms=[{"from": ["new york"], "to": ["nyc"]}],
        terms=[{"term": "new york times", "phrase": True}, {"term": "times", "factor": 0.1}],
    )
    assert [(span.text, span.phrase, span.added) for span in found.spans] == [("new york times", True, ())]
    assert found.applied == [{"kind": "term", "rule": 0, "matched": "new york times"}]


def test_a_term_and_a_synonym_of_the_same_words_both_apply() -> None:
    found = matched("NYC", synonyms=[{"from": ["nyc"], "to": ["new york"]}], terms=[{"term": "nyc", "factor": 2}])
    (span,) = found.spans
    assert (span.factor, [one.text for one in span.added]) == (2, ["new york"])


def test_results_match_exact_contained_and_every_query() -> None:
    results = [
        {"query": "Return Policy", "pin": [{"id": "p", "position": 1}]},
        {"query": "return policy", "match": "contains", "hide": ["h"]},
        {"match": "every", "hide": ["e"]},
    ]

    def numbers(query: str) -> list[int]:
        return [one["rule"] for one in matched(query, results=results).applied]

    assert numbers("return policy!") == [0, 1, 2]
    assert numbers("the return-policy please") == [1, 2]
    assert numbers("policy return") == [2]
    assert numbers("?!") == [2]
    found = matched("return policy", results=results)
    assert found.hidden == {"h", "e"}
    assert {one: pin.place for one, pin in found.pins.items()} == {"p": 1}


def test_hidden_documents_are_not_pinned_and_pins_do_not_share_a_position() -> None:
    results = [
        {"query": "a", "pin": [{"id": "x", "position": 1}, {"id": "y", "position": 2}]},
        {"query": "a", "match": "contains", "pin": [{"id": "z", "position": 1}, {"id": "x", "position": 9}]},
        {"match": "every", "hide": ["y"]},
    ]
    assert {one: pin.place for one, pin in matched("a", results=results).pins.items()} == {"x": 1, "z": 3}


def test_effects_beyond_the_limits_are_skipped_and_reported() -> None:
    synonyms = [{"from": [f"w{n}"], "to": [f"x{n}", f"y{n}"]} for n in range(MAX_ADDED_TEXTS)]
    found = matched(" ".join(f"w{n}" for n in range(MAX_ADDED_TEXTS)), synonyms=synonyms)
    assert sum(len(span.added) for span in found.spans) == MAX_ADDED_TEXTS
    assert len(found.skipped) == MAX_ADDED_TEXTS
    assert found.skipped[0] == {"kind": "synonym", "rule": MAX_ADDED_TEXTS // 2, "what": "x25", "reason": "too_many"}
    short = matched("w0 w1", max_words=3, synonyms=synonyms)
    assert [one.text for span in short.spans for one in span.added] == ["x0"]
    results = [{"match": "every", "pin": [{"id": f"{n}-{i}", "position": i + 1} for i in range(20)]} for n in range(3)]
    pins = matched("q", results=results)
    assert len(pins.pins) == MAX_PINS
    assert len(pins.skipped) == 60 - MAX_PINS
    assert len({pin.place for pin in pins.pins.values()}) == MAX_PINS
