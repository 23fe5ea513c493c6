"""Stretches of the calendar, in UTC, as OpenSearch's `calendar_interval` cuts them; weeks begin on Monday."""

from datetime import date
from typing import Final, Literal, get_args

from services.moments import DAY, HOUR

Unit = Literal["year", "quarter", "month", "week", "day", "hour"]
UNITS: Final = get_args(Unit)

_MONTHS: Final = {"year": 12, "quarter": 3, "month": 1}
_THURSDAY = 3  # 1970-01-01, counted from Monday
_EPOCH = date(1970, 1, 1).toordinal()
# The calendar repeats itself. With an offset a date may lie a day outside of the years that the standard library has.
_CYCLE_YEARS, _CYCLE_DAYS = 400, 146_097


def stretch(moment: int, unit: Unit) -> tuple[int, int]:
    """The first moment of the stretch that a moment lies in, and of the next one, in milliseconds since 1970."""
    if unit == "hour":
        first = moment // HOUR * HOUR
        return first, first + HOUR
    day = moment // DAY
    if unit == "day":
        return day * DAY, (day + 1) * DAY
    if unit == "week":
        first = day - (day + _THURSDAY) % 7
        return first * DAY, (first + 7) * DAY
    cycle = -1 if day + _EPOCH < 1 else 1 if day + _EPOCH > date.max.toordinal() else 0
    on = date.fromordinal(day + _EPOCH - cycle * _CYCLE_DAYS)
    months = on.year * 12 + on.month - 1
    begun = months - months % _MONTHS[unit]
    return _month(begun, cycle), _month(begun + _MONTHS[unit], cycle)


def shown(moment: int, unit: Unit) -> str | None:
    """The beginning of a stretch as documents and filters write dates; None outside the years 1 to 9999."""
    day, rest = divmod(moment, DAY)
    if not 1 <= day + _EPOCH <= date.max.toordinal():
        return None
    written = date.fromordinal(day + _EPOCH).isoformat()
    return f"{written}T{rest // HOUR:02}:00Z" if unit == "hour" else written


def written(moment: int, unit: Unit) -> dict[str, str]:
    """The stretch that a moment lies in, as the range of a filter that finds its dates and no others.

    What an offset moved out of the years 1 to 9999, which dates are written with, is one stretch at either end.
    """
    first, after = stretch(moment, unit)
    begin, end = shown(first, unit), shown(after, unit)
    if begin is None:
        return {"lt": date.min.isoformat()} if first < 0 else {"gt": date.max.isoformat()}
    if end is None:
        # (a week goes on in the year 10000)
        return {"gte": begin} if unit == "week" else {"gte": begin, "lte": date.max.isoformat()}
    return {"gte": begin, "lt": end}


def _month(months: int, cycle: int) -> int:
    """The first moment of a month, counted from the year 0 of a cycle."""
    year, month = divmod(months, 12)
    if year > date.max.year:
        year, cycle = year - _CYCLE_YEARS, cycle + 1
    return (date(year, month + 1, 1).toordinal() - _EPOCH + cycle * _CYCLE_DAYS) * DAY
