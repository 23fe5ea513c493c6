"""Segments of a talk, and their stored form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidInput
from services.talk.model import UNKNOWN_TIME, Segments, to_milliseconds

TALK = Segments(
    [0, 10, 25, 40],
    [0, 2000, UNKNOWN_TIME, 9000],
    [1500, UNKNOWN_TIME, UNKNOWN_TIME, 12000],
    [0, 1, UNKNOWN_TIME, 0],
    ("A", "B"),
)


def test_a_character_belongs_to_the_segment_that_begins_at_or_before_it() -> None:
    assert [TALK.at(offset) for offset in (0, 9, 10, 24, 25, 400)] == [0, 0, 1, 1, 2, 3]


def test_a_segment_without_a_time_begins_when_the_one_before_it_did() -> None:
    assert [TALK.second_at(offset) for offset in (0, 10, 30, 41)] == [0.0, 2.0, 2.0, 9.0]
    assert Segments([0, 5], [UNKNOWN_TIME, 3000], [UNKNOWN_TIME] * 2, [UNKNOWN_TIME] * 2).second_at(1) is None


def test_a_segment_without_an_end_ends_when_the_next_known_one_begins() -> None:
    assert [TALK.last_second(offset) for offset in (10, 25, 40, 60)] == [1.5, 9.0, 9.0, 12.0]


def test_a_segment_has_a_speaker_or_none() -> None:
    assert [TALK.speaker_at(offset) for offset in (0, 10, 25, 40)] == ["A", "B", None, "A"]


times = st.one_of(st.just(UNKNOWN_TIME), st.integers(0, 2**31 - 1))


@given(st.lists(st.tuples(st.integers(1, 99), times, times, st.integers(-1, 1)), max_size=50))
def test_packed_segments_survive_a_round_trip(rows: list[tuple[int, int, int, int]]) -> None:
    offsets = [sum(row[0] for row in rows[:i]) for i in range(len(rows))]
    one = Segments(offsets, *([row[i] for row in rows] for i in (1, 2, 3)), ("A", "B"))
    again = Segments.unpack(one.pack())
    assert [list(column) for column in (again.offsets, again.starts, again.ends, again.speakers)] == [
        list(column) for column in (one.offsets, one.starts, one.ends, one.speakers)
    ]
    assert again.names == one.names


@pytest.mark.parametrize("broken", [{}, {"offsets": "!"}, {"offsets": None}])
def test_other_columns_are_refused(broken: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="Packed segments"):
        Segments.unpack(TALK.pack() | broken if broken else {})


def test_columns_of_different_lengths_are_refused() -> None:
    short = Segments([0], [0], [0], [0]).pack()["ends"]
    with pytest.raises(InvalidInput, match="one length"):
        Segments.unpack(TALK.pack() | {"ends": short})


@pytest.mark.parametrize("seconds", [-0.1, float("nan"), float("inf"), 3e6])
def test_an_invalid_time_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidInput, match="number of seconds"):
        to_milliseconds(seconds)
