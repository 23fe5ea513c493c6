"""The best passage, by vectors or by words, and links to the passage within web pages."""

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_api.search.passages import best_passage, text_fragment
from services.encoders.vectors import SparseVector
from services.opensearch.stored_document import EncodedWindow


def window(start: int, end: int, **weights: float) -> EncodedWindow:
    return EncodedWindow(start, end, SparseVector.of([int(k[1:]) for k in weights], list(weights.values())))


def test_the_passage_is_the_window_with_the_highest_score() -> None:
    text = "first part. second part."
    windows = [window(0, 14, p1=2.0), window(14, 26, p1=1.0, p2=3.0)]  # offsets in "T\n" + text
    passage = best_passage("T", text, windows, {1: 1.0, 2: 1.0}, "")
    assert passage == {"text": "second part.", "start": 12, "end": 24, "window": 1, "windows": 2, "score": 4.0}


def test_the_title_is_not_part_of_a_passage() -> None:
    passage = best_passage("Title", "text", [window(0, 10, p1=1.0)], {1: 1.0}, "")
    assert (passage["text"], passage["start"], passage["end"]) == ("text", 0, 4)


def test_the_first_of_equal_windows_is_the_passage() -> None:
    windows = [window(0, 2, p1=1.0), window(2, 4, p1=1.0)]
    assert best_passage("", "abcd", windows, {1: 1.0}, "")["window"] == 0


def test_without_vectors_the_chunk_with_most_words_is_the_passage() -> None:
    filler = "Nothing to see in this sentence at all. " * 30
    text = filler + "A Temporary folder is made here. " + filler
    passage = best_passage("", text, [], {}, "temporary FOLDER")
    assert "Temporary folder" in passage["text"]
    assert len(passage["text"]) < 900
    assert text[passage["start"] : passage["end"]] == passage["text"]
    assert passage["score"] is None


@given(st.text(alphabet="ab .\n", max_size=3000), st.text(max_size=20))
def test_without_vectors_the_passage_is_a_part_of_the_text(text: str, words: str) -> None:
    passage = best_passage("", text, [], {}, words)
    assert text[passage["start"] : passage["end"]] == passage["text"]
    assert len(passage["text"]) <= 1200


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
def test_a_fragment_has_the_first_and_the_last_words(passage: str, fragment: str) -> None:
    assert text_fragment(passage) == fragment


@given(st.text())
def test_no_part_of_a_fragment_spans_lines(passage: str) -> None:
    fragment = text_fragment(passage)
    assert fragment.isascii()
    assert not set(fragment.removeprefix(":~:text=")) & set("-& #\n")
    lines = [" ".join(line.split()) for line in passage.splitlines()]
    for part in filter(None, fragment.removeprefix(":~:text=").split(",")):
        assert any(unquote(part) in line for line in lines)
