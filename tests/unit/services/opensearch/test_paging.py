"""Tests of paging: cursors survive a round trip, changed cursors are refused, and a point in time is closed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.opensearch.paging import (
    close_point_in_time_call,
    decode_cursor,
    encode_cursor,
    seal_cursor,
    unseal_cursor,
)

KEY = b"drawn when the index was made"
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4),
)


@given(VALUES)
def test_cursors_round_trip(values: object) -> None:
    assert decode_cursor(encode_cursor(values)) == values
    assert unseal_cursor(seal_cursor(values, KEY), KEY) == values


@given(st.lists(st.integers(0, 1000), max_size=5), st.data())
def test_a_changed_character_invalidates_the_seal(values: list[int], data: st.DataObject) -> None:
    cursor = seal_cursor(values, KEY)
    at = data.draw(st.integers(0, len(cursor) - 2))  # the last character has unused bits
    other = data.draw(st.sampled_from([one for one in "ABCXYZ019-_" if one != cursor[at]]))
    with pytest.raises(ValueError):
        unseal_cursor(cursor[:at] + other + cursor[at + 1 :], KEY)


@pytest.mark.parametrize(
    "cursor", ["", "x", "é", "*", "a" * 3000, "\ud800", encode_cursor([1, 2, 3]), seal_cursor([1], b"another")]
)
def test_cursors_without_a_valid_seal_are_refused(cursor: str) -> None:
    with pytest.raises(ValueError):
        unseal_cursor(cursor, KEY)


def test_one_point_in_time_is_closed_and_never_all() -> None:
    assert b"c25hcA" in (close_point_in_time_call("c25hcA").body or b"")
    with pytest.raises(ValueError, match="every point in time"):
        close_point_in_time_call("_all")
