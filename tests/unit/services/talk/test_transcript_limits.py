"""Transcripts whose parts would take much memory, or hold up other threads, are refused before they are read."""

import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidInput, SparsewellError
from services.talk import normalise
from services.talk.normalise import RepairCounter, collapse_white_space
from services.talk.readers import parse_plain_transcript, parse_podcasting_transcript, parse_subtitles

MIB = 1024**2
CUE = "00:00:01.000 --> 00:00:02.000\n"


def code_and_peak(parse: object, *arguments: object) -> tuple[str, int]:
    """Return the code of the refusal, and the most bytes of memory that it took."""
    tracemalloc.start()
    with pytest.raises(SparsewellError) as error:
        parse(*arguments)  # type: ignore[operator]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return error.value.code, peak


def test_notes_without_end() -> None:
    text = "WEBVTT\n\n" + "NOTE x\n\n" * 400_000
    code, peak = code_and_peak(parse_subtitles, text, "vtt", RepairCounter())
    assert (code, peak < MIB) == ("transcript_too_large", True), "its lines would take 60 MB"


@pytest.mark.parametrize("line", ["word <i>", "word <i>\n"])
def test_a_cue_without_end(line: str) -> None:
    text = f"WEBVTT\n\n{CUE}{line * 20_000}"
    code, _ = code_and_peak(parse_subtitles, text, "vtt", RepairCounter())
    assert code == "transcript_too_large"
    (row,) = parse_subtitles(f"WEBVTT\n\n{CUE}{line * 10_000}", "vtt", RepairCounter())
    assert row.text.startswith("word word")


@pytest.mark.parametrize("parse", [parse_plain_transcript, parse_podcasting_transcript])
def test_small_values_in_a_string_of_json(parse: object) -> None:
    text = "[" + "[]," * 700_000 + "[]]"
    code, peak = code_and_peak(parse, text)
    assert (code, peak < 8 * MIB) == ("too_many_values", True), "the empty arrays would take 45 MB"


def test_too_many_lines() -> None:
    text = "Ann: word\n" * 400_000
    code, peak = code_and_peak(parse_plain_transcript, text)
    assert (code, peak < 5 * len(text)) == ("too_many_segments", True), "all lines would take fifteen times the text"


def test_text_in_brackets_is_no_json() -> None:
    assert parse_plain_transcript("[Music] Good morning. [Applause]")[0].text == "[Music] Good morning. [Applause]"
    with pytest.raises(InvalidInput, match="is JSON"):
        parse_plain_transcript(' [{"body": "a"}] ')


def test_the_words_of_a_long_line_are_never_all_in_memory() -> None:
    line = "word " * 400_000
    tracemalloc.start()
    (row,) = parse_plain_transcript(line)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert row.text == line.strip()
    assert peak < 5 * len(line), "the words would take twelve times their line"


@given(st.text(st.sampled_from("ab \n\t\u2003\xa0\x1c"), max_size=60))
def test_white_space_is_collapsed_piece_by_piece_as_at_once(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(normalise, "PIECE_CHARACTERS", 4)
        assert collapse_white_space(text) == " ".join(text.split())


@given(st.text(st.sampled_from("a\n\r\u2028\u2029\x85 "), max_size=40))
def test_every_line_break_ends_a_line(text: str) -> None:
    lines = [words for line in re.split(r"\r\n?|[\n\u2028\u2029\x85]", text) if (words := " ".join(line.split()))]
    paragraphs = [part.text for part in parse_plain_transcript(text)]
    assert " ".join(paragraphs) == " ".join(lines)
