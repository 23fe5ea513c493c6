"""Stretches of the calendar, in UTC, as OpenSearch's `calendar_interval` cuts them; weeks begin on Monday."""

from datetime import date
from typing import Final, Literal, get_args

import numpy as np

from services.moments import DAY, HOUR

Unit = Literal["year", "quarter", "month", "week", "day", "hour"]
UNITS: Final = get_args(Unit)

_MONTHS: Final = {"year": 12, "quarter": 3, "month": 1}
_THURSDAY = 3  # 1970-01-01, counted from Monday
_EPOCH = date(1970, 1, 1).toordinal()


def stretch(moment: int, unit: Unit) -> tuple[int, int]:
    """The first moment of the stretch that a moment lies in, and of the next one, in milliseconds since 1970."""
    if unit == "hour":
        first = moment // HOUR * HOUR
        return first, first + HOUR
    if unit in ("day", "week"):
        day = moment // DAY
        length = 1
        if unit == "week":
            day, length = day - (day + _THURSDAY) % 7, 7
        return day * DAY, (day + length) * DAY
    # numpy counts months before the year 1 as well, which the standard library does not
    months = int(np.datetime64(moment, "ms").astype("datetime64[M]").astype(np.int64))
    begun = months - months % _MONTHS[unit]
    return _month(begun), _month(begun + _MONTHS[unit])


def shown(moment: int, unit: Unit) -> str | None:
    """The beginning of a stretch as documents and filters write dates; None outside the years 1 to 9999."""
    day, rest = divmod(moment, DAY)
    if not 1 <= day + _EPOCH <= date.max.toordinal():
        return None
    written = date.fromordinal(day + _EPOCH).isoformat()
    return f"{written}T{rest // HOUR:02}:00Z" if unit == "hour" else written


def _month(months: int) -> int:
    return int(np.datetime64(months, "M").astype("datetime64[ms]").astype(np.int64))
