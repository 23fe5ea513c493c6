"""What was typed, found again in what is suggested for it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidInput
from services.query.suggest import MAX_TYPED_CHARACTERS, clean_typed_text, fold_text, locate_typed_words


def parts(text: str, typed: str) -> list[str]:
    return [text[part.start : part.end] for part in locate_typed_words(text, typed)]


@pytest.mark.parametrize(
    ("text", "typed", "expected"),
    [
        ("The Time Machine", "the ti", ["The", "Ti"]),
        ("The Time Machine", "TIME mach", ["Time", "Mach"]),
        ("The Time Machine", "machine ti", ["Ti", "Machine"]),
        ("The Time Machine", "time ", ["Time"]),
        ("The Times of Time", "time ", ["Time"]),  # a whole word now
        ("Café society", "cafe so", ["Café", "so"]),
        ("Cafe\u0301 society", "CAFÉ", ["Cafe\u0301"]),
        ("🫖 Tea", "te", ["Te"]),
        ("Zürich, Straße 5", "strasse", ["Straße"]),
        ("Straße", "stras", ["Straß"]),  # half of a letter is marked whole
        ("Smørrebrød", "smorre", ["Smørre"]),
        ("State-of-the-art", "of-the-a", ["of", "the", "a"]),
        ("時間機械", "時間", ["時間"]),
        ("Time and time again", "time ag", ["time", "ag"]),
        ("A time to kill time", "kill ti", ["kill", "ti"]),  # the words as they stand side by side
        ("The Time Machine", "tmie", []),
        ("The Time Machine", "", []),
        ("The Time Machine", "?! ", []),
    ],
)
def test_the_parts_that_were_typed(text: str, typed: str, expected: list[str]) -> None:
    assert parts(text, typed) == expected


@given(st.text(max_size=60), st.text(max_size=30))
def test_parts_lie_in_the_text_one_after_the_other(text: str, typed: str) -> None:
    found = locate_typed_words(text, typed)
    assert all(0 <= part.start < part.end <= len(text) for part in found)
    assert all(one.start <= next_.start for one, next_ in pairwise(found))


def test_what_cannot_be_read_is_a_space() -> None:
    assert clean_typed_text("\x00\ta\x1bb\r\n ") == "a b   "
    assert clean_typed_text(" \u2003x") == "x"
    with pytest.raises(InvalidInput, match="101"):
        clean_typed_text("x" * (MAX_TYPED_CHARACTERS + 1))


def test_equal_texts_are_one() -> None:
    assert fold_text(" Café  Society ") == fold_text("cafe society") == "cafe society"
