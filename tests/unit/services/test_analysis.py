"""What is asked of OpenSearch's analyser, and how its answer is read. (What it answers: an integration test.)"""

from hypothesis import given
from hypothesis import strategies as st

from services.opensearch.analysis import (
    MAX_ANALYSED_TERMS,
    AnalysedTerm,
    TextWord,
    limit_words,
    max_terms,
    read_analysed_terms,
    split_on_white_space,
)


def test_words_lose_the_punctuation_around_them_but_nothing_that_may_join() -> None:
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


def test_an_answer_is_read_in_characters() -> None:
    """Java counts an emoji as two."""
    distinct = ["a", "😀b😀", "the", "dogs"]
    tokens = [("a", 0, 1), ("😀", 2, 4), ("b", 4, 5), ("😀", 5, 7), ("dog", 12, 16)]
    answer = {"tokens": [{"token": text, "start_offset": start, "end_offset": end} for text, start, end in tokens]}
    assert read_analysed_terms(answer, distinct) == {
        "a": [AnalysedTerm("a", 0, 1)],
        "😀b😀": [AnalysedTerm("😀", 0, 1), AnalysedTerm("b", 1, 2), AnalysedTerm("😀", 2, 3)],
        "dogs": [AnalysedTerm("dog", 0, 4)],
    }
    assert read_analysed_terms({}, ["the"]) == {}


def test_no_more_is_asked_than_opensearch_answers() -> None:
    assert max_terms("slipstream") == 1
    assert max_terms("a-b.c") == 5  # (two of them are punctuation)
    assert max_terms("русский") == 1
    assert max_terms("中文字") == 3
    assert max_terms("a" * 1000) == 4
    assert limit_words(["中" * (MAX_ANALYSED_TERMS - 1), "a", "b"]) == ["中" * (MAX_ANALYSED_TERMS - 1), "a"]
    assert limit_words(["😀" * (MAX_ANALYSED_TERMS + 1), "a"]) == []
