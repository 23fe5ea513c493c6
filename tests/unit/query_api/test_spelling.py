"""Tests of spelling corrections."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_api.spelling import Correction, apply_corrections, edit_distance, find_corrections
from services.opensearch.analysis import UnknownWord

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
def test_edit_distances(one: str, other: str, expected: int) -> None:
    assert edit_distance(one, other) == edit_distance(other, one) == expected


@given(LETTERS, LETTERS)
def test_an_edit_distance_is_between_the_length_difference_and_the_length(one: str, other: str) -> None:
    assert abs(len(one) - len(other)) <= edit_distance(one, other) <= max(len(one), len(other))
    assert (edit_distance(one, other) == 0) == (one == other)


def test_corrections_prefer_the_nearest_then_the_most_frequent_word() -> None:
    words = [UnknownWord("whle", 2, 6, ("while", "whale", "whole", "wheels")), UnknownWord("sae", 7, 10, ("sea",))]
    documents = {"while": 2, "whale": 5, "whole": 0, "wheels": 9, "sea": 3}
    found = find_corrections("a Whle sae", words, {"whle": 0, "sae": 1}, documents)
    assert found == [Correction("Whle", "whale", 2, 6)]
    assert apply_corrections("a Whle sae", found) == "a whale sae"
    assert find_corrections("a Whle sae", words, {}, {}) == []


def test_short_words_may_differ_by_one_edit() -> None:
    near = {"whale": 1, "experiment": 1}
    assert find_corrections("hwlae", [UnknownWord("hwlae", 0, 5, ("whale",))], {}, near) == []
    (found,) = find_corrections("expreimnt", [UnknownWord("expreimnt", 0, 9, ("experiment",))], {}, near)
    assert found.suggested == "experiment"


def test_a_word_that_occurs_is_corrected_to_a_far_more_frequent_one() -> None:
    words = [UnknownWord("expresso", 0, 8, ("espresso",))]
    assert find_corrections("expresso", words, {"expresso": 2}, {"espresso": 19}) == []
    (found,) = find_corrections("expresso", words, {"expresso": 2}, {"espresso": 20})
    assert found.suggested == "espresso"


def test_accents_are_no_difference_and_the_suggestion_is_as_documents_write_it() -> None:
    words = [UnknownWord("bohmm", 0, 5, ("bohm", "böhm"))]  # each document with böhm has its folded form, too
    (found,) = find_corrections("Böhmm", words, {}, {"bohm": 5, "böhm": 4})
    assert found == Correction("Böhmm", "böhm", 0, 5)
    (found,) = find_corrections("Böhmm", words, {}, {"bohm": 9, "böhm": 4})
    assert found.suggested == "bohm"
    assert find_corrections("bohm", [UnknownWord("bohm", 0, 4, ("böhm",))], {}, {"böhm": 4}) == []
