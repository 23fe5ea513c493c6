"""Dates as documents and filters write them, as milliseconds since 1970: what OpenSearch stores of them.

A date without a time stands for the whole day, one without seconds for the whole minute, as in OpenSearch's range
queries (org.opensearch.common.time.JavaDateMathParser rounds up what is left out). Without an offset it is UTC.
"""

import re
from datetime import date

DAY, HOUR, MINUTE, SECOND = 86_400_000, 3_600_000, 60_000, 1000
_PARTS = re.compile(r"(\d{4}-\d\d-\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(?:Z|([+-])(\d\d):(\d\d))?)?")
_EPOCH = date(1970, 1, 1).toordinal()


def span(text: str) -> tuple[int, int]:
    """The first and the last millisecond of a date that `services.documents.is_date` takes.

    What is finer than a millisecond is cut off, as it is where documents are stored. Whole numbers throughout: the
    year 1 with an offset is a moment of the year 0, which datetime has not.
    """
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text[:40]!r} is no date")
    day, hour, minute, second, fraction, sign, offset_hours, offset_minutes = parts.groups()
    first = (date.fromisoformat(day).toordinal() - _EPOCH) * DAY
    if hour is None:
        return first, first + DAY - 1
    first += int(hour) * HOUR + int(minute) * MINUTE
    if sign is not None:
        offset = int(offset_hours) * HOUR + int(offset_minutes) * MINUTE
        first += offset if sign == "-" else -offset
    if second is None:
        return first, first + MINUTE - 1
    first += int(second) * SECOND
    if fraction is None:
        return first, first + SECOND - 1
    first += int(fraction[:3].ljust(3, "0"))
    return first, first
