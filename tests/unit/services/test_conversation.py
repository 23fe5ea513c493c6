"""Context from earlier turns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.conversation import MOST_WORDS, Memory, carried_pieces, carried_words, words

TOP = 10.0
TURN = st.dictionaries(st.integers(0, 30), st.floats(0.05, TOP), max_size=10)
UNIT = st.floats(0, 1)
MEMORY = st.builds(Memory, UNIT, UNIT, st.floats(0, 10))


@given(TURN, st.lists(TURN, max_size=5), MEMORY, st.integers(1, 12))
def test_nothing_outweighs_what_was_said_and_nothing_of_the_query_changes(
    now: dict[int, float], turns: list[dict[int, float]], memory: Memory, most: int
) -> None:
    share = carried_pieces(now, turns, TOP, memory, most)
    assert len(share.weights) <= most
    assert not share.weights.keys() & now.keys()
    for piece, weight in share.weights.items():
        assert 0 < weight <= max(turn[piece] for turn in turns if piece in turn) * (1 + 1e-12)


@given(TURN, st.lists(TURN, max_size=5))
def test_a_memory_of_nothing_carries_nothing(now: dict[int, float], turns: list[dict[int, float]]) -> None:
    assert carried_pieces(now, turns, TOP, Memory(share=0), 100).weights == {}
    assert carried_pieces(now, [], TOP, Memory(), 100).weights == {}


@given(TURN, st.lists(TURN, max_size=4), MEMORY)
def test_what_is_older_counts_no_more(now: dict[int, float], turns: list[dict[int, float]], memory: Memory) -> None:
    fresh = carried_pieces(now, turns, TOP, memory, 1000).weights
    later = carried_pieces(now, [*turns, {}], TOP, memory, 1000).weights
    assert later.keys() <= fresh.keys()
    assert all(weight <= fresh[piece] for piece, weight in later.items())


def test_decay_and_rarity() -> None:
    turns = [{1: 10.0, 2: 5.0}, {3: 10.0, 4: 5.0, 9: 8.0}]
    share = carried_pieces({9: 8.0}, turns, TOP, Memory(share=0.5, decay=0.5, rarity=1.0), 10)
    assert share.origin == "context"
    assert share.weights == {3: 5.0, 1: 2.5, 4: 1.25, 2: 0.625}
    assert carried_pieces({}, turns, TOP, Memory(1.0, 0.0, 0.0), 10).weights == {3: 10.0, 9: 8.0, 4: 5.0}


def test_what_would_weigh_next_to_nothing_is_left_out() -> None:
    share = carried_pieces({9: 10.0}, [{1: 10.0, 2: 0.9}], TOP, Memory(0.5, 0.5, 0.0), 10)
    assert share.weights == {1: 5.0}
    assert carried_words("now", ["rare common"], {"rare": 0.9, "common": 0.05}, Memory()).keys() == {"rare"}


def test_a_piece_that_was_said_often_counts_where_it_counts_most() -> None:
    assert carried_pieces({}, [{1: 10.0}, {1: 10.0}], TOP, Memory(0.5, 0.5, 0.0), 10).weights == {1: 5.0}


def test_words_that_the_query_has_are_left_out() -> None:
    relative = {"delete": 0.5, "a": 0.1, "file": 0.4, "on": 0.1, "windows": 0.6}
    carried = carried_words("And a File on macOS?", ["Delete a file on Windows"], relative, Memory(0.5, 0.5, 1.0))
    assert carried == {"windows": pytest.approx(0.3), "delete": pytest.approx(0.25)}


def test_words_are_capped_and_unknown_ones_weigh_nothing() -> None:
    turn = " ".join(f"w{n}" for n in range(60))
    known = {f"w{n}": n / 60 for n in range(1, 60)}
    carried = carried_words("now", [turn], known, Memory())
    assert list(carried) == [f"w{n}" for n in range(59, 59 - MOST_WORDS, -1)]
    assert carried_words("now", ["strange"], {}, Memory()) == {}


@given(st.text(max_size=200))
def test_words_of_any_text(text: str) -> None:
    found = words(text)
    assert len(set(found)) == len(found)
    assert all(0 < len(word) <= 32 for word in found)
