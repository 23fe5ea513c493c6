"""The limit of points in time that callers hold open."""

import pytest

from query_api.points_in_time import PointInTime, PointInTimeRegistry
from services.access.principals import EVERYBODY
from services.errors import Overloaded


def open_points(*callers: str) -> PointInTimeRegistry:
    points = PointInTimeRegistry(4)
    for number, caller in enumerate(callers):
        points.check_room(caller)
        points.record(PointInTime(f"s{number}", 1), 60, caller)
    return points


def test_one_key_may_hold_half_of_the_points_in_time() -> None:
    points = open_points("a", "a")
    with pytest.raises(Overloaded, match="wait for their next page"):
        points.check_room("a")
    points.check_room("b")


def test_all_keys_together_have_a_limit() -> None:
    with pytest.raises(Overloaded):
        open_points("a", "b", "c", "d").check_room("e")


def test_without_keys_only_the_common_limit_applies() -> None:
    points = open_points(*[EVERYBODY.id] * 3)
    points.check_room(EVERYBODY.id)


def test_a_closed_point_in_time_makes_room() -> None:
    points = open_points("a", "a")
    points.remove("s0")
    points.check_room("a")
