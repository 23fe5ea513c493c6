"""What is asked of OpenSearch's analyser, and how its answer is read. (What it answers: an integration test.)"""

from hypothesis import given
from hypothesis import strategies as st

from services.opensearch.analysis import MOST_TERMS, Term, Word, affordable, most_terms, read_terms, words


def test_words_lose_the_punctuation_around_them_but_nothing_that_may_join() -> None:
    assert words('(The "dog\'s") U.S.A. __x__ 😀! 1\u202f000') == [
        Word("The", 1),
        Word("dog's", 6),
        Word("U.S.A", 14),
        Word("__x__", 21),
        Word("😀!", 27),
        Word("1\u202f000", 30),
    ]


@given(st.text(max_size=200))
def test_words_are_stretches_of_the_text(text: str) -> None:
    for word in words(text):
        assert text[word.start : word.start + len(word.text)] == word.text
    left = text
    for word in reversed(words(text)):
        left = left[: word.start] + left[word.start + len(word.text) :]
    assert not any(character.isalnum() for character in left)


def test_an_answer_is_read_in_characters() -> None:
    """Java counts an emoji as two."""
    distinct = ["a", "😀b😀", "the", "dogs"]
    tokens = [("a", 0, 1), ("😀", 2, 4), ("b", 4, 5), ("😀", 5, 7), ("dog", 12, 16)]
    answer = {"tokens": [{"token": text, "start_offset": start, "end_offset": end} for text, start, end in tokens]}
    assert read_terms(answer, distinct) == {
        "a": [Term("a", 0, 1)],
        "😀b😀": [Term("😀", 0, 1), Term("b", 1, 2), Term("😀", 2, 3)],
        "dogs": [Term("dog", 0, 4)],
    }
    assert read_terms({}, ["the"]) == {}


def test_no_more_is_asked_than_opensearch_answers() -> None:
    assert most_terms("slipstream") == 1
    assert most_terms("a-b.c") == 5  # (two of them are punctuation)
    assert most_terms("русский") == 1
    assert most_terms("中文字") == 3
    assert most_terms("a" * 1000) == 4
    assert affordable(["中" * (MOST_TERMS - 1), "a", "b"]) == ["中" * (MOST_TERMS - 1), "a"]
    assert affordable(["😀" * (MOST_TERMS + 1), "a"]) == []
