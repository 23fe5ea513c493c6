"""Constrained decoding: a generator can only write answers that the parser reads whole."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.chapters.podtile_prompt import (
    AnswerGrammar,
    AnswerState,
    ContextLimits,
    format_answer,
    format_answer_prefix,
    format_context,
    parse_answer,
)

LINES = 23
# Pieces as a vocabulary of words and of bytes has them; the last two end an answer.
TEXTS = [
    "", *"0123456789[]", " [", " [1", "12", "] ", "]:", " none", "no", "ne", " ", "\n", " soil", "Rain", " and", "23]",
    "[x", "none", "9 lives", "", "",
]  # fmt: skip
ENDS = [len(TEXTS) - 2, len(TEXTS) - 1]
GRAMMAR = AnswerGrammar(TEXTS, ENDS)


def write(seed: int, prefix: str, longest: int = 60) -> tuple[str, bool]:
    """Write an answer of random pieces among those that may follow. Return it, and whether it ended."""
    chance, answer = random.Random(seed), prefix
    state = AnswerState().follow(prefix, LINES)
    assert state is not None
    for _ in range(longest):
        allowed = np.flatnonzero(GRAMMAR.allowed(state, LINES)).tolist()
        assert allowed, f"nothing may follow {answer!r}"
        piece = chance.choice(allowed)
        if piece in ENDS:
            return answer, True
        answer += TEXTS[piece]
        following = GRAMMAR.follow(state, piece, LINES)
        assert following is not None
        state = following
    return answer, False


@given(st.integers(0, 2**32), st.sampled_from(["", format_answer_prefix()]))
@settings(max_examples=200, deadline=None)
def test_an_answer_of_allowed_pieces_is_read_whole(seed: int, prefix: str) -> None:
    answer, ended = write(seed, prefix)
    parsed = parse_answer(answer, LINES)
    marks = answer.count("[") - (0 if ended or answer.rfind("]") > answer.rfind("[") else 1)
    assert len(parsed) == marks, answer
    assert parsed == sorted(parsed)
    if ended:
        assert parsed or answer.strip() == "none"
        assert all(title or "\n" in answer for _, title in parsed), answer


@pytest.mark.parametrize(
    "answer",
    [format_answer([]), format_answer([(1, "Soil"), (4, "Rain at 9"), (23, "none of it")]), " [2] a\n[10] b"],
)
def test_expected_answers_may_be_written(answer: str) -> None:
    state = AnswerState().follow(answer, LINES)
    assert state is not None
    assert state.may_end


@pytest.mark.parametrize(
    "answer",
    [
        "Soil", "nothing", " none [1",
        "[0", "[24", "[3] Soil [3", "[1] [2", "[1x", "[1] a]", "[]", "[23] a [", "[5] a [4",
        "[1]] a", "[1]: [2",
    ],
)  # fmt: skip
def test_other_answers_may_not(answer: str) -> None:
    assert AnswerState().follow(answer, LINES) is None


def test_a_number_may_still_grow() -> None:
    state = AnswerState().follow("[9] a [1", LINES)
    assert state is not None, "10 to 19 follow 9"
    assert state.follow("]", LINES) is None, "but 1 does not"
    assert AnswerState().follow("[22] a [1", LINES) is None
    assert not AnswerState().may_end


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def test_limits_of_the_context_are_in_pieces() -> None:
    limits = ContextLimits(5, 6, words)
    shown = format_context("T", "one two three four five six", ["a b c", "d e", "f g"], limits)
    assert "About: one two three four five\n" in shown
    # A title costs a piece more for the sign before it.
    assert "Chapters so far: d e; f g\n" in shown
    nothing = format_context("T", "one two", ["a"], ContextLimits(0, 0, words))
    assert nothing == "Title: T\nTranscript:"
    # A description of any length is counted, not cut at 400 characters.
    long = format_context("T", "word " * 500, [], ContextLimits(300, 0, words))
    assert long.count("word") == 300


def test_a_description_without_spaces_is_cut_too() -> None:
    """A limit in words would leave out the whole description of a Japanese talk."""
    limits = ContextLimits(10, 0, lambda texts: [len(text) for text in texts])
    assert "About: 農業と土壌の保全につ\n" in format_context("T", "農業と土壌の保全についての話", [], limits)
