"""Times and dates in milliseconds since 1970, and calendar intervals in UTC.

A date without a time means the whole day, and a time without seconds the whole minute, as in OpenSearch's range queries
(org.opensearch.common.time.JavaDateMathParser rounds up missing parts). A time without an offset is UTC. Intervals are
those of OpenSearch's `calendar_interval`; weeks begin on Monday. The arithmetic uses integers, because an offset may
move a date out of the years 1 to 9999 of `datetime`.
"""

import re
import time
from datetime import UTC, date, datetime
from typing import Final, Literal, get_args

DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS = 86_400_000, 3_600_000, 60_000, 1000
_DATE = re.compile(r"(\d{4}-\d\d-\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(?:Z|([+-])(\d\d):(\d\d))?)?")
_EPOCH = date(1970, 1, 1).toordinal()


def now_ms() -> int:
    """Return the time in milliseconds since 1970, the unit of all stored times."""
    return time.time_ns() // 1_000_000


def days_ms(days: float) -> int:
    """Convert days to milliseconds."""
    return int(days * DAY_MS)


def format_timestamp(milliseconds: int | None) -> str | None:
    """Format a time as ISO 8601 in UTC."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def date_bounds(text: str) -> tuple[int, int]:
    """Return the first and the last millisecond of a date that `services.documents.document.is_date` accepts.

    Digits beyond milliseconds are cut off, as in stored documents. Raises ValueError for any other text.
    """
    parts = _DATE.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text[:40]!r} is not a date")
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
# The Gregorian calendar repeats every 400 years. With an offset, a date may lie a day outside the years of `datetime`.
_CYCLE_YEARS, _CYCLE_DAYS = 400, 146_097


def calendar_interval(time_ms: int, unit: CalendarUnit) -> tuple[int, int]:
    """Return the start of the interval that contains `time_ms`, and the start of the next one."""
    if unit == "hour":
        first = time_ms // HOUR_MS * HOUR_MS
        return first, first + HOUR_MS
    day = time_ms // DAY_MS
    if unit == "day":
        return day * DAY_MS, (day + 1) * DAY_MS
    if unit == "week":
        first = day - (day + _THURSDAY) % 7
        return first * DAY_MS, (first + 7) * DAY_MS
    cycle = -1 if day + _EPOCH < 1 else 1 if day + _EPOCH > date.max.toordinal() else 0
    day_in_cycle = date.fromordinal(day + _EPOCH - cycle * _CYCLE_DAYS)
    months = day_in_cycle.year * 12 + day_in_cycle.month - 1
    first_month = months - months % _MONTHS[unit]
    return _month_start(first_month, cycle), _month_start(first_month + _MONTHS[unit], cycle)


def format_interval_start(time_ms: int, unit: CalendarUnit) -> str | None:
    """Format the start of an interval as documents and filters write dates; None outside the years 1 to 9999."""
    day, rest = divmod(time_ms, DAY_MS)
    if not 1 <= day + _EPOCH <= date.max.toordinal():
        return None
    day_text = date.fromordinal(day + _EPOCH).isoformat()
    return f"{day_text}T{rest // HOUR_MS:02}:00Z" if unit == "hour" else day_text


def calendar_interval_range(time_ms: int, unit: CalendarUnit) -> dict[str, str]:
    """Return the interval that contains `time_ms` as the range of a filter that matches exactly its dates.

    Times that an offset moves out of the years 1 to 9999 are one interval at either end.
    """
    first, next_first = calendar_interval(time_ms, unit)
    begin, end = format_interval_start(first, unit), format_interval_start(next_first, unit)
    if begin is None:
        return {"lt": date.min.isoformat()} if first < 0 else {"gt": date.max.isoformat()}
    if end is None:
        # the last week extends into the year 10000
        return {"gte": begin} if unit == "week" else {"gte": begin, "lte": date.max.isoformat()}
    return {"gte": begin, "lt": end}


def _month_start(months: int, cycle: int) -> int:
    """Return the first millisecond of a month, which is counted from the year 0 of a cycle."""
    year, month = divmod(months, 12)
    if year > date.max.year:
        year, cycle = year - _CYCLE_YEARS, cycle + 1
    return (date(year, month + 1, 1).toordinal() - _EPOCH + cycle * _CYCLE_DAYS) * DAY_MS
