"""Snapshots that callers hold: a bound for all, and half of it for one."""

import pytest

from query_api.search.page_state import HeldPointsInTime, PointInTime
from services.access.principals import EVERYBODY
from services.errors import Overloaded


def held(*callers: str) -> HeldPointsInTime:
    found = HeldPointsInTime(4)
    for number, caller in enumerate(callers):
        found.admit(caller)
        found.keep(PointInTime(f"s{number}", 1), 60, caller)
    return found


def test_one_key_takes_half_and_leaves_the_rest() -> None:
    found = held("a", "a")
    with pytest.raises(Overloaded, match="wait for their next page"):
        found.admit("a")
    found.admit("b")


def test_all_of_them_together_have_an_end() -> None:
    with pytest.raises(Overloaded):
        held("a", "b", "c", "d").admit("e")


def test_where_nobody_is_asked_who_they_are_there_is_one_bound() -> None:
    found = held(*[EVERYBODY.id] * 3)
    found.admit(EVERYBODY.id)


def test_what_was_closed_makes_room() -> None:
    found = held("a", "a")
    found.drop("s0")
    found.admit("a")
