"""Tests of query suggestions: typed text and frequent queries."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidInput
from services.query.suggest import (
    HALF_LIFE_DAYS,
    MAX_TYPED_CHARACTERS,
    QueryCounter,
    clean_typed_text,
    decayed_count,
    fold_text,
    learnable_query,
    locate_typed_words,
    popularity_rank,
    update_rank,
)


def parts(text: str, typed: str) -> list[str]:
    return [text[part.start : part.end] for part in locate_typed_words(text, typed)]


@pytest.mark.parametrize(
    ("text", "typed", "expected"),
    [
        ("The Time Machine", "the ti", ["The", "Ti"]),
        ("The Time Machine", "TIME mach", ["Time", "Mach"]),
        ("The Time Machine", "machine ti", ["Ti", "Machine"]),
        ("The Time Machine", "time ", ["Time"]),
        ("The Times of Time", "time ", ["Time"]),  # the typed word is complete
        ("Café society", "cafe so", ["Café", "so"]),
        ("Cafe\u0301 society", "CAFÉ", ["Cafe\u0301"]),
        ("🫖 Tea", "te", ["Te"]),
        ("Zürich, Straße 5", "strasse", ["Straße"]),
        ("Straße", "stras", ["Straß"]),  # a half-matched letter is marked as a whole
        ("Smørrebrød", "smorre", ["Smørre"]),
        ("State-of-the-art", "of-the-a", ["of", "the", "a"]),
        ("時間機械", "時間", ["時間"]),
        ("Time and time again", "time ag", ["time", "ag"]),
        ("A time to kill time", "kill ti", ["kill", "ti"]),  # adjacent words are preferred
        ("The Time Machine", "tmie", []),
        ("The Time Machine", "", []),
        ("The Time Machine", "?! ", []),
    ],
)
def test_typed_words_are_located(text: str, typed: str, expected: list[str]) -> None:
    assert parts(text, typed) == expected


@given(st.text(max_size=60), st.text(max_size=30))
def test_located_words_are_ordered_and_inside_the_text(text: str, typed: str) -> None:
    found = locate_typed_words(text, typed)
    assert all(0 <= part.start < part.end <= len(text) for part in found)
    assert all(one.start <= next_.start for one, next_ in pairwise(found))


def test_control_characters_become_spaces() -> None:
    assert clean_typed_text("\x00\ta\x1bb\r\n ") == "a b   "
    assert clean_typed_text(" \u2003x") == "x"
    with pytest.raises(InvalidInput, match="101"):
        clean_typed_text("x" * (MAX_TYPED_CHARACTERS + 1))


def test_equal_texts_fold_to_one() -> None:
    assert fold_text(" Café  Society ") == fold_text("cafe society") == "cafe society"


NOW = 1_764_000_000_000
HALF_LIFE = int(HALF_LIFE_DAYS * 24 * 3600 * 1000)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("  Time \t Machine ", "time machine"),
        ("Cafe\u0301", "café"),
        ("year 1984", "year 1984"),
        ("iso 27001", "iso 27001"),
        ("jo@example.org", None),
        ("jo＠example.org", None),
        ("4111 1111 1111", None),
        ("030–12–34–56", None),
        ("+49(0)30(12)34", None),
        ("①②③④⑤⑥", None),
        ("call 555-01-99", None),
        ("bell\x07", None),
        ("half \ud800", None),
        ("?!", None),
        (" ", None),
        ("x" * 101, None),
    ],
)
def test_learnable_queries(query: str, expected: str | None) -> None:
    assert learnable_query(query) == expected


@given(st.text(max_size=120))
def test_normalising_a_query_is_idempotent(query: str) -> None:
    kept = learnable_query(query)
    assert kept is None or learnable_query(kept) == kept
    assert kept is None or len(kept.encode()) <= 440


def test_counts_halve_and_add_up() -> None:
    first = update_rank(None, 8, NOW)
    assert decayed_count(first, NOW) == pytest.approx(8)
    assert decayed_count(first, NOW + HALF_LIFE) == pytest.approx(4)
    again = update_rank(first, 2, NOW + HALF_LIFE)
    assert decayed_count(again, NOW + HALF_LIFE) == pytest.approx(6)
    # Ranks of different times are comparable.
    assert popularity_rank(6, NOW + HALF_LIFE) == pytest.approx(again)
    assert popularity_rank(11.9, NOW) < again < popularity_rank(12.1, NOW)


def test_a_full_counter_takes_no_new_queries() -> None:
    counts = QueryCounter(2)
    for query in ("a", "a", "b", "c", "c", "b"):
        counts.count("books", "l", query)
    assert len(counts) == 2
    counts.forget("books", "b")
    counts.count("films", "m", "c", 5)
    assert counts.drain() == {("books", "l", "a"): 2, ("films", "m", "c"): 5}
    assert counts.drain() == {}
    counts.count("books", "l", "a")
    counts.count("films", "m", "a")
    counts.forget("films", "à")  # a removal of stored queries normalises too
    counts.count("films", "m", "a")
    counts.forget("books", None)
    assert counts.drain() == {("films", "m", "a"): 1}
