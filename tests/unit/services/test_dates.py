"""Tests of dates in milliseconds, and of calendar intervals."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.dates import (
    CALENDAR_UNITS,
    DAY_MS,
    CalendarUnit,
    calendar_interval,
    calendar_interval_range,
    date_bounds,
    format_interval_start,
)
from services.documents.document import is_date

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("1970-01-01", 0, DAY_MS - 1),
        ("1970-01-02T00:00", DAY_MS, DAY_MS + 59_999),
        ("1970-01-01T01:00:02Z", 3_602_000, 3_602_999),
        ("1970-01-01T00:00:00.5Z", 500, 500),
        ("1970-01-01T00:00:00.123999Z", 123, 123),
        ("1970-01-01T01:00:00.000+01:00", 0, 0),
        ("1969-12-31T23:00:00.001-01:00", 1, 1),
        ("1969-12-31T23:59:59.9999Z", -1, -1),
        ("1969-12-31", -DAY_MS, -1),
        ("0001-01-01T00:00+14:00", -62_135_647_200_000, -62_135_647_140_001),
        ("9999-12-31T23:59-14:00", 253_402_351_140_000, 253_402_351_199_999),
    ],
)
def test_a_date_covers_its_missing_parts(text: str, first: int, last: int) -> None:
    assert is_date(text)
    assert date_bounds(text) == (first, last)


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31)))
def test_a_complete_date_equals_the_standard_library_s(moment: datetime) -> None:
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)
    text = moment.isoformat(timespec="milliseconds")
    first, last = date_bounds(text)
    assert first == last == (moment - EPOCH) // timedelta(milliseconds=1)


def test_an_invalid_date_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a date"):
        date_bounds("yesterday")


@given(st.integers(min_value=-62_135_596_800_000, max_value=253_402_300_799_999), st.sampled_from(CALENDAR_UNITS))
def test_an_interval_contains_its_time_and_ends_at_the_next_one(moment: int, unit: CalendarUnit) -> None:
    first, after = calendar_interval(moment, unit)
    assert first <= moment < after
    assert calendar_interval(first, unit) == (first, after)
    assert calendar_interval(after - 1, unit) == (first, after)
    assert calendar_interval(after, unit)[0] == after


@pytest.mark.parametrize(
    ("unit", "first", "after"),
    [
        ("year", "2024-01-01", "2025-01-01"),
        ("quarter", "2024-01-01", "2024-04-01"),
        ("month", "2024-02-01", "2024-03-01"),
        ("week", "2024-02-26", "2024-03-04"),  # a Monday
        ("day", "2024-02-29", "2024-03-01"),
        ("hour", "2024-02-29T13:00Z", "2024-02-29T14:00Z"),
    ],
)
def test_intervals_are_formatted_as_dates(unit: CalendarUnit, first: str, after: str) -> None:
    begun, ended = calendar_interval(date_bounds("2024-02-29T13:14:15Z")[0], unit)
    assert (format_interval_start(begun, unit), format_interval_start(ended, unit)) == (first, after)
    assert is_date(first)


def bounds(within: dict[str, str]) -> tuple[float, float]:
    """Return the first and last millisecond of a range as a filter reads it."""
    low = (
        date_bounds(within["gte"])[0]
        if "gte" in within
        else date_bounds(within["gt"])[1] + 1
        if "gt" in within
        else -math.inf
    )
    high = (
        date_bounds(within["lt"])[0] - 1
        if "lt" in within
        else date_bounds(within["lte"])[1]
        if "lte" in within
        else math.inf
    )
    return low, high


@pytest.mark.parametrize("unit", CALENDAR_UNITS)
def test_each_time_is_in_one_formatted_interval(unit: CalendarUnit) -> None:
    """This holds at the ends of the calendar too, where an offset moves a date out of the years 1 to 9999."""
    dates = ["0001-01-01T00:00+18:00", "0001-01-01T09:00+18:00", "0001-01-01", "0001-01-01T00:59", "2024-02-29"]
    dates += [
        "9999-12-26T12:00",
        "9999-12-31T22:59",
        "9999-12-31T23:59Z",
        "9999-12-31T12:00-18:00",
        "9999-12-31T23:59-18:00",
    ]
    moments = [date_bounds(one)[0] for one in dates]
    for moment in moments:
        within = calendar_interval_range(moment, unit)
        low, high = bounds(within)
        assert [one for one in moments if low <= one <= high] == [
            one for one in moments if calendar_interval_range(one, unit) == within
        ]


def test_intervals_outside_the_calendar_are_not_formatted() -> None:
    assert format_interval_start(calendar_interval(date_bounds("9999-12-31")[0], "year")[1], "year") is None
    assert (
        format_interval_start(calendar_interval(date_bounds("0001-01-01T00:00+14:00")[0], "month")[0], "month") is None
    )
