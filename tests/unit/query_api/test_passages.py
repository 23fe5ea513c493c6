"""The best passage, by vectors and, before there are any, by words."""

from hypothesis import given
from hypothesis import strategies as st

from query_api.search.passages import best_passage
from services.encoders.vectors import SparseVector
from services.opensearch.stored_document import EncodedWindow


def window(start: int, end: int, **weights: float) -> EncodedWindow:
    return EncodedWindow(start, end, SparseVector.of([int(k[1:]) for k in weights], list(weights.values())))


def test_the_window_with_the_highest_score_wins_and_offsets_count_in_the_text() -> None:
    text = "first part. second part."
    windows = [window(0, 14, p1=2.0), window(14, 26, p1=1.0, p2=3.0)]  # of "T\n" + text
    found = best_passage("T", text, windows, {1: 1.0, 2: 1.0}, "")
    assert found == {"text": "second part.", "start": 12, "end": 24, "window": 1, "windows": 2, "score": 4.0}


def test_the_title_is_not_part_of_a_passage() -> None:
    found = best_passage("Title", "text", [window(0, 10, p1=1.0)], {1: 1.0}, "")
    assert (found["text"], found["start"], found["end"]) == ("text", 0, 4)


def test_of_equal_windows_the_first_is_named() -> None:
    windows = [window(0, 2, p1=1.0), window(2, 4, p1=1.0)]
    assert best_passage("", "abcd", windows, {1: 1.0}, "")["window"] == 0


def test_without_vectors_the_stretch_with_most_words_is_named() -> None:
    filler = "Nothing to see in this sentence at all. " * 30
    text = filler + "A Temporary folder is made here. " + filler
    found = best_passage("", text, [], {}, "temporary FOLDER")
    assert "Temporary folder" in found["text"]
    assert len(found["text"]) < 900
    assert text[found["start"] : found["end"]] == found["text"]
    assert found["score"] is None


@given(st.text(alphabet="ab .\n", max_size=3000), st.text(max_size=20))
def test_a_passage_without_vectors_is_a_part_of_the_text(text: str, words: str) -> None:
    found = best_passage("", text, [], {}, words)
    assert text[found["start"] : found["end"]] == found["text"]
    assert len(found["text"]) <= 1200
