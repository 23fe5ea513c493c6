"""Stop words of the lexical list: what a question loses, and what it keeps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.opensearch.analysis import STOP_WORDS, blank_stop_words


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("How do I pause the program for a while?", ["pause", "program", "?"]),
        ("What's the weather, don’t you think I'm right", ["weather,", "think", "right"]),
        ("what does is.na do in R", ["is.na", "R"]),
        ("np.all examples of who.int and me.com", ["np.all", "examples", "who.int", "me.com"]),
        ("WHO guidelines for US trips", ["WHO", "guidelines", "US", "trips"]),
        ("WHAT DO YOU DO WITH ROSES", ["ROSES"]),
        ("down syndrome", ["down", "syndrome"]),
        ("how to check-in", ["check-in"]),
        ("vitamin D and t test", ["vitamin", "D", "t", "test"]),
        ("Which of these books", ["books"]),
        ("whichever over-time", ["whichever", "over-time"]),
        ("to be or not to be", ["to", "be", "or", "not", "to", "be"]),
        ("", []),
        ("...", ["..."]),
        ("über alles", ["über", "alles"]),
    ],
)
def test_stop_words_become_spaces_unless_nothing_else_is_left(text: str, kept: list[str]) -> None:
    assert blank_stop_words(text).split() == kept


@given(st.lists(st.one_of(st.sampled_from(sorted(STOP_WORDS)), st.text(max_size=6)), max_size=12).map(" ".join))
def test_every_character_keeps_its_place(text: str) -> None:
    blanked = blank_stop_words(text)
    assert len(blanked) == len(text)
    assert all(new in (old, " ") for old, new in zip(text, blanked, strict=True))
