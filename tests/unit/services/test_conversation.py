"""Context from earlier turns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.query.expansion import (
    MAX_CONTEXT_WORDS,
    ConversationMemory,
    context_pieces,
    context_words,
    distinct_words,
)

TOP = 10.0
TURN = st.dictionaries(st.integers(0, 30), st.floats(0.05, TOP), max_size=10)
UNIT = st.floats(0, 1)
MEMORY = st.builds(ConversationMemory, UNIT, UNIT, st.floats(0, 10))


@given(TURN, st.lists(TURN, max_size=5), MEMORY, st.integers(1, 12))
def test_nothing_outweighs_what_was_said_and_nothing_of_the_query_changes(
    now: dict[int, float], turns: list[dict[int, float]], memory: ConversationMemory, most: int
) -> None:
    share = context_pieces(now, turns, TOP, memory, most)
    assert len(share.weights) <= most
    assert not share.weights.keys() & now.keys()
    for piece, weight in share.weights.items():
        assert 0 < weight <= max(turn[piece] for turn in turns if piece in turn) * (1 + 1e-12)


@given(TURN, st.lists(TURN, max_size=5))
def test_a_memory_of_nothing_carries_nothing(now: dict[int, float], turns: list[dict[int, float]]) -> None:
    assert context_pieces(now, turns, TOP, ConversationMemory(share=0), 100).weights == {}
    assert context_pieces(now, [], TOP, ConversationMemory(), 100).weights == {}


@given(TURN, st.lists(TURN, max_size=4), MEMORY)
def test_what_is_older_counts_no_more(
    now: dict[int, float], turns: list[dict[int, float]], memory: ConversationMemory
) -> None:
    fresh = context_pieces(now, turns, TOP, memory, 1000).weights
    later = context_pieces(now, [*turns, {}], TOP, memory, 1000).weights
    assert later.keys() <= fresh.keys()
    assert all(weight <= fresh[piece] for piece, weight in later.items())


def test_decay_and_rarity() -> None:
    turns = [{1: 10.0, 2: 5.0}, {3: 10.0, 4: 5.0, 9: 8.0}]
    share = context_pieces({9: 8.0}, turns, TOP, ConversationMemory(share=0.5, decay=0.5, rarity=1.0), 10)
    assert share.origin == "context"
    assert share.weights == {3: 5.0, 1: 2.5, 4: 1.25, 2: 0.625}
    assert context_pieces({}, turns, TOP, ConversationMemory(1.0, 0.0, 0.0), 10).weights == {3: 10.0, 9: 8.0, 4: 5.0}


def test_what_would_weigh_next_to_nothing_is_left_out() -> None:
    share = context_pieces({9: 10.0}, [{1: 10.0, 2: 0.9}], TOP, ConversationMemory(0.5, 0.5, 0.0), 10)
    assert share.weights == {1: 5.0}
    assert context_words("now", ["rare common"], {"rare": 0.9, "common": 0.05}, ConversationMemory()).keys() == {"rare"}


def test_a_piece_that_was_said_often_counts_where_it_counts_most() -> None:
    assert context_pieces({}, [{1: 10.0}, {1: 10.0}], TOP, ConversationMemory(0.5, 0.5, 0.0), 10).weights == {1: 5.0}


def test_words_that_the_query_has_are_left_out() -> None:
    relative = {"delete": 0.5, "a": 0.1, "file": 0.4, "on": 0.1, "windows": 0.6}
    carried = context_words(
        "And a File on macOS?", ["Delete a file on Windows"], relative, ConversationMemory(0.5, 0.5, 1.0)
    )
    assert carried == {"windows": pytest.approx(0.3), "delete": pytest.approx(0.25)}


def test_words_are_capped_and_unknown_ones_weigh_nothing() -> None:
    turn = " ".join(f"w{n}" for n in range(60))
    known = {f"w{n}": n / 60 for n in range(1, 60)}
    carried = context_words("now", [turn], known, ConversationMemory())
    assert list(carried) == [f"w{n}" for n in range(59, 59 - MAX_CONTEXT_WORDS, -1)]
    assert context_words("now", ["strange"], {}, ConversationMemory()) == {}


@given(st.text(max_size=200))
def test_words_of_any_text(text: str) -> None:
    found = distinct_words(text)
    assert len(set(found)) == len(found)
    assert all(0 < len(word) <= 32 for word in found)
