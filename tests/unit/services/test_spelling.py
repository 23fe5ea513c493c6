"""Which word of an index may have been meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.opensearch.analysis import MAX_UNKNOWN_WORDS, merge_unknown_words, read_similar_terms, similar_terms_body
from services.query.suggest import Correction, UnknownWord, apply_corrections, edit_distance, find_corrections

LETTERS = st.text("abc", max_size=8)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("", "", 0),
        ("a", "", 1),
        ("whale", "whale", 0),
        ("whlae", "whale", 1),
        ("wale", "whale", 1),
        ("whhale", "whale", 1),
        ("wgale", "whale", 1),
        ("hwlae", "whale", 2),
        ("kitten", "sitting", 3),
    ],
)
def test_distances(one: str, other: str, expected: int) -> None:
    assert edit_distance(one, other) == edit_distance(other, one) == expected


@given(LETTERS, LETTERS)
def test_a_distance_is_between_the_difference_and_the_length(one: str, other: str) -> None:
    assert abs(len(one) - len(other)) <= edit_distance(one, other) <= max(len(one), len(other))
    assert (edit_distance(one, other) == 0) == (one == other)


def test_the_nearest_then_the_most_frequent_word_that_may_be_found() -> None:
    words = [UnknownWord("whle", 2, 6, ("while", "whale", "whole", "wheels")), UnknownWord("sae", 7, 10, ("sea",))]
    documents = {"while": 2, "whale": 5, "whole": 0, "wheels": 9, "sea": 3, "sae": 1}
    found = find_corrections("a Whle sae", words, documents)
    assert found == [Correction("Whle", "whale", 2, 6)]
    assert apply_corrections("a Whle sae", found) == "a whale sae"
    assert find_corrections("a Whle sae", words, {}) == []


def test_short_words_may_have_one_letter_wrong() -> None:
    near = {"whale": 1, "experiment": 1}
    assert find_corrections("hwlae", [UnknownWord("hwlae", 0, 5, ("whale",))], near) == []
    (found,) = find_corrections("expreimnt", [UnknownWord("expreimnt", 0, 9, ("experiment",))], near)
    assert found.suggested == "experiment"


def test_places_are_those_of_characters() -> None:
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
def test_a_long_query_walks_through_the_dictionary_for_its_first_words_only(text: str, expected: str) -> None:
    assert similar_terms_body("spelling", text, 1.0)["suggest"]["text"] == expected
