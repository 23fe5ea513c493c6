"""Tests of text analysis: the splitting of text, and the requests and answers of the analyser."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.opensearch.analysis import (
    MAX_ANALYSED_TERMS,
    MAX_UNKNOWN_WORDS,
    AnalysedTerm,
    TextWord,
    UnknownWord,
    blank_stop_words,
    is_stop_word,
    limit_words,
    max_terms,
    merge_unknown_words,
    read_analysed_terms,
    read_similar_terms,
    read_term_counts,
    similar_terms_body,
    split_on_white_space,
    split_unusual_words,
    term_counts_body,
)


def test_words_lose_surrounding_punctuation_but_no_joining_characters() -> None:
    assert split_on_white_space('(The "dog\'s") U.S.A. __x__ 😀! 1\u202f000') == [
        TextWord("The", 1),
        TextWord("dog's", 6),
        TextWord("U.S.A", 14),
        TextWord("__x__", 21),
        TextWord("😀!", 27),
        TextWord("1\u202f000", 30),
    ]


@given(st.text(max_size=200))
def test_words_are_stretches_of_the_text(text: str) -> None:
    for word in split_on_white_space(text):
        assert text[word.start : word.start + len(word.text)] == word.text
    left = text
    for word in reversed(split_on_white_space(text)):
        left = left[: word.start] + left[word.start + len(word.text) :]
    assert not any(character.isalnum() for character in left)


def test_offsets_of_terms_are_characters() -> None:
    """Java counts an emoji as two UTF-16 units."""
    distinct = ["a", "😀b😀", "the", "dogs"]
    tokens = [("a", 0, 1), ("😀", 2, 4), ("b", 4, 5), ("😀", 5, 7), ("dog", 12, 16)]
    answer = {"tokens": [{"token": text, "start_offset": start, "end_offset": end} for text, start, end in tokens]}
    assert read_analysed_terms(answer, distinct) == {
        "a": [AnalysedTerm("a", 0, 1)],
        "😀b😀": [AnalysedTerm("😀", 0, 1), AnalysedTerm("b", 1, 2), AnalysedTerm("😀", 2, 3)],
        "dogs": [AnalysedTerm("dog", 0, 4)],
    }
    assert read_analysed_terms({}, ["the"]) == {}


def test_no_more_terms_are_requested_than_opensearch_returns() -> None:
    assert max_terms("slipstream") == 1
    assert max_terms("a-b.c") == 5  # two terms are punctuation
    assert max_terms("русский") == 1
    assert max_terms("étoile") == 2  # the folded form
    assert max_terms("中文字") == 6  # single characters and pairs
    assert max_terms("a" * 1000) == 4
    half = "中" * (MAX_ANALYSED_TERMS // 2 - 1)
    assert limit_words([half, "a", "b", "c"]) == [half, "a", "b"]
    assert limit_words(["😀" * (MAX_ANALYSED_TERMS + 1), "a"]) == []


def test_offsets_of_unknown_words_are_characters() -> None:
    entry = {"text": "whle", "offset": 3, "length": 4, "options": [{"text": "whale"}]}
    right = {"text": "sea", "offset": 8, "length": 3, "options": []}
    answer = {"suggest": {"words": [entry, right]}}
    (word,) = read_similar_terms(answer, "🫖 whle sea")
    assert "🫖 whle sea"[word.start : word.end] == "whle"
    other = UnknownWord("whle", 2, 6, ("whole", "whale"))
    assert merge_unknown_words([[word], [other], []]) == [UnknownWord("whle", 2, 6, ("whale", "whole"))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in a hwale", "in a hwale"),
        ("wrod " * MAX_UNKNOWN_WORDS + "of a", "wrod " * MAX_UNKNOWN_WORDS + "of a"),
        ("🫖 " + "wrod, " * 500, "🫖 " + "wrod, " * MAX_UNKNOWN_WORDS),
        ("wrod-" * 500, "wrod-" * MAX_UNKNOWN_WORDS),
        ("abcd東" * 500, ("abcd東" * 500)[: 40 * MAX_UNKNOWN_WORDS]),
    ],
)
def test_only_the_first_words_of_a_long_query_are_looked_up(text: str, expected: str) -> None:
    body = similar_terms_body("spelling", text, 1.0, folds=True, all_words=True)
    assert body["suggest"]["text"] == expected


def test_words_that_an_encoder_lacks_are_split_from_the_others() -> None:
    text = "An expresso machine costs 300 EUR, expr3sso: machines?"
    known = {(text.index(word), text.index(word) + len(word)) for word in ("An", "machine", "costs", "machines")}
    unusual, others = split_unusual_words(text, known)
    assert unusual.split() == ["expresso"]
    assert others.split() == ["An", "machine", "costs", "300", "EUR,", "expr3sso:", "machines?"]
    assert unusual.index("expresso") == text.index("expresso")
    assert len(unusual) == len(others) == len(text)
    assert split_unusual_words("a Whle sea", ()) == (" " * 10, "a Whle sea")  # too short to be sure


@pytest.mark.parametrize("apostrophe", ["'", "\u2019", "\u2018", "\u02bc", "\uff07", "\u201b"])
def test_contractions_are_function_words_with_any_apostrophe(apostrophe: str) -> None:
    assert is_stop_word(f"don{apostrophe}t")
    assert is_stop_word(f"What{apostrophe}s")
    text = f"What{apostrophe}s new, don{apostrophe}t panic"
    assert blank_stop_words(text).split() == ["new,", "panic"]
    assert len(blank_stop_words(text)) == len(text)


def test_counts_of_misspelt_words_and_of_similar_terms_are_apart() -> None:
    words = [UnknownWord("whle", 0, 4, ("whale", "while")), UnknownWord("whale", 5, 10, ("while",))]
    body = term_counts_body("spelling", words, "sea", [{"term": {"state": "x"}}], ["gone"], 1.0)
    filters = body["aggs"]["terms"]["filters"]["filters"]
    assert filters["typed1"] == {"match": {"lexical": "whale"}}
    assert filters["similar0"]["bool"]["filter"] == [{"term": {"spelling": "whale"}}, {"match": {"lexical": "sea"}}]
    assert body["query"]["bool"]["filter"] == [{"term": {"state": "x"}}]
    buckets = {name: {"doc_count": at} for at, name in enumerate(filters)}
    answer = {"aggregations": {"terms": {"buckets": buckets}}}
    assert read_term_counts(answer, words) == ({"whle": 0, "whale": 1}, {"whale": 2, "while": 3})
