"""Stretches of the calendar, in UTC, as OpenSearch's `calendar_interval` cuts them; weeks begin on Monday.

Dates as documents and filters write them, as milliseconds since 1970: what OpenSearch stores of them.

A date without a time stands for the whole day, one without seconds for the whole minute, as in OpenSearch's range
queries (org.opensearch.common.time.JavaDateMathParser rounds up what is left out). Without an offset it is UTC.
"""

import re
from datetime import date
from typing import Final, Literal, get_args

DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS = 86_400_000, 3_600_000, 60_000, 1000
_PARTS = re.compile(r"(\d{4}-\d\d-\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(?:Z|([+-])(\d\d):(\d\d))?)?")
_EPOCH = date(1970, 1, 1).toordinal()


def date_bounds(text: str) -> tuple[int, int]:
    """The first and the last millisecond of a date that `services.documents.document.is_date` takes.

    What is finer than a millisecond is cut off, as it is where documents are stored. Whole numbers throughout: the
    year 1 with an offset is a moment of the year 0, which datetime has not.
    """
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text[:40]!r} is no date")
    day, hour, minute, second, fraction, sign, offset_hours, offset_minutes = parts.groups()
    first = (date.fromisoformat(day).toordinal() - _EPOCH) * DAY_MS
    if hour is None:
        return first, first + DAY_MS - 1
    first += int(hour) * HOUR_MS + int(minute) * MINUTE_MS
    if sign is not None:
        offset = int(offset_hours) * HOUR_MS + int(offset_minutes) * MINUTE_MS
        first += offset if sign == "-" else -offset
    if second is None:
        return first, first + MINUTE_MS - 1
    first += int(second) * SECOND_MS
    if fraction is None:
        return first, first + SECOND_MS - 1
    first += int(fraction[:3].ljust(3, "0"))
    return first, first


CalendarUnit = Literal["year", "quarter", "month", "week", "day", "hour"]
CALENDAR_UNITS: Final = get_args(CalendarUnit)

_MONTHS: Final = {"year": 12, "quarter": 3, "month": 1}
_THURSDAY = 3  # 1970-01-01, counted from Monday
# The calendar repeats itself. With an offset a date may lie a day outside of the years that the standard library has.
_CYCLE_YEARS, _CYCLE_DAYS = 400, 146_097


def calendar_interval(moment: int, unit: CalendarUnit) -> tuple[int, int]:
    """The first moment of the stretch that a moment lies in, and of the next one, in milliseconds since 1970."""
    if unit == "hour":
        first = moment // HOUR_MS * HOUR_MS
        return first, first + HOUR_MS
    day = moment // DAY_MS
    if unit == "day":
        return day * DAY_MS, (day + 1) * DAY_MS
    if unit == "week":
        first = day - (day + _THURSDAY) % 7
        return first * DAY_MS, (first + 7) * DAY_MS
    cycle = -1 if day + _EPOCH < 1 else 1 if day + _EPOCH > date.max.toordinal() else 0
    on = date.fromordinal(day + _EPOCH - cycle * _CYCLE_DAYS)
    months = on.year * 12 + on.month - 1
    begun = months - months % _MONTHS[unit]
    return _month_start(begun, cycle), _month_start(begun + _MONTHS[unit], cycle)


def format_interval_start(moment: int, unit: CalendarUnit) -> str | None:
    """The beginning of a stretch as documents and filters write dates; None outside the years 1 to 9999."""
    day, rest = divmod(moment, DAY_MS)
    if not 1 <= day + _EPOCH <= date.max.toordinal():
        return None
    written = date.fromordinal(day + _EPOCH).isoformat()
    return f"{written}T{rest // HOUR_MS:02}:00Z" if unit == "hour" else written


def calendar_interval_range(moment: int, unit: CalendarUnit) -> dict[str, str]:
    """The stretch that a moment lies in, as the range of a filter that finds its dates and no others.

    What an offset moved out of the years 1 to 9999, which dates are written with, is one stretch at either end.
    """
    first, after = calendar_interval(moment, unit)
    begin, end = format_interval_start(first, unit), format_interval_start(after, unit)
    if begin is None:
        return {"lt": date.min.isoformat()} if first < 0 else {"gt": date.max.isoformat()}
    if end is None:
        # (a week goes on in the year 10000)
        return {"gte": begin} if unit == "week" else {"gte": begin, "lte": date.max.isoformat()}
    return {"gte": begin, "lt": end}


def _month_start(months: int, cycle: int) -> int:
    """The first moment of a month, counted from the year 0 of a cycle."""
    year, month = divmod(months, 12)
    if year > date.max.year:
        year, cycle = year - _CYCLE_YEARS, cycle + 1
    return (date(year, month + 1, 1).toordinal() - _EPOCH + cycle * _CYCLE_DAYS) * DAY_MS
