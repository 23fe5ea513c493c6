"""Links to passages within web pages."""

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_api.search.passages import text_fragment


@pytest.mark.parametrize(
    ("passage", "fragment"),
    [
        ("A short text.", ":~:text=A%20short%20text."),
        ("a-b, c & d: 100 %", ":~:text=a%2Db%2C%20c%20%26%20d%3A%20100%20%25"),
        ("one two three four five six seven\n\n  last line here ",
         ":~:text=one%20two%20three%20four%20five%20six,last%20line%20here"),
        ("Überschrift\n日本語の文", ":~:text=%C3%9Cberschrift,%E6%97%A5%E6%9C%AC%E8%AA%9E%E3%81%AE%E6%96%87"),
        (" \n\t", ""),
    ],
)  # fmt: skip
def test_the_first_and_the_last_words(passage: str, fragment: str) -> None:
    assert text_fragment(passage) == fragment


@given(st.text())
def test_a_fragment_is_made_of_words_of_one_line_each(passage: str) -> None:
    fragment = text_fragment(passage)
    assert fragment.isascii()
    assert not set(fragment.removeprefix(":~:text=")) & set("-& #\n")
    lines = [" ".join(line.split()) for line in passage.splitlines()]
    for part in filter(None, fragment.removeprefix(":~:text=").split(",")):
        assert any(unquote(part) in line for line in lines)
