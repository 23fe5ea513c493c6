"""Prompts of the engine podtile, and the parser of answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.chapters.podtile_prompt import (
    MAX_LINE_CHARACTERS,
    NO_ANSWER,
    TARGET_LINE_CHARACTERS,
    clean_title,
    format_answer,
    format_answer_prefix,
    format_context,
    format_numbered_line,
    nearest_line,
    next_chunk,
    parse_answer,
    split_into_lines,
)
from tests.unit.models.chapters.episodes import talk


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (" [3] Soil [9] The harvest", [(3, "Soil"), (9, "The harvest")]),
        (" none", []),
        ("", []),
        ("3: Soil\n9. The harvest\n", [(3, "Soil"), (9, "The harvest")]),
        (" [9] Late [3] Early", [(3, "Early"), (9, "Late")]),
        (" [3] First [3] Again", [(3, "First")]),
        (" [0] Before [21] Beyond [20] Last", [(20, "Last")]),
        (" [3]", [(3, "")]),
        (" [3] A [nested] title [", [(3, "A (nested) title (")]),
        (" [99999999999999999999] Far", []),
        (" [3] Soil\nand what a model that did not stop went on to say", [(3, "Soil")]),
        ("Here are the chapters: Soil, Harvest", []),
        (" [3]: Top 10: things", [(3, "Top 10: things")]),
    ],
)
def test_answers_are_parsed(written: str, read: list[tuple[int, str]]) -> None:
    assert parse_answer(written, 20) == read


_TITLES = (
    st.text(st.characters(codec="utf-8"), min_size=1)
    .map(clean_title)
    .filter(lambda title: title != "" and title[0] != ":")
)


@given(st.dictionaries(st.integers(1, 50), _TITLES))
def test_formatted_answers_are_parsed_back(chapters: dict[int, str]) -> None:
    ordered = sorted(chapters.items())
    assert parse_answer(format_answer(ordered), 50) == ordered


@given(st.text(), st.integers(0, 50))
def test_any_answer_can_be_parsed(text: str, lines: int) -> None:
    read = parse_answer(text, lines)
    numbers = [number for number, _ in read]
    assert numbers == sorted(set(numbers))
    assert all(1 <= number <= lines for number in numbers)


def test_empty_answers_and_given_beginnings_are_formatted() -> None:
    assert format_answer([]) == f" {NO_ANSWER}"
    assert format_answer([(1, "Soil"), (4, "Rain")]).startswith(format_answer_prefix())


def test_the_context_has_the_latest_titles_and_no_line_marks() -> None:
    shown = format_context("On [1] farms\nand fields", "", [f"Chapter {i} with a rather long name" for i in range(100)])
    assert shown.startswith("Title: On (1) farms and fields\n")
    assert "Chapter 99" in shown
    assert "Chapter 10 " not in shown
    assert len(shown) < 800
    assert "About" not in shown
    assert "About: all of it\n" in format_context("T", "all of it", [])


def test_sentences_share_lines_and_keep_their_offsets() -> None:
    episode = talk([f"Sentence number {i} says something about farming." for i in range(40)])
    lines = split_into_lines(episode)
    assert 1 < len(lines) < 40
    assert lines[0].start == 0
    assert {line.start for line in lines} <= set(episode.segments.offsets)
    assert all(0 < line.end - line.start <= TARGET_LINE_CHARACTERS for line in lines)
    assert " ".join(episode.text[line.start : line.end] for line in lines) == episode.text
    assert nearest_line(lines, lines[3].start + 1) == 3


@pytest.mark.parametrize("text", ["word " * 5000, "字" * 20_000, "A short sentence. " * 1000])
def test_a_segment_without_an_end_is_cut(text: str) -> None:
    episode = talk([text])
    lines = split_into_lines(episode)
    assert all(line.end - line.start <= MAX_LINE_CHARACTERS for line in lines)
    assert "".join(episode.text[line.start : line.end] for line in lines).replace(" ", "") == text.replace(" ", "")


def test_a_talk_without_words_has_no_lines() -> None:
    assert split_into_lines(talk([])) == []
    assert split_into_lines(talk(["  ", "\n"])) == []


@given(st.lists(st.integers(0, 60), min_size=1, max_size=60), st.integers(1, 100), st.floats(0, 0.5))
def test_chunks_cover_every_line_and_fit(pieces: list[int], room: int, ahead: float) -> None:
    first, settled = 0, []
    while first < len(pieces):
        part = next_chunk(pieces, first, room, ahead)
        assert part.first == first < part.settled <= part.end
        assert part.end == first + 1 or sum(pieces[first : part.end]) <= room
        settled += range(first, part.settled)
        first = part.settled
    assert settled == list(range(len(pieces)))


def test_the_next_chunk_repeats_the_end_of_a_chunk() -> None:
    part = next_chunk([10] * 100, 0, 80, 0.25)
    assert (part.end, part.settled) == (8, 6)
    assert next_chunk([10] * 8, 0, 80, 0.25).settled == 8


def test_a_line_has_no_line_breaks() -> None:
    assert format_numbered_line(7, "so\nhe said [laughs]") == "\n[7] so he said (laughs)"
