"""Which queries may be kept, and how counts fade."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.query.suggest import (
    HALF_LIFE_DAYS,
    QueryCounter,
    decayed_count,
    learnable_query,
    popularity_rank,
    update_rank,
)

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
def test_what_is_kept(query: str, expected: str | None) -> None:
    assert learnable_query(query) == expected


@given(st.text(max_size=120))
def test_what_is_kept_is_kept_as_it_is(query: str) -> None:
    kept = learnable_query(query)
    assert kept is None or learnable_query(kept) == kept
    assert kept is None or len(kept.encode()) <= 440


def test_counts_halve_and_add_up() -> None:
    first = update_rank(None, 8, NOW)
    assert decayed_count(first, NOW) == pytest.approx(8)
    assert decayed_count(first, NOW + HALF_LIFE) == pytest.approx(4)
    again = update_rank(first, 2, NOW + HALF_LIFE)
    assert decayed_count(again, NOW + HALF_LIFE) == pytest.approx(6)
    # what is more today is more at any time
    assert popularity_rank(6, NOW + HALF_LIFE) == pytest.approx(again)
    assert popularity_rank(11.9, NOW) < again < popularity_rank(12.1, NOW)


def test_a_full_counter_takes_no_other_query_and_invents_no_count() -> None:
    counts = QueryCounter(2)
    for query in ("a", "a", "b", "c", "c", "b"):
        counts.note("books", "l", query)
    assert len(counts) == 2
    counts.forget("books", "b")
    counts.note("films", "m", "c", 5)
    assert counts.take() == {("books", "l", "a"): 2, ("films", "m", "c"): 5}
    assert counts.take() == {}
    counts.note("books", "l", "a")
    counts.note("films", "m", "a")
    counts.forget("films", "à")  # as what is stored is removed
    counts.note("films", "m", "a")
    counts.forget("books", None)
    assert counts.take() == {("films", "m", "a"): 1}
