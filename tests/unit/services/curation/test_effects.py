"""Effects of curation rules on the query vector, the lexical query, boosts and pins."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_api.curation import compare_rankings, rank_biased_overlap
from query_api.search.curation import CurationTerms
from query_api.search.hits import lexical_shares, lexical_why, word_shares
from services.curation.effects import (
    BoostFactor,
    apply_boosts,
    boost_shares,
    compile_boosts,
    curate_query_vector,
    curated_lexical_query,
    describe_filter,
    insert_pinned,
)
from services.curation.matching import CompiledRules, MatchedRules
from services.curation.rules import Rules
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.filters.parsing import FilterLimits
from services.index_spec import FieldType
from services.query.expansion import QueryBlend


@pytest.fixture(scope="module")
def table() -> QueryTable:
    return QueryTable.load(resolve_model_directory("standin"))


def matched(query: str, **kinds: Any) -> MatchedRules:
    return CompiledRules(Rules.model_validate(kinds)).matched(query, 1000)


def pieces(table: QueryTable, query: str, **kinds: Any) -> dict[str, tuple[float, dict[str, float]]]:
    blend, _ = curate_query_vector(table.encode(query), matched(query, **kinds), table, 1000)
    for i, weight in blend.vector.by_id().items():
        assert sum(blend.origins[i].values()) == pytest.approx(weight)
    return {table.piece(i): (weight, dict(blend.origins[i])) for i, weight in blend.vector.by_id().items()}


def test_without_rules_the_query_is_unchanged(table: QueryTable) -> None:
    vector = table.encode("heart attack", 100)
    rules = matched("heart attack")
    assert curate_query_vector(vector, rules, table, 100) == (QueryBlend.of(vector), rules)
    assert curated_lexical_query("heart attack", [], {}) == {"match": {"lexical": {"query": "heart attack"}}}


def test_pieces_of_a_synonym_are_added_with_its_weight(table: QueryTable) -> None:
    plain = {table.piece(i): w for i, w in table.encode("doctor physician heart", 100).by_id().items()}
    synonyms = [{"words": ["doctor", "physician", "heart doctor"], "weight": 0.5}]
    found = pieces(table, "the doctor of my heart", synonyms=synonyms)
    assert found["physician"] == (plain["physician"] * 0.5, {"synonym": plain["physician"] * 0.5})
    assert found["doctor"] == (plain["doctor"], {"query": plain["doctor"]})
    assert found["heart"] == (plain["heart"], {"query": plain["heart"]})  # a word of the user's query


def test_the_heavier_of_two_synonyms_counts_for_a_shared_piece(table: QueryTable) -> None:
    weight = table.encode("red", 10).weights[0]
    synonyms = [
        {"from": ["ruby"], "to": ["red"], "weight": 0.2},
        {"from": ["crimson"], "to": ["red"], "weight": 0.7},
    ]
    assert pieces(table, "ruby crimson", synonyms=synonyms)["red"] == (weight * 0.7, {"synonym": weight * 0.7})


def test_term_rules_set_weights_of_pieces(table: QueryTable) -> None:
    plain = table.encode("infarction", 10)
    assert len(plain.ids) > 1
    names = [table.piece(i) for i in plain.ids]
    weighed = pieces(table, "infarction now", terms=[{"term": "infarction", "weight": 4}])
    for name, own in zip(names, plain.weights, strict=True):
        assert weighed[name] == (pytest.approx(4), {"query": own, "override": pytest.approx(4 - own)})
    scaled = pieces(table, "infarction infarction", terms=[{"term": "infarction", "factor": 2}])
    assert scaled[names[0]][0] == pytest.approx(plain.weights[0] * 2)  # applied once for two occurrences
    assert pieces(table, "infarction", terms=[{"term": "infarction", "factor": 0}]) == {}
    assert pieces(table, "infarction", terms=[{"term": "infarction", "weight": 0}]) == {}


def test_a_vector_never_exceeds_the_limit(table: QueryTable) -> None:
    rules = {"synonyms": [{"from": ["one"], "to": ["two three four", "five"]}]}
    blend, found = curate_query_vector(table.encode("one", 10), matched("one", **rules), table, 3)
    assert [table.piece(i) for i in blend.vector.ids] == ["one", "five"]
    assert found.skipped == [{"kind": "synonym", "rule": 0, "what": "two three four", "reason": "too_many"}]


def test_lexical_search_counts_the_best_alternative() -> None:
    rules = {"synonyms": [{"from": ["heart attack"], "to": ["myocardial infarction", "mi"], "weight": 0.5}]}
    text = "signs of Heart attack (women)"
    assert curated_lexical_query(text, matched(text, **rules).spans, {"ecg": 0.25}) == {
        "bool": {
            "should": [
                {"match": {"lexical": {"query": "signs of "}}},
                {
                    "dis_max": {
                        "queries": [
                            {"match": {"lexical": {"query": "Heart attack"}}},
                            {"match_phrase": {"lexical": {"query": "myocardial infarction", "boost": 0.5}}},
                            {"match_phrase": {"lexical": {"query": "mi", "boost": 0.5}}},
                        ]
                    }
                },
                {"match": {"lexical": {"query": " (women)"}}},
                {"match": {"lexical": {"query": "ecg", "boost": 0.25}}},
            ]
        }
    }


def test_phrases_and_factors_in_lexical_search() -> None:
    def query(text: str, *terms: dict[str, Any]) -> dict[str, Any]:
        return curated_lexical_query(text, matched(text, terms=terms).spans, {})

    assert query("new york", {"term": "new york", "phrase": True}) == {
        "match_phrase": {"lexical": {"query": "new york"}}
    }
    assert query("cheap", {"term": "cheap", "factor": 0.25}) == {
        "match": {"lexical": {"query": "cheap", "boost": 0.25}}
    }
    assert query("cheap", {"term": "cheap", "factor": 0}) == {"match_none": {}}
    assert query("cheap car", {"term": "cheap", "factor": 0}) == {"match": {"lexical": {"query": " car"}}}


def test_only_a_title_weight_above_one_adds_a_clause() -> None:
    assert curated_lexical_query("roses", [], {}, 1.0) == {"match": {"lexical": {"query": "roses"}}}
    spans = matched("red roses", synonyms=[{"from": ["roses"], "to": ["wild flowers"]}]).spans
    words = curated_lexical_query("red roses", spans, {"garden": 0.5})
    in_titles = orjson.loads(orjson.dumps(words).replace(b"lexical", b"title_words"))
    assert curated_lexical_query("red roses", spans, {"garden": 0.5}, 2.5) == {
        "bool": {"should": [words, {"bool": {"should": [in_titles], "boost": 1.5}}]}
    }


FIELDS: dict[str, FieldType] = {"kind": "keyword", "year": "number"}
GUIDE = {"filter": {"field": "kind", "is": "guide"}, "factor": 2}
OLD = {"filter": {"all": [{"field": "year", "range": {"lt": 1900}}]}, "factor": 0.5}
GONE = {"filter": {"field": "colour", "is": "red"}, "factor": 3}


def test_boosts_multiply_both_phases_and_misfits_are_reported() -> None:
    found = list(
        compile_boosts(Rules.model_validate({"boosts": [GUIDE, GONE, OLD]}), FIELDS, FilterLimits(8, 100, 1000))
    )
    assert found[1] == 1
    boosts = [one for one in found if isinstance(one, BoostFactor)]
    assert [(one.rule, one.name) for one in boosts] == [
        (0, "kind is guide"), (2, '{"all":[{"field":"year","range":{"lt":1900}}]}'),
    ]  # fmt: skip
    search = {"query": {"a": 1}, "size": 5, "rescore": {"window_size": 9, "query": {"rescore_query": {"b": 1}, "w": 1}}}
    assert apply_boosts(search, [], named=True) is search
    both = apply_boosts(search, boosts, named=True)
    head, tail = both["query"]["function_score"], both["rescore"]["query"]["rescore_query"]["function_score"]
    assert (head["query"], tail["query"], both["size"], both["rescore"]["query"]["w"]) == ({"a": 1}, {"b": 1}, 5, 1)
    assert [one["weight"] for one in head["functions"]] == [one["weight"] for one in tail["functions"]] == [2, 0.5]
    assert [one["filter"]["bool"]["_name"] for one in head["functions"]] == ["boost 0", "boost 2"]
    assert "_name" not in str(tail) and "_name" not in str(apply_boosts(search, boosts, named=False))


@given(st.floats(0.01, 100), st.lists(st.floats(0.1, 10), max_size=4), st.sets(st.integers(0, 3)))
def test_shares_of_boosts_add_up_to_the_score(score: float, given_factors: list[float], has: set[int]) -> None:
    boosts = [BoostFactor(n, str(n), factor, {}, frozenset()) for n, factor in enumerate(given_factors)]
    shares = list(boost_shares(score, boosts, [f"boost {n}" for n in has]))
    assert [name for name, _ in shares] == [str(n) for n in range(len(boosts)) if n in has]
    product = score
    for n in has & set(range(len(boosts))):
        product *= given_factors[n]
    assert score + sum(share for _, share in shares) == pytest.approx(product)


def test_a_long_filter_has_a_short_name() -> None:
    assert describe_filter({"any_of": ["a", "b"], "field": "kind"}) == 'kind any_of ["a","b"]'
    assert len(describe_filter({"field": "kind", "any_of": ["long"] * 50})) == 80


def test_the_share_of_a_title_word_is_separate() -> None:
    explanation = {
        "value": 4.0, "description": "sum of:", "details": [
            {"value": 1.0, "description": "weight(lexical:rose in 3) [PerFieldSimilarity], result of:"},
            {"value": 3.0, "description": "weight(title_words:rose in 3) [PerFieldSimilarity], result of:"},
        ],
    }  # fmt: skip
    shares = lexical_shares(explanation)
    assert [(one["piece"], one["contribution"], one.get("origins")) for one in lexical_why(shares)] == [
        ("rose", 3.0, {"title": 3.0}), ("rose", 1.0, None),
    ]  # fmt: skip
    assert word_shares(shares) == {"rose": 4.0}


@pytest.mark.parametrize(
    ("description", "word"),
    [
        ("Synonym(lexical:cafe lexical:café)", "cafe"),
        ("Synonym(lexical:αθήνα lexical:αθηνα)", "αθηνα"),  # Lucene sorts the forms: the folded one may be the last
        ("Synonym(lexical:caf lexical:cafe)", "cafe"),  # the stemmer knows an end by its accent
        ("Synonym(lexical:x lexical:x\u0331)", "x"),
        ("lexical:a)b", "a)b"),
    ],
)
def test_the_share_of_a_word_with_accents_has_its_folded_form(description: str, word: str) -> None:
    line = f"weight({description} in 3) [PerFieldSimilarity], result of:"
    assert lexical_shares({"value": 2.0, "description": line}) == {("lexical", word): 2.0}


def test_words_of_a_phrase_have_their_folded_forms() -> None:
    line = 'weight(title_words:"grand (cafe café) (bohm böhm)" in 3) [PerFieldSimilarity], result of:'
    shares = lexical_shares({"value": 3.0, "description": line})
    assert word_shares(shares) == {"grand": 1.0, "cafe": 1.0, "bohm": 1.0}


def test_only_the_best_alternative_is_explained() -> None:
    explanation = {
        "value": 5.0,
        "description": "sum of:",
        "details": [
            {"value": 1.0, "description": "weight(lexical:sign in 3) [PerFieldSimilarity], result of:"},
            {
                "value": 4.0,
                "description": "max of:",
                "details": [
                    {"value": 2.0, "description": "weight(lexical:heart in 3) [x]"},
                    {"value": 4.0, "description": 'weight(lexical:"myocardi infarct" in 3) [x]'},
                ],
            },
        ],
    }
    why = lexical_why(lexical_shares(explanation))
    assert [(one["piece"], one["contribution"]) for one in why] == [('"myocardi infarct"', 4.0), ("sign", 1.0)]
    terms = CurationTerms(frozenset({"sign", "heart", "attack"}), frozenset({"sign"}))
    assert terms.origin('"myocardi infarct"') == "synonym"
    assert terms.origin("sign") == "override"
    assert terms.origin("heart") is None


def order(ranked: str, pinned: dict[int, str], size: int) -> str:
    return "".join(insert_pinned(ranked, pinned, size))


def test_pins_are_at_their_positions() -> None:
    assert order("abcde", {}, 3) == "abc"
    assert order("abcde", {1: "x"}, 3) == "xab"
    assert order("abcde", {1: "x", 3: "y"}, 5) == "xaybc"
    assert order("ab", {5: "x"}, 10) == "abx"
    assert order("", {1: "x", 2: "y"}, 10) == "xy"
    assert order("ab", {4: "x", 9: "y"}, 3) == "abx"


@given(st.text("abcdefgh", max_size=8), st.dictionaries(st.integers(1, 9), st.sampled_from("XYZ"), max_size=3))
def test_pins_fill_a_page_as_far_as_possible(ranked: str, pinned: dict[int, str]) -> None:
    found = order(ranked, pinned, 5)
    assert len(found) == min(5, len(ranked) + len(pinned))
    assert [one for one in found if one.islower()] == list(ranked)[: sum(one.islower() for one in found)]
    full = len(ranked) + sum(place <= 5 for place in pinned) >= 5
    assert not full or all(found[place - 1] == one for place, one in pinned.items() if place <= 5)


def test_rank_biased_overlap_of_known_lists() -> None:
    assert rank_biased_overlap("abc", "abc") == pytest.approx(1)
    assert rank_biased_overlap("abc", "xyz") == 0
    assert rank_biased_overlap("", "") == 1
    assert rank_biased_overlap("a", "") == 0
    assert rank_biased_overlap("ab", "ba", 0.9) == pytest.approx(0.9 / 1.9)  # agreement 0 at depth 1, 1 at depth 2
    assert rank_biased_overlap("a", "ab", 0.9) == pytest.approx((1 + 0.9 * 0.5) / 1.9)
    assert rank_biased_overlap("abcd", "abdc") > rank_biased_overlap("abcd", "bacd")


@given(st.lists(st.integers(0, 20), unique=True), st.lists(st.integers(0, 20), unique=True))
def test_rank_biased_overlap_is_symmetric_and_between_zero_and_one(first: list[int], second: list[int]) -> None:
    one, other = [str(n) for n in first], [str(n) for n in second]
    found = rank_biased_overlap(one, other)
    assert -1e-9 <= found <= 1 + 1e-9
    assert found == pytest.approx(rank_biased_overlap(other, one))


def test_ranking_changes_are_listed() -> None:
    found = compare_rankings(["a", "b", "c"], ["b", "a", "x"])
    assert (found.entered, found.left, found.moved) == ({"x": 3}, {"c": 3}, {"b": (2, 1), "a": (1, 2)})
    assert found.any
    assert not compare_rankings(["a"], ["a"]).any
