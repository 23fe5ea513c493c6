"""Tests of points in time."""

import pytest

from services.opensearch.point_in_time import close_point_in_time_call


def test_one_point_in_time_is_closed_and_never_all() -> None:
    assert b"c25hcA" in (close_point_in_time_call("c25hcA").body or b"")
    with pytest.raises(ValueError, match="every point in time"):
        close_point_in_time_call("_all")
